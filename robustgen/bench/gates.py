"""Gates for continuous integration: metrics of a leaderboard that must not fall under, or rise over, a value."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from robustgen.bench.figures import METRICS, Figure
from robustgen.bench.leaderboard import boards_of
from robustgen.bench.ranking import Board
from robustgen.bench.suite import Suite
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


Rows = Mapping[str, Mapping[str, Figure | None]]
"""Figures by metric, by the title of the board and the name of the row."""


def rows_of(boards: Iterable[Board]) -> dict[str, Mapping[str, Figure | None]]:
    """The rows of boards, as gates take them."""
    return {f"{board.title} / {row.name}": row.figures for board in boards for row in board.rows}


def judge(rows: Rows, asked: Sequence[Gate]) -> list[str]:
    """A line for each gate that is not passed, with the rows that fail it; a row without the metric fails.

    Raises `UsageError` for a gate that no row is of.
    """
    missed = []
    for gate in asked:
        failing = [
            f"{name} ({'not measured' if figure is None else f'{figure.value:.4g}'})"
            for name, figure in _meant(rows, gate).items()
            if figure is None or (figure.value < gate.value if gate.under else figure.value > gate.value)
        ]
        if failing:
            missed.append(f"{gate.metric} is {'under' if gate.under else 'over'} {gate.value:g}: {', '.join(failing)}")
    return missed


def check_gates(suite: Suite, asked: Sequence[Gate]) -> None:
    """Raises `UsageError` for a gate that no row of the suite can be of, before anything is run."""
    rows = rows_of(boards_of(suite, [(listed, None) for listed in suite.cells]))
    for gate in asked:
        _meant(rows, gate)


def _meant(rows: Rows, gate: Gate) -> dict[str, Figure | None]:
    found = {
        name: figures[gate.metric] for name, figures in rows.items() if gate.metric in figures and gate.rows in name
    }
    if not found:
        which = f" with {gate.rows!r}" if gate.rows else ""
        there = sorted({metric for name, figures in rows.items() if gate.rows in name for metric in figures})
        known = (
            f", only {', '.join(there)}"
            if there
            else f": rows are {', '.join([*rows][:4]) or 'none'}{', ...' if len(rows) > 4 else ''}"
        )
        raise UsageError(f"no row of the leaderboard{which} has {gate.metric}{known}")
    return found
