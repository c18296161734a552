"""What is proven of guards, beside what attacks have found: a section of the page about guards under attack."""

from __future__ import annotations

import math
from collections.abc import Mapping

from robustgen.bench.figures import Figure, figure_of, written
from robustgen.bench.ranking import Board, Row
from robustgen.report.page import Block, Table

_NOTE = (
    "Certified: inputs for which interval bounds prove that no change of this size, by any attack, gets a wrong label "
    "accepted. Not refuted (RA_D): those for which no attack that was tried did. What is true lies between the two. "
    "Bounds of networks that were not trained for them are loose: 0 says that nothing is proven, not that anything is "
    "broken."
)


def proven(board: Board) -> list[Block]:
    """Certified robust accuracy with detector of every row for which it was looked for."""
    rows = [_told(row, board) for row in board.rows if row.detail.get("certified")]
    if not rows:
        return []
    heads = ["", "certified", "and useful", "by the detector alone", "not refuted (RA_D)", "no figure because"]
    about = board.detail
    return [Table(heads, rows, f"Certified robust accuracy, {about['norm']} eps {about['eps']:g}", _NOTE)]


def _told(row: Row, board: Board) -> list[str]:
    found: Mapping[str, object] = row.detail["certified"]
    names = ("certified_robust_accuracy", "certified_useful", "by_detector")
    figures: list[Figure | None] = [figure_of(found.get(name)) for name in names]
    at: Mapping[str, object] = next((s for s in row.detail.get("systems", []) if _same(s, board)), {})
    shown = [written(figure, "percent") for figure in (*figures, figure_of(at.get("robust_accuracy")))]
    why = found.get("why") if figures[0] is None else None
    return [row.name, *shown, str(why) if why else ""]


def _same(system: Mapping[str, object], board: Board) -> bool:
    size = system["eps"]
    assert isinstance(size, float | int)
    return system["norm"] == board.detail["norm"] and math.isclose(size, board.detail["eps"])
