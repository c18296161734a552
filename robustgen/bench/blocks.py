"""Blocks of a page as Markdown, for whoever reads a leaderboard as text."""

from __future__ import annotations

from collections.abc import Sequence

from robustgen.bench.ranking import markdown
from robustgen.report.page import Block, Marks, Notice, Paragraph, Table


def as_markdown(blocks: Sequence[Block]) -> list[str]:
    """Their lines, each block with an empty one before it. Pictures are left out."""
    lines: list[str] = []
    for block in blocks:
        if isinstance(block, Table):
            lines += ["", f"**{block.caption}**"] if block.caption else []
            lines += ["", *markdown(block.columns, block.rows)]
            lines += ["", block.note] if block.note else []
        elif isinstance(block, Paragraph | Notice):
            lines += ["", block.text]
        elif isinstance(block, Marks):
            lines += ["", *(f"- {one.title} {one.text}{f': {one.note}' if one.note else ''}" for one in block.items)]
    return lines
