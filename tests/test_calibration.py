from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robustgen.calibration import calibrate, p_values
from robustgen.errors import DataError, UsageError

FINITE = st.floats(-1e6, 1e6)


@given(
    held_out=st.lists(FINITE, min_size=30, max_size=80),
    scores=st.lists(FINITE, min_size=1, max_size=20),
    fpr=st.sampled_from([0.04, 0.05, 0.1, 0.25, 0.5, 0.9]),
)
def test_flagged_means_a_p_value_within_the_rate(held_out: list[float], scores: list[float], fpr: float) -> None:
    """The threshold and the p-values say the same, ties included."""
    threshold = calibrate(held_out, fpr)
    assert ((np.array(scores) > threshold.value) == (p_values(scores, held_out) <= fpr * (1 + 1e-12))).all()


@pytest.mark.parametrize("n", [19, 20, 99, 250])
def test_false_alarms_stay_below_the_rate_in_expectation(n: int) -> None:
    """Split-conformal guarantee: over draws of calibration and test inputs, P(flagged) = floor((n + 1) fpr) / (n +
    1).
    """
    rng = np.random.default_rng(0)
    flagged = [rng.normal() > calibrate(rng.normal(size=n), 0.05).value for _ in range(20_000)]
    expected = np.floor((n + 1) * 0.05 + 1e-9) / (n + 1)
    assert expected <= 0.05 + 1e-12
    assert np.mean(flagged) == pytest.approx(expected, abs=4 * np.sqrt(0.05 / 20_000))


def test_p_values_of_normal_inputs_are_uniform_or_larger() -> None:
    rng = np.random.default_rng(0)
    p = np.concatenate([p_values(rng.normal(size=5), rng.normal(size=39)) for _ in range(4000)])
    for level in (0.025, 0.1, 0.5, 0.9):
        assert np.mean(p <= level) <= level + 4 * np.sqrt(level / len(p))


def test_known_p_values() -> None:
    assert p_values([10.0, 2.0, -1.0], [1.0, 2.0, 3.0]).tolist() == [0.25, 0.75, 1.0]


def test_a_rate_too_small_for_the_scores_is_refused() -> None:
    assert calibrate(np.arange(19.0), 0.05).value == 18.0
    with pytest.raises(DataError, match="at least 19 calibration inputs, but 18"):
        calibrate(np.arange(18.0), 0.05)
    for fpr in (0.0, 1.0, -0.1, float("nan")):
        with pytest.raises(UsageError, match="between 0 and 1"):
            calibrate(np.arange(100.0), fpr)
    with pytest.raises(DataError, match="NaN"):
        calibrate([0.0, float("nan")] * 50, 0.05)
