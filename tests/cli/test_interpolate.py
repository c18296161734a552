"""`robustgen interpolate`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

Run = Callable[..., Any]


def test_a_path_is_drawn_and_measured(run: Run, world: Path) -> None:
    words = ("interpolate", world / "detector", world / "two.npz", "--rows", "0,3", "--steps", 5)
    ran = run(*words, "--out", "new/path.png", "--json")
    assert (ran.code, ran.err) == (0, "")
    found = ran.json
    assert (found["form"], found["steps"], found["inputs"]) == ("paths", 5, ["0", "3"])
    pixels, way = found["ways"]
    assert (pixels["name"], way["name"]) == ("pixel average", "pca")
    assert pixels["unevenness"] == pytest.approx(1, abs=1e-4)
    assert pixels["cycle"] is None
    assert way["cycle"] < 1e-3
    assert set(way["judges"]) == {"pca"}
    with Image.open("new/path.png") as picture:
        assert picture.format == "PNG"
    again = run(*words)
    assert "1 path of 5 inputs" in again.out


def test_several_detectors_and_another_judge(run: Run, world: Path) -> None:
    data = world / "two.npz"
    assert run("fit", "autoencoder", "--data", data, "--param", "epochs=2", "--out", "ae", "--quiet").code == 0
    assert run("fit", "k-means", "--data", data, "--param", "clusters=3", "--out", "km", "--quiet").code == 0
    words = ("interpolate", world / "detector", "ae", data)
    grid = run(*words, "--corners", "0,1,2,3", "--judge", "km", "--out", "grid.png", "--json").json
    assert [way["name"] for way in grid["ways"]] == ["pixel average", "pca", "autoencoder"]
    assert (grid["form"], grid["steps"], grid["ways"][1]["n"]) == ("grid", 7, 7)
    assert set(grid["ways"][2]["judges"]) == {"k-means"}
    many = run(*words, "--pairs", 12, "--along", "arc", "--json").json
    assert [way["n"] for way in many["ways"]] == [12] * 3
    assert set(many["ways"][0]["judges"]) == {"pca", "autoencoder"}
    twins = run("interpolate", "ae", "ae/../ae", data, "--pairs", 2, "--json")
    assert [way["name"] for way in twins.json["ways"]][1:] == ["ae", "ae/../ae"]
    shown = run(*words, "--pairs", 12)
    assert "12 paths of 9 inputs" in shown.out


def test_ways_between_rows_of_a_table(run: Run, refused: Callable[..., str], world: Path) -> None:
    assert run("fit", "pca", "--data", world / "table.csv", "--out", "det", "--quiet").code == 0
    words = ("interpolate", "det", world / "table.csv", "--rows", "0,1")
    assert run(*words, "--json").json["ways"][1]["name"] == "pca"
    assert "no images" in refused(*words, "--out", "path.png")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ((), "give one of --rows"),
        (("--rows", "0,1", "--pairs", "3"), "give one of --rows"),
        (("--rows", "0"), "--rows takes 2 different numbers, but 0 came"),
        (("--rows", "4,4"), "2 different numbers, but 4,4 came"),
        (("--corners", "0,1,2"), "--corners takes 4 different numbers"),
        (("--rows", "0,200"), "has the inputs 0 to 199, but 200 came"),
        (("--rows", "0,1", "--out", "path.svg"), "does not end in .png"),
        (("--rows", "0,1", "--out", "there.png"), "exists already"),
        (("--rows", "0,1", "--along", "curve"), "unknown way between codes 'curve'"),
        (("--pairs", "3", "--out", "path.png"), "leave out --out"),
    ],
)
def test_what_is_no_way(refused: Callable[..., str], world: Path, words: tuple[str, ...], says: str) -> None:
    Path("there.png").write_text("mine")
    assert says in refused("interpolate", world / "detector", world / "two.npz", *words)


def test_detectors_of_other_inputs_do_not_go_together(run: Run, refused: Callable[..., str], world: Path) -> None:
    assert run("fit", "pca", "--data", world / "photos", "--out", "other", "--quiet").code == 0
    words = ("interpolate", world / "detector", "other", world / "two.npz", "--rows", "0,1")
    assert "shape (1, 6, 6)" in refused(*words)
    assert "is a classifier" in refused("interpolate", world / "victim", world / "two.npz", "--rows", "0,1")
