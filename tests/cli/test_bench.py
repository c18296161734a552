"""`robustgen bench`: what it runs, lists, compares and refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

SUITE = """
name = "small"
description = "Two detectors of digits."
[[cells]]
kind = "one-class"
data = "digits"
normal = [0, 1]
detector = ["pca", "knn"]
n = 200
"""

ATTACKED = """
[[cells]]
kind = "adversarial"
data = "digits"
victim = "plain"
detector = "pca"
"""


@pytest.fixture
def suite(tmp_path: Path) -> str:
    (tmp_path / "small.toml").write_text(SUITE, encoding="utf-8")
    return str(tmp_path / "small.toml")


def test_a_suite_is_run_ranked_and_not_run_again(run: Callable[..., Any], suite: str, tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    found = run("bench", suite, "--out", out, "--dry-run", "--json").json
    assert found["would_run"] == 4
    assert not (tmp_path / "out").exists()
    ran = run("bench", suite, "--out", out, "--json")
    assert ran.code == 0
    assert ran.json["run"] == {"done_before": 0, "done_now": 4, "taken": 0, "failed": {}}
    (board,) = ran.json["boards"]
    assert {row["name"] for row in board["rows"]} == {"pca", "knn"}
    assert all(row["metrics"]["auroc"]["value"] > 0.9 for row in board["rows"])
    assert json.loads((tmp_path / "out" / "leaderboard.json").read_text())["boards"] == ran.json["boards"]
    assert (tmp_path / "out" / "index.html").is_file()
    assert "| knn |" in (tmp_path / "out" / "leaderboard.md").read_text(encoding="utf-8")
    stored = [json.loads(path.read_text()) for path in (tmp_path / "out" / "cells").glob("*/config.json")]
    assert {config["precision"] for config in stored} == {"float32"}
    again = run("bench", suite, "--out", out)
    assert again.code == 0
    assert "0 done now, 4 were done before" in again.out
    said = run("bench", suite, "--out", out, "--dry-run")
    assert said.code == 0
    assert "0 of 4" in said.out


def test_gates_and_comparison(run: Callable[..., Any], refused: Callable[..., str], suite: str, tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    assert run("bench", suite, "--out", out, "--fail-under", "auroc=0.5").code == 0
    ran = run("bench", suite, "--out", out, "--fail-under", "knn:auroc=1.1")
    assert ran.code == 1
    assert "auroc is under 1.1: one-class: digits / knn" in ran.err
    assert "did you mean 'auroc'" in refused("bench", suite, "--out", out, "--fail-under", "aurco=0.5")
    same = run("bench", "--compare", out, out, "--json")
    assert same.json["differences"] == []
    assert same.json["compared"] == 4
    assert "0 differ" in run("bench", "--compare", out, out).out
    ran = run("bench", "--compare", out, out, "--fail-under", "knn:auroc=1.1", "--json")
    assert ran.code == 1
    assert "auroc is under 1.1: one-class: digits / knn" in ran.err
    assert len(ran.json["missed"]) == 1
    assert run("bench", "--compare", out, out, "--fail-under", "auroc=0.5").code == 0
    late = str(tmp_path / "late")
    assert "has robust_accuracy, only auroc" in refused(
        "bench", suite, "--out", late, "--fail-under", "robust_accuracy=.9"
    )
    assert not Path(late).exists()
    assert "is no leaderboard" in refused("bench", "--compare", out, str(tmp_path))


def test_only_some_of_it(run: Callable[..., Any], refused: Callable[..., str], suite: str, tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    ran = run("bench", suite, "--out", out, "--only", "knn", "--precision", "mixed", "--json").json
    assert ran["run"]["done_now"] == 2
    stored = [json.loads(path.read_text()) for path in (tmp_path / "out" / "cells").glob("*/config.json")]
    assert {config["precision"] for config in stored} == {"mixed"}
    assert ran["cells"] == {"done": 2, "of": 4, "failed": {}}
    assert "matches none of the 4 cells" in refused("bench", suite, "--out", out, "--only", "zzz")


def test_parts_that_were_run_elsewhere_are_taken_over(
    run: Callable[..., Any], refused: Callable[..., str], suite: str, tmp_path: Path
) -> None:
    for name in ("knn", "pca"):
        run("bench", suite, "--out", tmp_path / name, "--only", name)
    listed = run("bench", suite, "--out", tmp_path / "out", "--take", tmp_path / "knn", "--dry-run", "--json").json
    assert listed["would_run"] == 2
    assert {(cell["state"], cell["runs"]) for cell in listed["cells"]} == {("elsewhere", False), ("to do", True)}
    whole = run(
        "bench", suite, "--out", tmp_path / "out", "--take", tmp_path / "knn", "--take", tmp_path / "pca", "--json"
    )
    assert whole.json["run"] == {"done_before": 4, "done_now": 0, "taken": 4, "failed": {}}
    assert whole.json["cells"]["done"] == 4
    again = run("bench", suite, "--out", tmp_path / "knn", "--take", tmp_path / "out")
    assert "0 done now, 4 were done before, 2 of them taken over" in again.out
    assert "holds no results" in refused("bench", suite, "--out", tmp_path / "new", "--take", tmp_path / "nowhere")
    assert not (tmp_path / "new").exists()


def test_a_failed_cell_is_told_and_retried(run: Callable[..., Any], suite: str, tmp_path: Path) -> None:
    Path(suite).write_text(SUITE.replace("[0, 1]", "[0, 99]"), encoding="utf-8")
    out = str(tmp_path / "out")
    ran = run("bench", suite, "--out", out)
    assert ran.code == 1
    assert "has the classes 0 to 9, but 99 came" in ran.err
    assert "2 cells could not be done" in ran.err
    again = run("bench", suite, "--out", out, "--json")
    assert again.code == 1
    assert again.json["run"]["done_before"] == 2
    assert len(again.json["run"]["failed"]) == 2
    assert "What could not be done" in (tmp_path / "out" / "index.html").read_text(encoding="utf-8")


def test_what_is_refused(
    refused: Callable[..., str], suite: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "name a suite" in refused("bench")
    assert "did you mean 'quick'" in refused("bench", "quik")
    assert "did you mean 'mixed'" in refused("bench", suite, "--precision", "mixt")
    assert "take mixed" in refused("bench", suite, "--precision", "bfloat16")
    monkeypatch.delenv("ROBUSTGEN_EXTRA_DATA", raising=False)
    said = refused("bench", "tables", "--out", str(tmp_path / "tables"))
    assert "ROBUSTGEN_EXTRA_DATA is not set" in said
    assert "get ADBench's classical tables" in said
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").touch()
    assert "exists already" in refused("bench", suite, "--out", str(tmp_path / "mine"))


def test_values_that_cannot_be_are_refused_before_anything_runs(refused: Callable[..., str], tmp_path: Path) -> None:
    mine = tmp_path / "mine.toml"
    for name, key, said in (
        ("mine", "bundle = 'bogus'", "unknown bundle of attacks 'bogus'"),
        ("mine", "[board]\neps = 0.3", "eps of board is 0.3"),
        ("a/../../zz", "", "no '.' first"),
    ):
        text = f"name = '{name}'\n[victims.plain]\n{ATTACKED}{key}\n"
        mine.write_text(text, encoding="utf-8")
        assert said in refused("bench", str(mine), "--out", str(tmp_path / "out"))
        assert [path.name for path in tmp_path.iterdir()] == ["mine.toml"]


def test_a_changed_suite_goes_on_only_if_asked(
    run: Callable[..., Any], refused: Callable[..., str], suite: str, tmp_path: Path
) -> None:
    out = str(tmp_path / "out")
    run("bench", suite, "--out", out, "--only", "pca")
    Path(suite).write_text(SUITE.replace('"knn"', '"k-means"'), encoding="utf-8")
    assert "with other cells or settings" in refused("bench", suite, "--out", out)
    ran = run("bench", suite, "--out", out, "--resume", "--json").json
    assert ran["run"] == {"done_before": 2, "done_now": 2, "taken": 0, "failed": {}}
