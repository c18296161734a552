"""From stored cells to a leaderboard on disk: index.html, leaderboard.md and leaderboard.json."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, final

from robustgen.artifacts import to_json
from robustgen.bench import adversarial, averages
from robustgen.bench.cell import deep, key
from robustgen.bench.places import identities
from robustgen.bench.ranking import Board, Done
from robustgen.bench.store import Store, Stored
from robustgen.bench.suite import Suite
from robustgen.errors import ArtifactError
from robustgen.runtime import versions

PAGE, MARKDOWN, JSON = "index.html", "leaderboard.md", "leaderboard.json"


@final
@dataclass(frozen=True)
class Leaderboard:
    """The boards of a suite, how many of its cells are done, and why others failed, by label."""

    suite: Suite
    boards: Sequence[Board]
    done: int
    of: int
    failed: dict[str, str]
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Plain values; the page and the Markdown hold nothing that is not here."""
        return {
            "suite": self.suite.name,
            "description": self.suite.description,
            "boards": [board.to_json() for board in self.boards],
            "cells": {"done": self.done, "of": self.of, "failed": self.failed},
            "seconds": self.seconds,
            "date": datetime.now(UTC).date().isoformat(),
            "versions": versions(),
        }

    def to_markdown(self) -> str:
        """All boards as tables, and what stands behind those of guards under attack."""
        from robustgen.bench.adversarial_page import adversarial_text

        head = [f"# {self.suite.name}", "", self.suite.description, "", f"{self.done} of {self.of} cells are done.", ""]
        texts = [
            board.to_markdown()
            + "".join(f"{line}\n" for line in (adversarial_text(board) if board.kind == "adversarial" else []))
            for board in self.boards
        ]
        return "\n".join(head) + "\n" + "\n".join(texts)


def leaderboard(suite: Suite, store: Store) -> Leaderboard:
    """The leaderboard of all cells that are done. Cells of data that is not here are taken for not done."""
    everyone = [part for listed in suite.cells for part in deep(listed.cell)]
    hashes = identities([name for cell in everyone for name in cell.sources], lenient=True)
    cells: list[Done] = []
    failed: dict[str, str] = {}
    took: dict[str, float] = {}
    for listed in suite.cells:
        known = all(name in hashes for part in deep(listed.cell) for name in part.sources)
        stored = None
        for part in deep(listed.cell) if known else ():
            own = key(part, hashes)
            found = _read(store, own)
            stored = found if part is listed.cell else stored
            took[own] = 0.0 if found is None else found.seconds
            reason = None if found is not None else store.failure(own)
            if reason is not None:
                failed[listed.label if part is listed.cell else part.title] = reason
        cells.append((listed, stored))
    boards = boards_of(suite, cells)
    measured = [there for board in boards if (there := board.measured()).rows]
    boards = measured or boards
    done = sum(stored is not None for _, stored in cells)
    return Leaderboard(suite, boards, done, len(cells), failed, sum(took.values()))


def boards_of(suite: Suite, cells: Sequence[Done]) -> list[Board]:
    """The boards of cells, best rows first, those of whom nothing is known among them."""
    boards: list[Board] = []
    for kind in dict.fromkeys(listed.cell.kind for listed in suite.cells):
        cells_of_kind = [cell for cell in cells if cell[0].cell.kind == kind]
        if kind == "adversarial":
            boards += adversarial.boards(cells_of_kind, suite.board)
        elif kind == "vae-vs-gan":
            boards += averages.generative_boards(kind, cells_of_kind)
        elif kind in ("one-class", "out-of-distribution", "table"):
            boards += averages.boards(kind, cells_of_kind)
    return boards


def _read(store: Store, own: str) -> Stored | None:
    try:
        return store.read(own)
    except ArtifactError:  # it will be run again
        return None


def write(found: Leaderboard, root: Path, command: str) -> None:
    """Write the three files into `root`, in the place of earlier ones."""
    from robustgen.bench.page import page
    from robustgen.report.page import render

    store = Store(root)
    store.write_file(JSON, to_json(found.to_json() | {"command": command}) + "\n")
    store.write_file(MARKDOWN, found.to_markdown())
    store.write_file(PAGE, render(page(found, command)))
