"""`robustgen detect --explain`."""

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
from robustgen.report import explanations

Run = Callable[..., Any]


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.fixture
def foreign(world: Path, tmp_path: Path) -> Path:
    """Three normal images, and three with one bright or dark row of pixels; on disk in the test's own folder."""
    x = np.load(world / "bare.npy")[[0, 2, 4, 0, 2, 4]].copy()
    for image, row in ((3, 1), (4, 3), (5, 5)):
        x[image, 0, row] = 1 - x[image, 0, row].round()
    path = tmp_path / "foreign.npy"
    np.save(path, x)
    return path


def test_heat_maps_of_what_is_flagged(run: Run, world: Path, foreign: Path, tmp_path: Path) -> None:
    ran = run("detect", world / "detector", foreign, "--explain", "why", "--json")
    assert ran.code == 3
    lines = [json.loads(line) for line in ran.out.splitlines()]
    flagged = [line for line in lines if line["flagged"]]
    assert {line["input"] for line in flagged} >= {"3", "4", "5"}
    assert [line["explanation"]["heat_map"] for line in flagged] == [
        f"why/heat-maps/{i:04d}.png" for i in range(len(flagged))
    ]
    assert all("explanation" not in line for line in lines if not line["flagged"])
    pictures = [f"heat-maps/{i:04d}.png" for i in range(len(flagged))]
    others = ["explanations.csv", "index.html", "parts.npz", "results.json"]
    assert files(tmp_path / "why") == sorted(pictures + others)
    with Image.open("why/heat-maps/0000.png") as picture:
        assert picture.width > 2 * picture.height
    with np.load("why/parts.npz", allow_pickle=False) as raw:
        assert raw["input"].tolist() == [line["input"] for line in flagged]
        assert raw["score"].tolist() == [line["score"] for line in flagged]
        np.testing.assert_allclose(raw["parts"].sum((1, 2, 3)), raw["score"], rtol=1e-4)
        rows = {name: part[0].mean(1).argmax() for name, part in zip(raw["input"], raw["parts"], strict=True)}
    assert (rows["3"], rows["4"], rows["5"]) == (1, 3, 5)
    with open("why/explanations.csv", newline="") as file:
        table = list(csv.DictReader(file))
    assert [row["heat_map"] for row in table] == pictures
    assert [float(row["score"]) for row in table] == [line["score"] for line in flagged]
    page = Path("why/index.html").read_text()
    assert "data:image/svg+xml" in page
    assert "99.5" in page


def test_the_page_names_what_it_shows(run: Run, world: Path, foreign: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Short names as they are; of long ones the number of the heat-map."""
    notes, draw = list[str](), explanations.heat_map_sheet

    def noting(images: Any, parts: Any, some: list[str], top: Any) -> Any:
        notes.extend(some)
        return draw(images, parts, some, top)

    monkeypatch.setattr(explanations, "heat_map_sheet", noting)
    ran = run("detect", world / "detector", foreign, "--explain", "why", "--json")
    flagged = [line for line in map(json.loads, ran.out.splitlines()) if line["flagged"]]
    assert sorted(notes) == sorted(f"{line['input']}: {line['score']:.4g}" for line in flagged)
    notes.clear()
    Path("photos").mkdir()
    for row, image in enumerate(np.load(foreign)):
        Image.fromarray((255 * image[0]).astype(np.uint8)).save(f"photos/photograph-{row}.png")
    assert run("detect", world / "detector", "photos", "--explain", "again", "--json").code == 3
    assert notes
    assert all(note.startswith("#000") for note in notes)


def test_columns_of_a_table(run: Run, world: Path) -> None:
    """The column that is out comes first, in the table's own units, beside its usual value."""
    assert run("fit", "k-means", "--data", world / "table.csv", "--out", "det", "--quiet").code == 0
    head, *lines = (world / "table.csv").read_text().splitlines()
    cells = lines[0].split(",")
    cells[2] = "55.5"
    Path("odd.csv").write_text("\n".join([head, *lines[:5], ",".join(cells)]) + "\n")
    ran = run("detect", "det", "odd.csv", "--explain", "why", "--json")
    last = json.loads(ran.out.splitlines()[-1])
    first = last["explanation"]["columns"][0]
    assert (first["name"], first["value"]) == ("weight", 55.5)
    assert 0 < first["usual"] < 10
    assert first["share"] > 0.5
    with open("why/explanations.csv", newline="") as file:
        row = list(csv.DictReader(file))[-1]
    assert (row["column_1"], float(row["value_1"])) == ("weight", 55.5)
    assert sum(float(row[f"share_{i}"]) for i in (1, 2, 3) if row[f"share_{i}"]) == pytest.approx(1, abs=1e-5)
    assert "weight" in Path("why/index.html").read_text()
    people = run("detect", "det", "odd.csv", "--explain", "again")
    assert "weight" in people.out
    assert "index.html in again" in people.out


def test_all_inputs_or_only_a_few(run: Run, world: Path, foreign: Path) -> None:
    words = ("detect", world / "detector", foreign, "--explain", "why")
    assert run(*words, "--explain-all").code == 3
    assert len(files(Path("why/heat-maps"))) == 6
    ran = run(*words, "--explain-all", "--explain-most", 2, "--batch-size", 1, "--force")
    assert len(files(Path("why/heat-maps"))) == 2
    assert "4 more would have been explained: raise --explain-most" in ran.err
    assert json.loads(Path("why/results.json").read_text())["left_out"] == 4
    calm = run("detect", world / "detector", foreign, "--limit", 1, "--explain", "calm")
    assert calm.code in (0, 3)
    assert Path("calm/index.html").is_file()


def test_explanations_go_back_through_a_classifier(run: Run, world: Path, foreign: Path) -> None:
    data = world / "two.npz"
    assert run("fit", "pca", "--data", data, "--model", world / "victim", "--out", "det", "--quiet").code == 0
    assert run("detect", "det", foreign, "--explain", "why", "--explain-all", "--quiet").code in (0, 3)
    detector = CalibratedDetector.load(Path("det"))
    assert detector.typical is not None
    with torch.no_grad():
        rise = detector.score(torch.from_numpy(np.load(foreign))) - detector.score(detector.typical[None])
    with np.load("why/parts.npz", allow_pickle=False) as raw:
        assert raw["parts"].shape == (6, 1, 6, 6)
        np.testing.assert_allclose(raw["parts"].sum((1, 2, 3)), rise.numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--explain-all"], "give --explain DIR too"),
        (["--explain-most", "3"], "give --explain DIR too"),
        (["--explain", "file"], "--explain file is a file"),
        (["--explain", "full"], "--explain full exists already"),
        (["--explain", "full", "--force"], "--force replaces only what robustgen wrote"),
    ],
)
def test_places_that_are_refused(
    refused: Callable[..., str], world: Path, tmp_path: Path, options: list[str], says: str
) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/note").write_text("mine")
    assert says in refused("detect", world / "detector", world / "two.npz", *options)
