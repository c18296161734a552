"""A cell of a guard under attack, run for once: what it stores."""

from __future__ import annotations

from pathlib import Path

import pytest

from robustgen.bench.leaderboard import leaderboard
from robustgen.bench.runner import plan, run
from robustgen.bench.store import Store
from robustgen.bench.suite import parse

pytestmark = pytest.mark.usefixtures("brief")

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


def test_what_the_classifier_holds_alone_is_left_out_beside_one_trained_against_attacks(tmp_path: Path) -> None:
    """The same inputs are lost as without: nothing passes with its right label."""
    robust = TEXT.replace("epochs = 2", 'epochs = 2\nadversarial = "fast-fgsm"\neps = 0.05').replace(
        "n_adaptive = 4", "n_adaptive = 20\nscreen = {screen}"
    )
    found = {}
    for screen in ("true", "false"):
        jobs = plan(parse(robust.replace("{screen}", screen), "here"))
        assert any(job.cell.kind == "auto-attack" for job in jobs) == (screen == "true")
        assert run(jobs, tmp_path).failed == {}
        (job,) = [job for job in jobs if job.asked]
        stored = Store(tmp_path).read(job.key)
        assert stored is not None
        found[screen] = stored
    rows = {
        name: {row["attack"]: row for row in one.metrics["rows"] if row["threat"] in "WQ"}
        for name, one in found.items()
    }
    for attack, row in rows["true"].items():
        assert 0 < row["held"] < row["n"]
        assert "held" not in rows["false"][attack]
    for name in ("adaptive-standard", "adaptive-standard, 8 bit"):
        assert rows["true"][name]["success"]["value"] >= rows["false"][name]["success"]["value"] > 0
    default = plan(parse(robust.replace("screen = {screen}", ""), "here"))
    assert any(job.cell.kind == "auto-attack" for job in default)
    assert not any(job.cell.kind == "auto-attack" for job in plan(parse(TEXT, "here")))
