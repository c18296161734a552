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

Run = Callable[..., Any]


@pytest.fixture
def gaussian(monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a generative detector in closed form."""
    monkeypatch.setitem(DETECTORS, "gaussian", Entry("toys:GaussianDetector", "a toy"))
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
