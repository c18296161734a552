"""Guards under attack in a suite: figures against their definitions, on a small run of the whole chain."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from robustgen.bench.cell import key
from robustgen.bench.leaderboard import leaderboard
from robustgen.bench.places import identities
from robustgen.bench.runner import plan, run
from robustgen.bench.store import Store, Stored
from robustgen.bench.suite import parse

TEXT = """
name = "small"
[victims.plain]
epochs = 4
[detectors.forest]
detector = "isolation-forest"
[guards.both]
first = ["pca", "k-means"]
[board]
eps = 0.2
[[cells]]
kind = "adversarial"
data = "digits"
victim = "plain"
detector = ["pca", "forest", "both"]
eps = [0.05, 0.2]
steps = 5
n = 60
n_adaptive = 30
"""


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Stored]:
    root, suite = tmp_path_factory.mktemp("bench"), parse(TEXT, "small")
    assert run(plan(suite), root).failed == {}
    hashes, store = identities(["digits"]), Store(root)
    found = {str(listed.axes["detector"]): store.read(key(listed.cell, hashes)) for listed in suite.cells}
    (board,) = leaderboard(suite, store).boards
    assert board.rows[-1].name == "forest"
    assert [row.unverified for row in board.rows] == [False, False, True]
    return {name: stored for name, stored in found.items() if stored is not None}


@pytest.mark.parametrize("name", ["pca", "forest", "both"])
def test_figures_follow_from_the_arrays(cells: dict[str, Stored], name: str) -> None:
    found, arrays = cells[name].metrics, cells[name].arrays()
    threshold, right = found["clean"]["threshold"], ~arrays["wrong"]
    accepted = arrays["score"] <= threshold
    assert found["clean"]["accuracy"]["value"] == pytest.approx(right.mean())
    assert found["clean"]["useful"]["value"] == pytest.approx((right & accepted).mean())
    assert found["clean"]["fit_seconds"] > 0
    for row in found["rows"]:
        word = f"{row['attack']}_{row['eps']:g}"
        wrong, score = arrays[f"{word}_wrong"], arrays[f"{word}_score"]
        own = right[: len(wrong)]
        assert row["n"] == own.sum()
        assert row["fooled"]["value"] == pytest.approx(wrong[own].mean())
        assert row["success"]["value"] == pytest.approx((wrong & (score <= threshold))[own].mean())
    for system in found["systems"]:
        lost = np.zeros(30, bool)
        for row in found["rows"]:
            if math.isclose(row["eps"], system["eps"]):
                word = f"{row['attack']}_{row['eps']:g}"
                lost |= (arrays[f"{word}_wrong"] & (arrays[f"{word}_score"] <= threshold))[:30]
        assert system["success_worst"]["value"] == pytest.approx(lost[right[:30]].mean())
        held = ~lost & ~(arrays["wrong"] & accepted)[:30]
        assert system["robust_accuracy"]["value"] == pytest.approx(held.mean())
        assert system["fc"]["value"] == pytest.approx((held & (right & accepted)[:30]).mean())
        assert system["success_worst"]["value"] >= system["success_oblivious"]["value"]


def test_a_score_without_gradients_is_left_unverified(cells: dict[str, Stored]) -> None:
    found = cells["forest"].metrics
    assert {row["threat"] for row in found["rows"]} == {"Z"}
    assert all(system["success_adaptive"] is None for system in found["systems"])
    assert found["checks"] == []
    assert {row["threat"] for row in cells["both"].metrics["rows"]} == {"Z", "W"}
    (check,) = cells["both"].metrics["checks"]
    short = any(
        system["success_adaptive"]["value"] < system["success_oblivious"]["value"]
        for system in cells["both"].metrics["systems"]
    )
    assert check["passed"] is not short


def test_a_rebuilt_folder_gives_the_same(cells: dict[str, Stored], tmp_path: Path) -> None:
    suite = parse(TEXT, "small")
    jobs = plan(suite, "/ both")
    run(jobs, tmp_path)
    again = Store(tmp_path).read(jobs[-1].key)
    assert again is not None
    for name, values in cells["both"].arrays().items():
        np.testing.assert_array_equal(values, again.arrays()[name])
