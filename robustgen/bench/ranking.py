"""Leaderboards as values: rows of figures under a title, best first; from stored cells, and to JSON and Markdown."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, final

from robustgen.bench.figures import METRICS, SHORT, Figure, written
from robustgen.bench.store import Stored
from robustgen.bench.suite import Listed


@final
@dataclass(frozen=True)
class Row:
    """One competitor: its figures by metric (None: not measured), how many of its cells are done of how many.

    `unverified`: nobody who knows it has attacked it. `detail`: whatever its page shows besides, as plain values.
    """

    name: str
    figures: Mapping[str, Figure | None]
    done: int
    of: int
    unverified: bool = False
    detail: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "metrics": {name: None if found is None else found.to_json() for name, found in self.figures.items()},
            "cells_done": self.done,
            "cells": self.of,
            "unverified": self.unverified,
            **({"detail": dict(self.detail)} if self.detail else {}),
        }


@final
@dataclass(frozen=True)
class Board:
    """A table of rows, best first. `shown`: the metrics that are its columns. `by`: what each row's `detail["by"]`
    tells apart (such as classes), by AUROC. `note` says how to read it. `missing`: competitors of whom no cell is done.
    """

    title: str
    kind: str
    rows: Sequence[Row]
    shown: Sequence[str]
    by: str = ""
    note: str = ""
    detail: Mapping[str, Any] = field(default_factory=dict)
    missing: Sequence[str] = ()

    def measured(self) -> Board:
        """The same without the rows of whom nothing is known yet."""
        missing = [row.name for row in self.rows if not row.done]
        return replace(self, rows=[row for row in self.rows if row.done], missing=missing)

    @property
    def lacks(self) -> str:
        """Who is missing, as a sentence; empty for nobody."""
        return f"Not measured yet: {', '.join(self.missing)}." if self.missing else ""

    @property
    def columns(self) -> list[str]:
        """The head of the table."""
        return ["", *(METRICS[name].words for name in self.shown)]

    def cells(self, interval: bool = True) -> list[list[str]]:
        """The table as text."""
        return [
            [
                row.name + (f" ({row.done} of {row.of} cells)" if row.done < row.of else ""),
                *(written(row.figures.get(name), METRICS[name].form, interval) for name in self.shown),
            ]
            for row in self.rows
        ]

    def brief(self) -> tuple[list[str], list[list[str]]]:
        """Head and rows of the table for a narrow place: the first six metrics, without intervals."""
        shown = self.shown[:6]
        rows = [
            [row.name, *(written(row.figures.get(name), METRICS[name].form, False) for name in shown)]
            for row in self.rows
        ]
        return ["", *(SHORT.get(name, METRICS[name].words) for name in shown)], rows

    def to_json(self) -> dict[str, Any]:
        return {
            "title": self.title,
            "kind": self.kind,
            "note": self.note,
            "rows": [{"rank": rank, **row.to_json()} for rank, row in enumerate(self.rows, start=1)],
            **({"missing": list(self.missing)} if self.missing else {}),
            **({"detail": dict(self.detail)} if self.detail else {}),
        }

    def to_markdown(self) -> str:
        """A title, the table, and what is told by class."""
        lines = [f"## {self.title}", "", *([self.note, ""] if self.note else []), *markdown(self.columns, self.cells())]
        parts = [part for row in self.rows for part in row.detail.get("by", {})]
        names = list(dict.fromkeys(parts))
        if self.by and len(names) > 1:
            rows = [[row.name, *(written(_auroc(row, name), "number", False) for name in names)] for row in self.rows]
            lines += ["", f"AUROC by {self.by}:", "", *markdown(["", *names], rows)]
        lines += ["", self.lacks] if self.missing else []
        return "\n".join(lines) + "\n"


def _auroc(row: Row, part: str) -> Figure | None:
    value = row.detail.get("by", {}).get(part)
    return None if value is None else Figure(value)


def markdown(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A Markdown table's lines."""

    def line(cells: Sequence[str]) -> str:
        return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"

    return [line(columns), f"|{'---|' * len(columns)}", *(line(row) for row in rows)]


Done = tuple[Listed, Stored | None]
"""A cell of the suite, and what is stored of it"""


def grouped(cells: Sequence[Done], name: Callable[[Done], str]) -> dict[str, list[Done]]:
    """The cells under the names that `name` gives them, in their order."""
    found: dict[str, list[Done]] = {}
    for cell in cells:
        found.setdefault(name(cell), []).append(cell)
    return found
