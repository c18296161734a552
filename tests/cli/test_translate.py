"""`robustgen translate`, and the detectors that it is for on the command line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

Run = Callable[..., Any]
SHORT = ("--param", "steps=3", "--param", "width=4", "--quiet")


def test_a_purifier_is_fitted_used_and_measured(run: Run, refused: Callable[..., str], world: Path) -> None:
    two, victim = world / "two.npz", world / "victim"
    fit = ("fit", "cycle-gan", "--data", two)
    ran = run(*fit, "--other", "attack:fgsm:2/5", "--model", victim, "--out", "det", "--json", *SHORT)
    assert ran.code == 0, ran
    assert (ran.json["detector"], ran.json["model"] is not None) == ("cycle-gan", True)
    assert run("detect", "det", two, "--quiet").code in (0, 3)
    ran = run("translate", "det", "--data", two, "--model", victim, "--out", "x.npz", "--json")
    assert (ran.code, ran.err) == (0, "")
    assert (ran.json["to"], ran.json["n"]) == ("normal", 200)
    assert ran.json["accuracy_before"] == 1.0
    with np.load("x.npz") as found, np.load(two) as given:
        assert found["x"].shape == (200, 1, 6, 6)
        np.testing.assert_array_equal(found["y"], given["y"])
    ran = run(
        "translate", "det", "--data", "x.npz", "--to", "other", "--limit", 30, "--out", "x.png", "--model", victim
    )
    assert "accuracy" in ran.out
    with Image.open("x.png") as picture:
        assert picture.format == "PNG"
    assert "no labels" in refused("translate", "det", "--data", world / "bare.npy", "--model", victim, "--out", "y.npz")
    assert "normal or other" in refused("translate", "det", "--data", two, "--to", "left", "--out", "y.npz")


def test_other_data_can_be_the_second_domain(run: Run, refused: Callable[..., str], world: Path) -> None:
    fit = ("fit", "cycle-gan", "--data", world / "photos", "--out", "det", *SHORT)
    assert run(*fit, "--other", world / "photos").code == 0
    assert run("translate", "det", "--data", world / "photos", "--out", "x.png", "--quiet").code == 0
    ran = run("translate", "det", "--data", world / "photos", "--out", "x.npz", "--limit", 20, "--quiet")
    assert "of photos to normal by cycle-gan" in ran.out


def test_the_second_domain_is_asked_for(refused: Callable[..., str], world: Path) -> None:
    two = world / "two.npz"
    for other, words in (
        ((), "two domains"),
        (("--other", "attack:pgd:0.1"), "give it with --model"),
        (("--other", "attack:pgd", "--model", world / "victim"), "attack:pgd:8/255"),
        (("--other", "attack:pdg:0.1", "--model", world / "victim"), "did you mean 'pgd'"),
        (("--other", "attack:pgd:large", "--model", world / "victim"), "not a number"),
        (("--other", world / "table.csv"), "is a table"),
    ):
        assert words in refused("fit", "cycle-gan", "--data", two, "--out", "det", *SHORT, *other)
    assert "leave out --other" in refused("fit", "pca", "--data", two, "--out", "det", "--other", two)


def test_photos_of_conditions(run: Run, refused: Callable[..., str], world: Path) -> None:
    two = world / "two.npz"
    assert run("fit", "pair-gan", "--data", f"edges:{two}", "--out", "det", *SHORT).code == 0
    assert run("detect", "det", f"edges:{two}", "--quiet", "--explain", "why").code in (0, 3)
    assert run("translate", "det", "--data", f"edges:{two}", "--out", "x.png").code == 0
    assert "to photo by pair-gan" in run("translate", "det", "--data", f"edges:{two}", "--out", "x.npz").out
    with np.load("x.npz") as found:
        assert found["x"].shape[1:] == (1, 6, 6)
    assert "stack the two" in refused("fit", "pair-gan", "--data", two, "--out", "other", *SHORT)
    assert "beside their edge maps" not in refused("translate", "det", "--data", two, "--out", "y.npz")
    assert "translates nothing" in refused("translate", world / "detector", "--data", two, "--out", "y.npz")
