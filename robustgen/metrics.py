"""Figures of merit on raw scores, each with its interval. Scores: higher = more anomalous. Nothing here transforms a
score.

All functions take one-dimensional arrays (NumPy, or tensors on the CPU) and raise `DataError` on empty or non-finite
ones.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from robustgen.errors import DataError

Array = npt.NDArray[np.float64]


class Estimate(NamedTuple):
    """A value with its 95 % confidence interval and the number of inputs it rests on."""

    value: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def scores_array(scores: Any, what: str = "scores") -> Array:
    """As a one-dimensional float64 array. Raises `DataError` if empty, not one-dimensional, or not finite."""
    array = np.asarray(scores, dtype=np.float64)
    if array.ndim != 1 or not len(array):
        raise DataError(f"{what} must be one number per input, at least one; an array of shape {array.shape} came")
    if not np.isfinite(array).all():
        raise DataError(
            f"{what} hold {int((~np.isfinite(array)).sum())} NaN or infinite values of {len(array)}: look for them in "
            "the inputs"
        )
    return array


def proportion(successes: int, n: int) -> Estimate:
    """`successes / n` with the Wilson score interval (Wilson 1927): honest near 0 and 1 and for small n."""
    from scipy.stats import binomtest

    if n < 1:
        raise DataError("a share needs at least one input, and none came")
    interval = binomtest(int(successes), int(n)).proportion_ci(method="wilson")
    return Estimate(successes / n, float(interval.low), float(interval.high), int(n))


def auroc(normal: Any, anomalous: Any) -> Estimate:
    """P(anomalous score > normal score), ties counting one half, with a score-type interval.

    The interval inverts the variance of Hanley and McNeil (1982) as Newcombe (2006, method 5) does, so that it stays
    inside [0, 1] and has width even at an AUROC of exactly 1. Raises `DataError` as `scores_array` does.
    """
    from scipy.optimize import brentq
    from scipy.stats import norm, rankdata

    a, b = scores_array(normal, "normal scores"), scores_array(anomalous, "anomalous scores")
    m, n = len(a), len(b)
    ranks = rankdata(np.concatenate([a, b]))
    value = float((ranks[m:].sum() - n * (n + 1) / 2) / (m * n))
    z = float(norm.ppf(0.975))
    half = (m + n) / 2 - 1

    def excess(theta: float) -> float:
        variance = theta * (1 - theta) / (m * n) * (1 + half * ((1 - theta) / (2 - theta) + theta / (1 + theta)))
        return float((value - theta) ** 2 - z**2 * variance)

    tiny = 1e-12
    low = 0.0 if value <= tiny else brentq(excess, 0.0, value - tiny) if excess(value - tiny) < 0 else value
    high = 1.0 if value >= 1 - tiny else brentq(excess, value + tiny, 1.0) if excess(value + tiny) < 0 else value
    return Estimate(value, float(low), float(high), m + n)


def roc_points(normal: Any, anomalous: Any) -> tuple[Array, Array]:
    """(false-alarm rates, detection rates): the corners of the ROC curve, from (0, 0) to (1, 1)."""
    from sklearn.metrics import roc_curve

    a, b = scores_array(normal, "normal scores"), scores_array(anomalous, "anomalous scores")
    fpr, tpr, _ = roc_curve(np.r_[np.zeros(len(a)), np.ones(len(b))], np.r_[a, b])
    return np.asarray(fpr), np.asarray(tpr)


def rate_above(scores: Any, threshold: float) -> Estimate:
    """The share of scores strictly above `threshold`: on normal inputs the false-alarm rate, on anomalous ones the
    detection rate.
    """
    array = scores_array(scores)
    return proportion(int((array > threshold).sum()), len(array))


def tpr_at_fpr(normal: Any, anomalous: Any, fpr: float) -> Estimate:
    """The detection rate at the smallest threshold that flags at most `fpr` of these very normal scores.

    Optimistic by construction when `normal` are test scores; use `calibration.calibrate` for a threshold to deploy.
    """
    a = np.sort(scores_array(normal, "normal scores"))
    if not 0 <= fpr < 1:
        raise DataError(f"a false-alarm rate lies in [0, 1), but {fpr:g} came")
    allowed = int(np.floor(fpr * len(a) + 1e-9))
    return rate_above(anomalous, float(a[len(a) - 1 - allowed]))
