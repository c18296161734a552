"""`robustgen encode` and `robustgen reconstruct`."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from robustgen.detectors.calibrated import CalibratedDetector

Run = Callable[..., Any]


def test_codes_are_written_with_scores_and_classes(run: Run, world: Path) -> None:
    ran = run("encode", world / "detector", world / "two.npz", "--out", "new/codes.npz", "--json")
    assert (ran.code, ran.err) == (0, "")
    assert (ran.json["detector"], ran.json["n"], ran.json["data"]) == ("pca", 200, "two.npz")
    given = np.load(world / "two.npz")
    detector = CalibratedDetector.load(world / "detector")
    with np.load("new/codes.npz") as found:
        assert found["x"].shape == (200, ran.json["width"])
        x = torch.from_numpy(given["x"])
        np.testing.assert_allclose(found["x"], detector.codes()(x).numpy(), atol=1e-5)
        np.testing.assert_allclose(found["score"], detector.judge(x).score, rtol=1e-4)
        np.testing.assert_array_equal(found["y"], given["y"])
        assert found["input"].tolist() == [str(row) for row in range(200)]
    assert run("fit", "k-means", "--data", "new/codes.npz", "--out", "again", "--quiet").code == 0  # it is data again


def test_codes_as_a_table(run: Run, world: Path) -> None:
    assert run("fit", "pca", "--data", world / "photos", "--out", "det", "--quiet").code == 0
    ran = run("encode", "det", world / "photos", "--out", "codes.csv", "--limit", 5)
    assert ran.code == 0
    assert "5 of " in ran.out
    with open("codes.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 5
    assert rows[0]["label"] == "'=cmd"  # a spreadsheet would run it
    assert {"input", "label", "score", "code_0"} <= set(rows[0])


@pytest.mark.parametrize(("data", "layout"), [("two.npz", "pca"), ("no-labels.npz", "t-sne")])
def test_codes_are_drawn_as_a_map(run: Run, world: Path, data: str, layout: str) -> None:
    fitted = run("fit", "pca", "--data", world / data, "--param", "components=4", "--out", "det", "--quiet")
    assert fitted.code == 0
    ran = run("encode", "det", world / data, "--map", "map.png", "--layout", layout, "--limit", 60, "--json")
    assert (ran.code, ran.err) == (0, "")
    assert (ran.json["n"], ran.json["out"], ran.json["map"]) == (60, None, "map.png")
    with Image.open("map.png") as picture:
        assert picture.format == "PNG"
    both = run("encode", "det", world / data, "--map", "map.svg", "--out", "codes.npz")
    assert "codes.npz, map.svg" in both.out
    assert "<svg" in Path("map.svg").read_text()
    assert run("encode", "det", world / data, "--map", "map.html", "--quiet").code == 0
    page = Path("map.html").read_text()
    assert f"Codes of {data}" in page
    assert ("Class by class" in page) == (data == "two.npz")


def test_reconstruction_says_rate_and_error(run: Run, world: Path, tmp_path: Path) -> None:
    words = ("reconstruct", world / "detector", world / "two.npz", "--bits", "3,32", "--limit", 50, "--out", "rec")
    ran = run(*words, "--json")
    assert (ran.code, ran.err) == (0, "")
    found = ran.json
    assert found == json.loads((tmp_path / "rec/results.json").read_text())
    assert sorted(path.name for path in (tmp_path / "rec").iterdir()) == [
        "codes.npz",
        "pictures.png",
        "reconstructions.npz",
        "results.json",
        "samples.npz",
    ]
    coarse, exact = found["precisions"]
    assert (found["n"], coarse["bits"], exact["bits"]) == (50, 3, 32)
    assert exact["rate"] == 32 * found["width"]
    assert coarse["mse"] > exact["mse"]
    assert found["lossless"]["raw"] == 36 * 8
    with np.load("rec/samples.npz") as samples, np.load("rec/reconstructions.npz") as back:
        assert exact["mse"] == pytest.approx(float(samples["mse_32"].mean()))
        assert found["lossless"]["png"] == pytest.approx(float(samples["png_bits"].mean()))
        given = np.load(world / "two.npz")["x"][back["index"]]
        assert exact["mse"] == pytest.approx(float(((given - back["x"]) ** 2).mean()), rel=1e-3)
    with Image.open("rec/pictures.png") as picture:
        assert picture.size[0] > 800
    again = run(*words, "--force")
    assert "code at 3" in again.out
    assert "png" in again.out


def test_tables_have_codes_too(run: Run, world: Path, tmp_path: Path) -> None:
    assert run("fit", "pca", "--data", world / "table.csv", "--out", "det", "--quiet").code == 0
    found = run("reconstruct", "det", world / "table.csv", "--bits", "8", "--out", "rec", "--json").json
    assert set(found["lossless"]) == {"raw", "zlib"}
    assert found["precisions"][0]["ssim"] is None
    assert not (tmp_path / "rec/pictures.png").exists()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("encode", "D", "two.npz"), "--out codes.npz"),
        (("encode", "D", "two.npz", "--map", "map.jpg"), "does not end in .png or .svg or .html"),
        (("encode", "D", "two.npz", "--map", "map.png", "--layout", "umap"), "unknown layout 'umap'"),
        (("encode", "D", "two.npz", "--map", "map.png"), "at least 3 codes of 2 values"),
        (("encode", "D", "two.npz", "--out", "codes.txt"), "does not end in .npz or .csv"),
        (("encode", "D", "two.npz", "--out", "there.csv"), "exists already"),
        (("encode", "D", "colour.npz", "--out", "codes.csv"), "(3, 6, 6)"),
        (("encode", "victim", "two.npz", "--out", "codes.csv"), "is a classifier, but a detector"),
        (("reconstruct", "D", "two.npz", "--out", "rec", "--bits", "0"), "1 to 16 bits"),
        (("reconstruct", "D", "two.npz", "--out", "rec", "--bits", "20,4"), "1 to 16 bits"),
        (("reconstruct", "D", "two.npz", "--out", "there.csv"), "is a file"),
        (("reconstruct", "k-means", "two.npz", "--out", "rec"), "k-means has no code of its inputs"),
        (("encode", "k-means", "two.npz", "--out", "codes.npz"), "k-means has no code of its inputs"),
    ],
)
def test_what_cannot_be_encoded(run: Run, refused: Callable[..., str], world: Path, words: Any, says: str) -> None:
    Path("there.csv").write_text("mine")
    if "k-means" in words:
        assert run("fit", "k-means", "--data", world / "two.npz", "--out", "k-means", "--quiet").code == 0
    place = {"D": world / "detector", "victim": world / "victim", "two.npz": world / "two.npz"}
    place["colour.npz"] = world / "colour.npz"
    assert says in refused(*(place.get(word, word) for word in words))


def test_precisions_are_whole_numbers(misused: Callable[..., str], world: Path) -> None:
    words = ("reconstruct", world / "detector", world / "two.npz", "--out", "rec", "--bits")
    assert "'4.5' is no list of whole numbers" in misused(*words, "4.5")
