"""Gates for continuous integration: metrics of a leaderboard that must not fall under, or rise over, a value."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from robustgen.bench.figures import METRICS
from robustgen.bench.leaderboard import Leaderboard
from robustgen.errors import UsageError
from robustgen.registry import suggestion


class Gate(NamedTuple):
    """`rows`: only rows with this in their name, all if empty. `under`: fails below `value`, else above it."""

    rows: str
    metric: str
    value: float
    under: bool


def gates(under: Sequence[str] | None, over: Sequence[str] | None) -> list[Gate]:
    """What --fail-under and --fail-over say, [ROWS:]METRIC=VALUE each. Raises `UsageError`."""
    return [_gate(text, True) for text in under or ()] + [_gate(text, False) for text in over or ()]


def _gate(text: str, under: bool) -> Gate:
    option = "--fail-under" if under else "--fail-over"
    left, equals, right = text.rpartition("=")
    rows, _, metric = left.rpartition(":")
    try:
        value = float(right)
    except ValueError:
        value = float("nan")
    if not equals or value != value:
        raise UsageError(f"{option} takes METRIC=VALUE or ROWS:METRIC=VALUE, such as auroc=0.9, but {text!r} came")
    if metric not in METRICS:
        raise UsageError(suggestion(metric, METRICS, f"metric of {option}"))
    better = METRICS[metric].better
    if (better == "high") != under:
        other = "--fail-over" if under else "--fail-under"
        raise UsageError(f"{metric} is the better the {better}er it is: give it with {other}")
    return Gate(rows, metric, value, under)


def judge(found: Leaderboard, asked: Sequence[Gate]) -> list[str]:
    """A line for each gate that is not passed, with the rows that fail it; a row without the metric fails.

    Raises `UsageError` for a gate that no row is of.
    """
    missed = []
    for gate in asked:
        rows = [
            (f"{board.title} / {row.name}", row.figures[gate.metric])
            for board in found.boards
            for row in board.rows
            if gate.metric in row.figures and gate.rows in f"{board.title} / {row.name}"
        ]
        if not rows:
            raise UsageError(
                f"no row of the leaderboard{f' with {gate.rows!r}' if gate.rows else ''} has {gate.metric}"
            )
        failing = [
            f"{name} ({'not measured' if figure is None else f'{figure.value:.4g}'})"
            for name, figure in rows
            if figure is None or (figure.value < gate.value if gate.under else figure.value > gate.value)
        ]
        if failing:
            missed.append(f"{gate.metric} is {'under' if gate.under else 'over'} {gate.value:g}: {', '.join(failing)}")
    return missed
