"""`robustgen sample`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from robustgen.detectors import DETECTORS
from robustgen.registry import Entry
from toys import GaussianDetector

Run = Callable[..., Any]


@pytest.fixture
def gaussian(monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a generative detector in closed form."""
    monkeypatch.setitem(DETECTORS, "gaussian", Entry(f"toys:{GaussianDetector.__name__}", "a toy"))
    return "gaussian"


def test_samples_are_drawn_judged_and_written(run: Run, world: Path, gaussian: str) -> None:
    assert run("fit", gaussian, "--data", world / "two.npz", "--out", "det", "--quiet").code == 0
    ran = run("sample", "det", "--n", 20, "--out", "new/samples.npz", "--json")
    assert (ran.code, ran.err) == (0, "")
    assert (ran.json["n"], ran.json["detector"]) == (20, "gaussian")
    with np.load("new/samples.npz") as found:
        x = found["x"]
        assert x.shape == (20, 1, 6, 6)
        assert 0 <= x.min() < x.max() <= 1
        assert int((found["p_value"] <= 0.05).sum()) == ran.json["flagged"]
    again = run("sample", "det", "--n", 20, "--out", "again.npz")
    assert "20 by gaussian, as of two.npz" in again.out
    np.testing.assert_array_equal(np.load("again.npz")["x"], x)
    assert run("sample", "det", "--n", 20, "--seed", 1, "--out", "other.npz", "--quiet").code == 0
    assert (np.load("other.npz")["x"] != x).any()
    assert run("detect", "det", "new/samples.npz", "--quiet").code in (0, 3)  # they are data again
    for n in (1, 20):
        assert run("sample", "det", "--n", n, "--out", f"{n}.png", "--quiet").code == 0
        with Image.open(f"{n}.png") as picture:
            assert picture.format == "PNG"


def test_rows_of_a_table_come_in_its_own_units(
    run: Run, refused: Callable[..., str], world: Path, gaussian: str
) -> None:
    assert run("fit", gaussian, "--data", world / "table.csv", "--out", "det", "--quiet").code == 0
    assert run("sample", "det", "--n", 500, "--out", "rows.npz", "--quiet").code == 0
    given = np.loadtxt(world / "table.csv", delimiter=",", skiprows=1, usecols=(0, 1, 2))
    with np.load("rows.npz") as found:
        np.testing.assert_allclose(found["x"].mean(0), given.mean(0), atol=0.2 * given.std(0).max())
    assert "no images" in refused("sample", "det", "--out", "rows.png")


def test_what_cannot_be_drawn(run: Run, refused: Callable[..., str], world: Path) -> None:
    assert "pca cannot draw new inputs" in refused("sample", world / "detector", "--out", "x.png")
    assert "does not end in .png or .npz" in refused("sample", world / "detector", "--out", "x.csv")
    assert "is a classifier, but a detector" in refused("sample", world / "victim", "--out", "x.png")
    data = world / "two.npz"
    assert run("fit", "k-means", "--data", data, "--features", world / "detector", "--out", "on", "--quiet").code == 0
    assert "looks at features" in refused("sample", "on", "--out", "x.png")


@pytest.fixture
def style(run: Run, world: Path) -> str:
    """A style-gan of 6 x 6 images."""
    options = ("--param", "steps=10", "--param", "width=4", "--param", "code=4")
    ran = run("fit", "style-gan", "--data", world / "two.npz", "--out", "style", *options)
    assert ran.code == 0
    assert "of 1 kept" in ran.out
    return "style"


def test_truncated_and_mixed_samples(run: Run, refused: Callable[..., str], world: Path, style: str) -> None:
    assert run("sample", style, "--n", 30, "--out", "all.npz", "--quiet").code == 0
    assert run("sample", style, "--n", 30, "--truncation", 0.3, "--out", "near.npz", "--quiet").code == 0
    with np.load("all.npz") as every, np.load("near.npz") as near:
        assert near["x"].std(0).mean() < every["x"].std(0).mean()
    ran = run("sample", style, "--n", 3, "--mix", "--out", "mix.npz", "--json")
    assert (ran.code, ran.json["n"], ran.json["mixed"]) == (0, 9, True)
    assert run("sample", style, "--n", 3, "--mix", "--out", "mix.png", "--quiet").code == 0
    with Image.open("mix.png") as picture:
        assert picture.format == "PNG"
    assert "at most --n 12" in refused("sample", style, "--n", 13, "--mix", "--out", "x.png")
    assert "without --truncation" in refused("sample", style, "--truncation", 0.5, "--mix", "--out", "x.png")
    assert "truncation from 0 to 1" in refused("sample", style, "--truncation", 2, "--out", "x.png")
    assert not Path("x.png").exists()


