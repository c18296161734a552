"""A cell of a guard under attack, run for once: what it stores."""

from __future__ import annotations

from pathlib import Path

from robustgen.bench.leaderboard import leaderboard
from robustgen.bench.runner import plan, run
from robustgen.bench.store import Store
from robustgen.bench.suite import parse

TEXT = """
name = "tiny"
[victims.plain]
epochs = 2
[[cells]]
kind = "adversarial"
data = "digits"
victim = "plain"
detector = "pca"
eps = [0.05]
headline = 0.15
steps = 2
queries = 5
n = 20
n_adaptive = 4
"""


def test_a_cell_says_what_it_is_about_and_is_ranked_at_its_headline(tmp_path: Path) -> None:
    suite = parse(TEXT, "here")
    jobs = plan(suite)
    assert run(jobs, tmp_path).failed == {}
    (cell,) = [job for job in jobs if job.asked]
    stored = Store(tmp_path).read(cell.key)
    assert stored is not None
    assert stored.metrics["sentence"].startswith("pca on digits, beside a classifier small-cnn, seed 0: ")
    (board,) = leaderboard(suite, Store(tmp_path)).boards
    (row,) = board.rows
    assert not row.unverified
    assert row.figures["success_adaptive"] is not None
    assert row.detail["sentence"].startswith("pca on digits, beside a classifier trained plain: ")
