from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from robustgen_benchmarks.targets import Target, table, targets

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def board() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((BENCHMARKS / "results/adversarial_standard.json").read_text(encoding="utf-8"))
    return found


@pytest.mark.parametrize(
    ("found", "least", "most", "met"),
    [(0.95, 0.95, None, True), (0.9499, 0.95, None, False), (0.3, None, 0.3, True), (0.3001, None, 0.3, False)],
)
def test_a_target_is_met_unrounded(found: float, least: float | None, most: float | None, met: bool) -> None:
    assert Target("it", found, least, most).met is met


def test_the_table_told_is_that_of_the_results(board: dict[str, Any]) -> None:
    told = (BENCHMARKS / "README.md").read_text(encoding="utf-8")
    assert "\n".join(table(board)) in told


def test_every_detector_that_nobody_trained_against_attackers_has_its_target(board: dict[str, Any]) -> None:
    names = {target.what.removeprefix("bundle, success on ") for target in targets(board) if "bundle" in target.what}
    every = {row["name"] for row in board["boards"][0]["rows"]}
    assert names == every - {"gat", "certified-gat", "guard"}


def test_none_is_left_out_of_the_table(board: dict[str, Any]) -> None:
    missed = [target for target in targets(board) if not target.met]
    lines = table(board)
    assert sum("**no**" in line for line in lines) == len(missed)
    met = sum(target.met for target in targets(board) if target.what.startswith("bundle"))
    assert any(f"each of {met} others" in line for line in lines)
