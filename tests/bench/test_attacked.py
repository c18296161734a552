"""Guards under attack in a suite: figures against their definitions, on a small run of the whole chain."""

from __future__ import annotations

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
    assert not any(row.unverified for row in board.rows)  # the forest was attacked by queries
    return {name: stored for name, stored in found.items() if stored is not None}


@pytest.mark.parametrize("name", ["pca", "forest", "both"])
def test_figures_follow_from_the_arrays(cells: dict[str, Stored], name: str) -> None:
    found, arrays = cells[name].metrics, cells[name].arrays()
    threshold, right = found["clean"]["threshold"], arrays["predicted"] == arrays["label"]
    accepted = arrays["score"] <= threshold
    assert found["clean"]["accuracy"]["value"] == pytest.approx(right.mean())
    assert found["clean"]["useful"]["value"] == pytest.approx((right & accepted).mean())
    assert found["clean"]["fit_seconds"] > 0
    passed = {}
    for row in found["rows"]:
        word = f"{row['attack']}_{row['eps']:g}"
        predicted, score = arrays[f"{word}_predicted"], arrays[f"{word}_score"]
        wrong, own = predicted != arrays["label"][: len(predicted)], right[: len(predicted)]
        passed[row["attack"], row["eps"]] = (wrong & (score <= threshold))[:30]
        assert row["n"] == own.sum()
        assert row["fooled"]["value"] == pytest.approx(wrong[own].mean())
        assert row["success"]["value"] == pytest.approx((wrong & (score <= threshold))[own].mean())
    for system in found["systems"]:  # what succeeds in a smaller ball succeeds in this one
        lost = np.any([mask for (_, eps), mask in passed.items() if eps <= system["eps"]], axis=0)
        assert system["success_worst"]["value"] == pytest.approx(lost[right[:30]].mean())
        held = ~lost & ~(~right & accepted)[:30]
        assert system["robust_accuracy"]["value"] == pytest.approx(held.mean())


def test_a_score_without_gradients_is_attacked_by_queries(cells: dict[str, Stored]) -> None:
    assert {row["threat"] for row in cells["forest"].metrics["rows"]} == {"Z", "Q"}
    assert {row["threat"] for row in cells["both"].metrics["rows"]} == {"Z", "W"}
    for stored in cells.values():
        (check,) = stored.metrics["checks"]
        short = any(
            system["success_adaptive"]["value"] < system["success_oblivious"]["value"]
            for system in stored.metrics["systems"]
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
