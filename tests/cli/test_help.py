"""Help, lists, completion and imports: what the command line says before it does anything."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import typer

from robustgen.attacks import ATTACKS
from robustgen.attacks.art_names import ART
from robustgen.bench import SUITES
from robustgen.data import DATA
from robustgen.detectors import DETECTORS
from robustgen.detectors.art_names import ART_DETECTORS
from robustgen.detectors.pyod_names import PYOD, installed
from robustgen.models import ARCHITECTURES
from robustgen.objectives import LOSSES
from robustgen_cli.main import app

COMMANDS = (
    "demo",
    "train",
    "attack",
    "fit",
    "detect",
    "certify",
    "bench",
    "encode",
    "reconstruct",
    "interpolate",
    "sample",
    "list",
    "show",
)
HEAVY = ("torch", "numpy", "scipy", "sklearn", "art", "matplotlib", "jinja2", "accelerate")
CODE = """
import sys
sys.argv[0] = "robustgen"
try:
    {}
finally:
    sys.stderr.write(" ".join({{name.partition(".")[0] for name in sys.modules}}))
"""
MAIN = "from robustgen_cli.main import main; main()"


def python(code: str, *args: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A fresh Python that finds the packages where this one does."""
    path = os.pathsep.join(filter(None, sys.path))
    return subprocess.run(
        [sys.executable, "-c", CODE.format(code), *args],
        env={**os.environ, "PYTHONPATH": path, "COLUMNS": "200", **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize(
    "args",
    [["--help"], ["--version"], ["list"], ["list", "models", "--json"], ["attack", "fgsm", "--eps", "x"]]
    + [[command, "--help"] for command in COMMANDS],
    ids=" ".join,
)
def test_nothing_heavy_is_imported(args: list[str]) -> None:
    found = python(MAIN, *args)
    assert found.returncode == (2 if "x" in args else 0), found.stderr
    assert set(found.stderr.split()) & set(HEAVY) == set()


def test_importing_the_library_is_light() -> None:
    found = python("import robustgen; dir(robustgen)")
    assert found.returncode == 0
    assert set(found.stderr.split()) & set(HEAVY) == set()


@pytest.mark.parametrize(
    ("line", "offers"),
    [
        ("robustgen att", {"attack"}),
        ("robustgen attack ", {*ATTACKS, "adaptive", "adaptive-standard", "adaptive-strong"}),
        ("robustgen fit k-", {"k-means"}),
        ("robustgen list d", {"data", "detectors"}),
        ("robustgen train --data fash", {"fashion-mnist"}),
        ("robustgen train --arch ", set(ARCHITECTURES)),
        ("robustgen detect somewhere dig", {"digits"}),
        ("robustgen attack pgd --norm l", {"linf", "l2", "l1", "l0"}),
        ("robustgen attack pgd --device c", {"cpu", "cuda"}),
        ("robustgen attack pgd --loss m", {"margin"}),
        ("robustgen attack pgd --split t", {"test", "train"}),
        ("robustgen train --adversarial p", {"pgd"}),
    ],
)
def test_completion(line: str, offers: set[str]) -> None:
    asked = {"_ROBUSTGEN_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(line.count(" "))}
    found = python(MAIN, **asked)
    assert set(found.stdout.split()) == offers
    assert set(found.stderr.split()) & set(HEAVY) == set()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(shell: str) -> None:
    found = python(MAIN, "--show-completion", shell, _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1")
    assert found.returncode == 0
    assert "_ROBUSTGEN_COMPLETE" in found.stdout
    assert set(found.stderr.split()) & set(HEAVY) == set()


def parameters() -> Iterator[Any]:
    group = typer.main.get_command(app)
    for name in COMMANDS:
        for parameter in group.commands[name].params:  # type: ignore[attr-defined]
            yield pytest.param(name, parameter, id=f"{name} {parameter.name}")


@pytest.mark.parametrize(("command", "parameter"), list(parameters()))
def test_every_option_is_explained(run: Callable[..., Any], command: str, parameter: Any) -> None:
    assert parameter.help
    assert parameter.help[0].isupper() or parameter.help.startswith((".", "pgd", "small-cnn", "auto", "attacks"))
    assert parameter.help.endswith((".", "..."))


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_explained(run: Callable[..., Any], command: str) -> None:
    ran = run(command, "--help")
    assert (ran.code, ran.err) == (0, "")
    assert f"Usage: robustgen {command}" in ran.out
    assert "Example: robustgen" in ran.out
    summary = run("--help")
    assert summary.code == 0
    assert command in summary.out


def test_one_name_for_one_thing() -> None:
    """Options of one name have one type and one short form in all commands."""
    group = typer.main.get_command(app)
    found: dict[str, set[Any]] = {}
    for name in COMMANDS:
        for parameter in group.commands[name].params:  # type: ignore[attr-defined]
            if parameter.opts[0].startswith("--"):
                found.setdefault(parameter.opts[0], set()).add((*parameter.opts, parameter.metavar))
    assert {option: kinds for option, kinds in found.items() if len(kinds) > 1} == {}


def test_losses_named_in_the_help_are_those_that_exist(run: Callable[..., Any]) -> None:
    said = run("attack", "--help").out
    for loss in LOSSES:
        assert loss in said


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("attacks", [*ATTACKS, "adaptive", *(f"art:{name}" for name in ART)]),
        (
            "detectors",
            [
                "auto",
                *DETECTORS,
                *(f"art:{name}" for name in ART_DETECTORS),
                *(f"pyod:{name}" for name in PYOD if installed()),
            ],
        ),
        ("data", DATA),
        ("models", [*ARCHITECTURES, "torchvision:NAME"]),
        ("suites", list(SUITES)),
    ],
)
def test_list(run: Callable[..., Any], kind: str, names: Any) -> None:
    ran = run("list", kind, "--json")
    assert (ran.code, [entry["name"] for entry in ran.json[kind]], list(ran.json)) == (0, list(names), [kind])
    assert all(entry["help"] for entry in ran.json[kind])
    ran = run("list")
    assert ran.code == 0
    for name in names:
        assert name.removeprefix("art:").removeprefix("pyod:") in ran.out


def test_misspelt_words(misused: Callable[..., str], refused: Callable[..., str], run: Callable[..., Any]) -> None:
    assert "Did you mean 'train'" in misused("trian")
    assert "--model" in misused("attack", "pgd", "--modle", "x")
    assert "did you mean 'attacks'" in refused("list", "attack")
    assert "Usage: robustgen" in run().out


def test_python_m_and_version() -> None:
    path = os.pathsep.join(filter(None, sys.path))
    words = [sys.executable, "-m", "robustgen_cli", "list", "--json"]
    found = subprocess.run(words, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, timeout=60)
    assert (found.returncode, found.stderr) == (0, "")
    assert set(json.loads(found.stdout)) == {"attacks", "detectors", "data", "models", "suites"}


def test_waiting_threads_yield_their_core(run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """With a busy neighbour, OpenMP's default of spinning made a small training run many times slower."""
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    assert run("list").code == 0
    assert os.environ["OMP_WAIT_POLICY"] == "passive"
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    assert run("list").code == 0
    assert os.environ["OMP_WAIT_POLICY"] == "active"
