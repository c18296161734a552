"""From stored cells to a leaderboard on disk: index.html, leaderboard.md and leaderboard.json."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, final

from robustgen.artifacts import to_json
from robustgen.bench import adversarial, averages
from robustgen.bench.ranking import Board, Done
from robustgen.bench.store import Store
from robustgen.bench.suite import Suite
from robustgen.bench.work import Job
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
        """All boards as tables."""
        head = [f"# {self.suite.name}", "", self.suite.description, "", f"{self.done} of {self.of} cells are done.", ""]
        return "\n".join(head) + "\n" + "\n".join(board.to_markdown() for board in self.boards)


def leaderboard(suite: Suite, jobs: Sequence[Job], store: Store) -> Leaderboard:
    """The leaderboard of all cells that are done; `jobs`: all of the suite (see `plan`)."""
    keys = {job.label: job.key for job in jobs if job.asked}
    cells: list[Done] = []
    failed: dict[str, str] = {}
    for listed in suite.cells:
        try:
            stored = store.read(keys[listed.label])
        except ArtifactError:
            stored = None
        cells.append((listed, stored))
    seconds = 0.0
    for job in jobs:
        reason = store.failure(job.key)
        if reason is not None:
            failed[job.label] = reason
        try:
            stored = store.read(job.key)
        except ArtifactError:
            continue
        seconds += 0.0 if stored is None else stored.seconds
    boards: list[Board] = []
    for kind in dict.fromkeys(listed.cell.kind for listed in suite.cells):
        own = [cell for cell in cells if cell[0].cell.kind == kind]
        if kind == "adversarial":
            boards += adversarial.boards(own, suite.board)
        elif kind == "vae-vs-gan":
            boards += averages.generative_boards(kind, own)
        elif kind in ("one-class", "out-of-distribution", "table"):
            boards += averages.boards(kind, own)
    done = sum(stored is not None for _, stored in cells)
    return Leaderboard(suite, boards, done, len(cells), failed, seconds)


def write(found: Leaderboard, root: Path, command: str) -> None:
    """Write the three files into `root`, in the place of earlier ones."""
    from robustgen.bench.page import page
    from robustgen.report.page import render

    store = Store(root)
    store.write_file(JSON, to_json(found.to_json() | {"command": command}) + "\n")
    store.write_file(MARKDOWN, found.to_markdown())
    store.write_file(PAGE, render(page(found, command)))
