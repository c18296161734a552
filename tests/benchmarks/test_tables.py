"""The benchmark of tables: its protocols, and that knn and lof reproduce a published table."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from robustgen_benchmarks.dte_published import KNN, LOF, PUBLISHED
from robustgen_benchmarks.tables import PROTOCOLS, against_published, dte, measure, ours, read, table

FOLDER = Path(os.environ.get("ROBUSTGEN_EXTRA_DATA", "nowhere")) / "adbench_classical"
THERE = sorted(name for name in PUBLISHED if list(FOLDER.glob(f"*_{name}.npz")) and name != "shuttle")  # a minute


@pytest.mark.skipif(not THERE, reason="ROBUSTGEN_EXTRA_DATA names no folder with ADBench's sets")
@pytest.mark.slow
@pytest.mark.parametrize("name", THERE)
def test_knn_and_lof_reproduce_the_published_table(name: str) -> None:
    cell = dte(*read(FOLDER, name), 0)
    for word, published in zip((KNN, LOF), PUBLISHED[name], strict=True):
        assert measure(ours(word), cell, 0)["auroc"] == pytest.approx(published / 100, abs=0.001)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_no_test_row_is_fitted_and_no_anomaly_where_none_belongs(protocol: str) -> None:
    rng = np.random.default_rng(0)
    x = rng.random((2000, 3))
    y = (np.arange(2000) % 10 == 0).astype(np.int64)
    x[:, 0] += 100 * y
    cell = PROTOCOLS[protocol](x, y, 0)
    assert len(cell.train) + len(cell.test) == 2000
    assert not set(map(tuple, cell.train.round(9))) & set(map(tuple, cell.test.round(9)))
    odd = cell.train[:, 0] > cell.train[:, 0].mean() + 0.5 * np.ptp(cell.train[:, 0])
    if protocol == "unsupervised":
        assert odd.sum() == 140
        assert cell.odd.sum() == 60
    else:
        assert cell.odd.sum() == 200
        assert np.ptp(cell.train[:, 0]) < 10  # no anomaly, which would lie a hundred units off


def test_dte_takes_the_first_half_and_draws_small_sets() -> None:
    x, y = np.arange(2000.0).reshape(1000, 2), np.repeat([0, 1], [900, 100])
    cell = dte(x, y, 0)
    assert len(cell.train) == 450
    assert cell.train[-1, 0] < cell.test[0, 0]
    assert len(dte(x[:100], np.repeat([0, 1], [90, 10]), 0).train) > 400


def test_crashes_and_infinite_scores_are_counted() -> None:
    x, y = np.random.default_rng(0).random((1200, 3)), np.repeat([0, 1], [1000, 200])
    cell = PROTOCOLS["one-class"](x, y, 0)

    def broken(train: object, test: object, seed: int) -> np.ndarray:
        raise ValueError("no clusters")

    results = [
        {"detector": name, "set": "a", "protocol": "one-class", "seed": seed, **measure(run, cell, seed)}
        for seed, (name, run) in enumerate(
            [
                ("fine", lambda train, test, seed: test[:, 0]),
                ("broken", broken),
                ("broken", lambda train, test, seed: test[:, 0]),
                ("infinite", lambda train, test, seed: np.full(len(test), np.inf, np.float32)),
            ]
        )
    ]
    assert [result.get("crash") for result in results] == [None, "ValueError: no clusters", None, None]
    assert results[3]["auroc"] == 0.5
    lines = table(results, "one-class").splitlines()
    assert any("| broken |" in line and "| 1 / 0 of 2 |" in line for line in lines)
    assert any("| infinite |" in line and "| 0 / 1 of 1 |" in line for line in lines)


def test_ours_stand_beside_the_published() -> None:
    results = [{"detector": w, "set": "cardio", "protocol": "dte", "auroc": 0.92} for w in (KNN, LOF)]
    assert "| cardio | 92.00 | 92.00 | 92.00 | 92.21 |" in against_published(results)
