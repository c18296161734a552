"""The law of false alarms: beta-binomial for exchangeable scores, and seen not to hold where they are not."""

from __future__ import annotations

import numpy as np
import pytest

from robustgen_benchmarks.calibration import as_split, interval, resampled


@pytest.mark.parametrize("fpr", [0.1, 0.05, 0.01])
def test_exchangeable_scores_keep_their_rate_and_its_interval(fpr: float) -> None:
    found = resampled(np.random.default_rng(0).normal(size=600), fpr, times=1000)
    assert found["mean"] <= fpr + 3 * found["standard_error"]
    assert found["within"] >= 0.95 - 3 * (0.05 * 0.95 / 1000) ** 0.5
    low, high = found["interval"]
    assert low < found["mean"] < high


def test_the_interval_by_hand() -> None:
    """One calibration score, fpr 1/2: the rate is uniform, and so is the number of alarms among 99."""
    assert interval(1, 99, 0.5, level=0.49) == (25, 74)


def test_a_detector_calibrated_on_easier_inputs_leaves_the_interval() -> None:
    rng = np.random.default_rng(0)
    assert as_split(rng.normal(size=400), rng.normal(size=400), 0.05)["within"]
    assert not as_split(rng.normal(size=400), rng.normal(0.7, 1, 400), 0.05)["within"]
