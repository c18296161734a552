"""Thresholds and p-values with a guarantee: split-conformal, from scores of held-out normal inputs.

For exchangeable normal inputs, P(score > threshold) <= fpr and P(p-value <= a) <= a for every a, whatever the detector
(Vovk, Gammerman, Shafer 2005; for anomaly detection: Bates, Candes, Lei, Romano, Sesia 2023). A detector's own training
inputs must never be used here: their scores are too low.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from robustgen.errors import DataError, UsageError
from robustgen.metrics import Array, scores_array


@dataclass(frozen=True)
class Threshold:
    """An input is flagged when its score is above `value`; at most a share `fpr` of normal inputs then is, in
    expectation.
    """

    value: float
    fpr: float
    n_calibration: int


def _allowed(fpr: float, n: int) -> int:
    """floor((n + 1) * fpr), safe against 0.05 * 20 coming out a hair below 1."""
    return math.floor((n + 1) * fpr * (1 + 1e-12))


def calibrate(scores: Any, fpr: float) -> Threshold:
    """The threshold from held-out normal `scores` (n,): their ceil((n + 1)(1 - fpr))-th smallest.

    Raises `UsageError` if `fpr` is not in (0, 1), `DataError` if there are too few scores for such a small rate.
    """
    if not 0 < fpr < 1:
        raise UsageError(f"the false-alarm rate must lie strictly between 0 and 1, but {fpr:g} came")
    array = np.sort(scores_array(scores, "calibration scores"))
    allowed = _allowed(fpr, len(array))
    if allowed < 1:
        raise DataError(
            f"a false-alarm rate of {fpr:g} needs at least {math.ceil(1 / fpr) - 1} calibration inputs, but "
            f"{len(array)} came: give more data or a larger rate"
        )
    return Threshold(float(array[len(array) - allowed]), fpr, len(array))


def p_values(scores: Any, calibration_scores: Any) -> Array:
    """(1 + number of calibration scores >= score) / (1 + n_calibration), per input: small = anomalous.

    `p <= fpr` holds exactly when the score is above the threshold that `calibrate` gives for that `fpr`.
    """
    held_out = np.sort(scores_array(calibration_scores, "calibration scores"))
    at_least = len(held_out) - np.searchsorted(held_out, scores_array(scores), side="left")
    return np.asarray((1 + at_least) / (1 + len(held_out)), dtype=np.float64)
