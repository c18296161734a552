"""Figures of merit in a leaderboard: what they are called, which way is better, and how seeds make one of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import mean, stdev
from typing import Any, Literal, NamedTuple

Form = Literal["percent", "number", "milliseconds", "seconds", "count"]


class Described(NamedTuple):
    """`words`: the head of its column. `better`: which way."""

    words: str
    better: Literal["high", "low"]
    form: Form = "percent"


METRICS = {
    "auroc": Described("AUROC", "high", "number"),
    "tpr_at_5": Described("caught at 5 %", "high"),
    "frechet": Described("Fréchet distance", "low", "number"),
    "mse": Described("MSE", "low", "number"),
    "ssim": Described("SSIM", "high", "number"),
    "bits_per_value": Described("bits a value", "low", "number"),
    "success_worst": Described("success, worst case", "low"),
    "success_adaptive": Described("success, adaptive", "low"),
    "success_oblivious": Described("success, oblivious", "low"),
    "robust_accuracy": Described("robust accuracy (RA_D)", "high"),
    "certified": Described("certified robust accuracy", "high"),
    "fc": Described("right, accepted and robust (FC)", "high"),
    "useful": Described("clean, right and accepted", "high"),
    "accuracy": Described("clean accuracy", "high"),
    "false_alarms": Described("false alarms", "low"),
    "false_rejects_right": Described("right but rejected", "low"),
    "false_rejects_wrong": Described("wrong and rejected", "high"),
    "worst_auroc": Described("AUROC, worst oblivious attack", "high", "number"),
    "worst_tpr_at_5": Described("caught at 5 %, worst oblivious attack", "high"),
    "noise_flagged": Described("harmless noise flagged", "low"),
    "checks_failed": Described("checks failed", "low", "count"),
    "ms_per_input": Described("ms an input", "low", "milliseconds"),
    "fit_seconds": Described("fit, s", "low", "seconds"),
}
"""All metrics that gates and comparisons know."""


SHORT = {
    "success_worst": "worst",
    "success_oblivious": "oblivious",
    "success_adaptive": "adaptive",
    "robust_accuracy": "RA_D",
    "fc": "FC",
    "useful": "useful",
    "noise_flagged": "noise flagged",
    "worst_auroc": "worst AUROC",
}
"""Heads of narrow tables."""


class Figure(NamedTuple):
    """A value and, where there is one, its 95 % interval."""

    value: float
    low: float | None = None
    high: float | None = None

    def to_json(self) -> dict[str, float | None]:
        return dict(self._asdict())


def figure_of(value: Any) -> Figure | None:
    """What JSON holds for an estimate, a number, or nothing."""
    if isinstance(value, Mapping):
        return None if value.get("value") is None else Figure(value["value"], value.get("low"), value.get("high"))
    return None if value is None else Figure(float(value))


def over_seeds(found: Sequence[Figure | None]) -> Figure | None:
    """One figure from those of several seeds: their mean.

    The interval adds two independent errors: that of the test inputs, which the seeds share, so that more seeds do not
    make it smaller, and that of the mean over seeds (Student's t). With one seed it is the figure's own.
    """
    there = [part for part in found if part is not None]
    if not there:
        return None
    value, sides = mean(part.value for part in there), _sides(there)
    if sides is None:
        return Figure(value)
    between = (
        _t(len(there) - 1) * stdev(part.value for part in there) / math.sqrt(len(there)) if len(there) > 1 else 0.0
    )
    down, up = (math.hypot(mean(side), between) for side in zip(*sides, strict=True))
    return Figure(value, max(0.0, value - down), min(1.0, value + up))


def over_parts(found: Sequence[Figure], independent: bool = True) -> Figure | None:
    """The mean over classes, sets or kinds of anomalies. `independent`: each has inputs of its own, so that their
    errors partly cancel; else all are taken to err alike.
    """
    if not found:
        return None
    value, sides = mean(part.value for part in found), _sides(found)
    if sides is None:
        return Figure(value)
    down, up = (math.hypot(*side) / len(found) if independent else mean(side) for side in zip(*sides, strict=True))
    return Figure(value, max(0.0, value - down), min(1.0, value + up))


def _sides(found: Sequence[Figure]) -> list[tuple[float, float]] | None:
    """How far each interval reaches down and up from its value; None if one has none."""
    sides = [
        (one.value - one.low, one.high - one.value) for one in found if one.low is not None and one.high is not None
    ]
    return sides if len(sides) == len(found) else None


def _t(freedom: int) -> float:
    from scipy.stats import t

    return float(t.ppf(0.975, freedom))


def bare(figure: Figure | None) -> str:
    """A share in per cent, for tables whose head says so."""
    return "-" if figure is None else f"{100 * figure.value:.1f}"


def written(figure: Figure | None, form: Form, interval: bool = True) -> str:
    """A figure as text, a dash where there is none."""
    if figure is None:
        return "-"
    if form == "percent":
        ends = (
            "" if figure.low is None or figure.high is None else f" [{100 * figure.low:.1f}, {100 * figure.high:.1f}]"
        )
        return f"{100 * figure.value:.1f} %{ends if interval else ''}"
    if form == "number":
        ends = "" if figure.low is None or figure.high is None else f" [{figure.low:.3f}, {figure.high:.3f}]"
        return f"{figure.value:.3f}{ends if interval else ''}"
    if form == "count":
        return f"{figure.value:g}"
    return f"{figure.value:.3g}" if form == "milliseconds" else f"{figure.value:.1f}"
