"""The page of a suite: its leaderboards, what stands behind each row, and what could not be done."""

from __future__ import annotations

from collections.abc import Sequence

from robustgen.bench.adversarial_page import adversarial_numbers, adversarial_sections
from robustgen.bench.figures import METRICS, Figure, written
from robustgen.bench.leaderboard import Leaderboard
from robustgen.bench.ranking import Board
from robustgen.report.page import Block, Notice, Number, Numbers, Page, Paragraph, Picture, Section, Table
from robustgen.report.rankings import interval_dots
from robustgen.runtime import versions

_FAILURES = 30  # told in full


def page(found: Leaderboard, command: str) -> Page:
    """The leaderboard as a page; every number of it stands in leaderboard.json too."""
    adversarial = [board for board in found.boards if board.kind == "adversarial"]
    sections = [section for board in found.boards if board.kind != "adversarial" for section in _sections(board)]
    installed = versions()
    return Page(
        title=f"Benchmark: {found.suite.name}",
        lead=_lead(found),
        sections=[*adversarial_sections(adversarial), *sections, *_failures(found)],
        facts={
            "cells": f"{found.done} of {found.of}",
            "time of all cells": f"{found.seconds:.0f} s",
            **{name: version for name, version in installed.items() if name != "robustgen"},
        },
        command=command,
        version=installed.get("robustgen", ""),
    )


def _lead(found: Leaderboard) -> list[Block]:
    blocks: list[Block] = [Paragraph(found.suite.description)] if found.suite.description else []
    if found.done < found.of:
        missing = f"{found.of - found.done} of {found.of} cells are not done"
        failed = f", {len(found.failed)} failed (see the end)" if found.failed else ""
        blocks.append(Notice("warning", f"{missing}{failed}: rows say how many of theirs are."))
    numbers = []
    for board in found.boards:
        numbers += adversarial_numbers(board) if board.kind == "adversarial" else _numbers(board)
    return [*blocks, Numbers(numbers[:6])] if numbers else blocks


def _numbers(board: Board) -> list[Number]:
    if not board.rows or board.rows[0].figures.get("auroc") is None:
        return []
    first = board.rows[0]
    return [Number(written(first.figures["auroc"], "number", False), f"best AUROC, {board.title}", first.name)]


def _sections(board: Board) -> list[Section]:
    """The ranking, its picture, and AUROC by class."""
    blocks: list[Block] = [Paragraph(board.note)] if board.note else []
    rows = [[f"{rank}. {cells[0]}", *cells[1:]] for rank, cells in enumerate(board.cells(), start=1)]
    blocks.append(Table(board.columns, rows))
    if board.missing:
        blocks.append(Paragraph(board.lacks))
    there = [(row.name, figure) for row in board.rows if (figure := row.figures.get("auroc")) is not None]
    if len(there) > 1:
        blocks.append(_dots(there, board.title))
    parts = list(dict.fromkeys(part for row in board.rows for part in row.detail.get("by", {})))
    if len(parts) > 1:
        cells = [[row.name, *(_cell(row.detail["by"].get(part)) for part in parts)] for row in board.rows]
        blocks.append(Table(["", *parts], cells, f"AUROC by {board.by}", "Means over seeds."))
    return [Section(board.title, blocks)]


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _dots(there: Sequence[tuple[str, Figure]], title: str) -> Picture:
    figures = [figure for _, figure in there]
    bounds = None
    if all(figure.low is not None and figure.high is not None for figure in figures):
        bounds = ([figure.low or 0.0 for figure in figures], [figure.high or 0.0 for figure in figures])
    drawn = interval_dots(
        [name for name, _ in there], [figure.value for figure in figures], bounds, METRICS["auroc"].words
    )
    return Picture(drawn, alt=f"{title}: the mean AUROC of each detector with its interval, best first.")


def _failures(found: Leaderboard) -> list[Section]:
    if not found.failed:
        return []
    rows = [[label, error] for label, error in list(found.failed.items())[:_FAILURES]]
    more = len(found.failed) - len(rows)
    note = f"{more} more in leaderboard.json." if more else ""
    return [Section("What could not be done", [Table(["cell", "why"], rows, note=note)])]
