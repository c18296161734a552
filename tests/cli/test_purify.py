"""`robustgen attack --purify`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., Any]


@pytest.fixture
def common(run: Run, world: Path) -> tuple[object, ...]:
    """A purifier in the current folder, and an attack on the classifier of the same data."""
    assert run("fit", "pca", "--data", world / "two.npz", "--out", "pca", "--quiet").code == 0
    return ("--model", world / "victim", "--data", world / "two.npz", "--eps", 0.4, "--steps", 3)


def test_both_attackers_are_reported(run: Run, common: tuple[object, ...], tmp_path: Path) -> None:
    ran = run("attack", "pgd", *common, "--purify", "pca", "--out", "run", "--json")
    assert (ran.code, ran.err) == (0, "")
    found, bare = ran.json, run("attack", "pgd", *common, "--json").json
    assert found == json.loads((tmp_path / "run/results.json").read_text())
    assert bare["purifier"] is None
    assert found["purifier"]["detector"] == "pca"
    assert len(found["purifier"]["sha256"]) == 64
    unaware = found["purifier"]["oblivious"]
    assert unaware["purified_clean"]["value"] == found["clean_accuracy"]
    assert unaware["robust"]["value"] == bare["robust_accuracy"]
    assert unaware["purified_robust"]["n"] == found["n"] == 30
    assert (tmp_path / "run/report.html").is_file()
    alone = run("attack", "pgd", *common, "--purify", "pca", "--no-purify-oblivious", "--json").json
    assert alone["purifier"]["oblivious"] is None
    assert alone["robust_accuracy"] == found["robust_accuracy"]


def test_words_for_people(run: Run, common: tuple[object, ...]) -> None:
    ran = run("attack", "fgsm", *common[:-2], "--purify", "pca", "--quiet")
    assert (ran.code, ran.err) == (0, "")
    for words in ("behind pca", "bare classifier: robust accuracy", "purified, attacked without knowing it"):
        assert words in ran.out


def test_what_is_wrong_is_said(
    run: Run, refused: Callable[..., str], common: tuple[object, ...], world: Path, tmp_path: Path
) -> None:
    assert "give --purify too" in refused("attack", "pgd", *common, "--purify-oblivious")
    assert "nothing there" in refused("attack", "pgd", *common, "--purify", "nowhere")
    assert "is a classifier, but a detector is needed" in refused(
        "attack", "pgd", *common, "--purify", world / "victim"
    )
    assert "leave --purify" in refused("attack", "adaptive", "--data", world / "two.npz", "--purify", "pca")
    data = ("--data", world / "two.npz", "--quiet")
    assert run("fit", "isolation-forest", *data, "--out", "forest").code == 0
    assert "cannot rebuild an input" in refused("attack", "pgd", *common, "--purify", "forest")
    assert run("fit", "pca", "--data", "digits", "--out", "other", "--quiet").code == 0
    assert "was fitted on inputs of 'digits'" in refused("attack", "pgd", *common, "--purify", "other")
