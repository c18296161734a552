"""The floors of the house: a file imports only from floors below its own."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path

import pytest

from robustgen.attacks import ATTACKS
from robustgen.data import DATA
from robustgen.detectors import DETECTORS
from robustgen.models import ARCHITECTURES
from robustgen.objectives import LOSSES
from robustgen.registry import resolve

ROOT = Path(__file__).parents[1]
FLOORS = [
    {"errors"},
    {"registry"},
    {"randomness"},
    {"threat", "metrics", "artifacts", "runtime", "recall"},
    {"calibration"},
    {"data", "objectives"},
    {"models", "attacks"},
    {"bounds"},
    {"training"},
    {"detectors"},
    {"guard"},
    {"evaluation"},
    {"report", "testing"},
    {"bench", "demo"},
    {"demo_page"},
]
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
FILES = sorted((ROOT / "robustgen").rglob("*.py"))


def imported(path: Path) -> set[str]:
    """The robustgen modules that a file imports anywhere in it, also for type checkers and inside functions."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            names |= {
                f"{node.module}.{alias.name}" if node.module == "robustgen" else str(node.module)
                for alias in node.names
            }
    return names


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_import_runs_upwards(path: Path) -> None:
    room = path.relative_to(ROOT / "robustgen").parts[0].removesuffix(".py")
    for name in imported(path):
        if name.startswith("robustgen.") and room != "__init__":
            other = name.split(".")[1]
            assert room == other or FLOOR[other] < FLOOR[room], f"{path.name} ({room}) imports {name}"
        assert not name.startswith(("robustgen_cli", "robustgen_benchmarks", "typer", "rich")), (
            f"{path.name} imports {name}"
        )


def test_every_room_has_a_floor() -> None:
    rooms = {path.relative_to(ROOT / "robustgen").parts[0].removesuffix(".py") for path in FILES} - {"__init__"}
    assert rooms == set(FLOOR)


def test_files_stay_readable() -> None:
    sizes = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in FILES}
    assert {str(path) for path, lines in sizes.items() if lines > 400} == set()
    assert sorted(sizes.values())[len(sizes) // 2] <= 150


@pytest.mark.parametrize("table", [ATTACKS, DETECTORS, DATA, ARCHITECTURES, LOSSES])
def test_every_name_resolves_and_is_described(table: dict[str, object]) -> None:
    for name in table:
        assert name == name.lower()
        assert "_" not in name
        assert resolve(table, name, "entry") is not None  # type: ignore[arg-type]
        assert table[name].help  # type: ignore[attr-defined]


def test_public_names_resolve() -> None:
    robustgen = importlib.import_module("robustgen")
    for name in robustgen.__all__:
        assert getattr(robustgen, name) is not None
    assert set(robustgen.__all__) <= set(dir(robustgen))
    with pytest.raises(AttributeError, match="nonsense"):
        _ = robustgen.nonsense