def test_the_distance_to_real_inputs(
    run: Run, refused: Callable[..., str], world: Path, style: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("robustgen.evaluation.frechet._inception", lambda device: None)
    model = ("--model", world / "victim")
    ran = run("sample", style, "--n", 10, "--against", world / "two.npz", *model, "--out", "x.npz", "--json")
    assert ran.code == 0, ran.err
    found = ran.json["frechet"]
    assert found["n"] == 10
    assert found["distance"] > 0
    assert found["real"] >= 0
    assert "the classifier" in found["features"]
    assert "real to real" in run("sample", style, "--against", world / "two.npz", *model, "--out", "y.npz").out
    assert "give a classifier" in refused("sample", style, "--against", world / "two.npz", "--out", "z.npz")
    assert "give --against" in refused("sample", style, *model, "--out", "z.npz")
    assert "draw at most" in refused(
        "sample", style, "--n", 900, "--against", world / "two.npz", *model, "--out", "z.npz"
    )
    assert "gaussian" not in refused("sample", world / "detector", "--truncation", 0.5, "--out", "z.npz")


def test_what_has_no_styles_says_so(run: Run, refused: Callable[..., str], world: Path, gaussian: str) -> None:
    assert run("fit", gaussian, "--data", world / "two.npz", "--out", "det", "--quiet").code == 0
    assert "no styles to mix" in refused("sample", "det", "--mix", "--n", 2, "--out", "x.png")
    assert "leave out --truncation" in refused("sample", "det", "--truncation", 0.5, "--out", "x.png")


def test_samples_of_a_class(run: Run, refused: Callable[..., str], world: Path, style: str) -> None:
    data, model = ("--data", world / "two.npz"), ("--model", world / "victim")
    options = ("--param", "steps=4", "--param", "width=4", "--out", "by-class", "--quiet")
    assert run("fit", "conditional-gan", *data, *model, *options).code == 0
    assert run("sample", "by-class", "--n", 4, "--out", "turns.npz", "--quiet").code == 0
    ran = run("sample", "by-class", "--n", 4, "--label", "1", "--out", "ones.npz", "--json")
    assert (ran.code, ran.json["label"]) == (0, 1)
    with np.load("turns.npz") as turns, np.load("ones.npz") as ones:
        assert turns["y"].tolist() == [0, 1, 0, 1]
        assert ones["y"].tolist() == [1, 1, 1, 1]
        np.testing.assert_allclose(ones["x"][1::2], turns["x"][1::2], atol=1e-5)
        assert (ones["x"][::2] != turns["x"][::2]).any()
    assert run("sample", "by-class", "--n", 4, "--out", "turns.png", "--quiet").code == 0
    assert "the classes" in refused("sample", "by-class", "--label", "7", "--out", "x.png")
    assert "but --label boot came" in refused("sample", "by-class", "--label", "boot", "--out", "x.png")
    assert "does not draw by class" in refused("sample", style, "--label", "0", "--out", "x.png")


def test_a_classifier_of_other_inputs_is_refused(run: Run, refused: Callable[..., str], world: Path) -> None:
    """Before anything is trained, and in words."""
    np.savez("wide.npz", x=np.random.default_rng(0).random((200, 1, 9, 9), np.float32), y=np.arange(200) % 2)
    for name in ("conditional-gan", "margin", "k-means"):
        said = refused("fit", name, "--data", "wide.npz", "--model", world / "victim", "--out", "x")
        assert "does not take inputs of shape (1, 9, 9)" in said
    assert not Path("x").exists()
