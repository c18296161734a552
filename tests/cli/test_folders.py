"""The user's own folders and tables, from training to detection; damaged files and difficult names among them."""

from __future__ import annotations

import csv
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., Any]


def test_images_in_class_folders(run: Run, world: Path) -> None:
    photos = world / "photos"
    ran = run("train", "--data", photos, "--epochs", 3, "--out", "victim", "--json")
    assert ran.code == 0
    assert ran.json["n_train"] + ran.json["n_test"] < 160
    assert set(ran.json["skipped"]) == {"=cmd/damaged.png", "[red]cat/short.png"}
    assert "warning: skipped =cmd/damaged.png: it is damaged" in ran.err
    assert "warning: 2 inputs could not be read and were skipped" in ran.err
    ran = run("attack", "fgsm", "--model", "victim", "--data", photos, "--eps", "8/255", "--out", "run", "--json")
    assert ran.code == 0
    assert ran.json["split"] == "test"  # it was trained on the rest
    assert ran.json["clean_accuracy"] == 1.0
    assert ran.json["warnings"] == []
    assert run("fit", "pca", "--data", photos, "--out", "detector", "--quiet").err == ""
    ran = run("detect", "detector", photos, "--out", "scores.csv")
    assert ran.code in (0, 3)
    assert "=cmd/00.png" in ran.out
    assert "skipped [red]cat/short.png" in ran.err
    assert Path("run/examples.png").exists() or ran.code


def test_names_are_shown_as_they_are_and_never_run(run: Run, world: Path) -> None:
    assert run("fit", "pca", "--data", world / "photos", "--out", "detector", "--quiet").code == 0
    Path("inputs").mkdir()
    names = ["=1+1.png", "@sum.png", "[bold]x.png", "line\nbreak.png", 'a,"b".png', "\x1b[31mred.png", "é.png"]
    for name in names:
        shutil.copy(world / "photos/=cmd/00.png", Path("inputs") / name)
    ran = run("detect", "detector", "inputs", "--out", "scores.csv")
    assert ran.code in (0, 3)
    assert "[bold]x.png" in ran.out
    assert "\x1b[31m" not in ran.out
    assert r"\x1b[31mred.png" in ran.out
    with open("scores.csv", newline="", encoding="utf-8") as file:
        cells = [row["input"] for row in csv.DictReader(file)]
    assert sorted(cell.removeprefix("'") for cell in cells) == sorted(names)
    assert not [cell for cell in cells if cell[0] in "=+-@\t\r"]
    lines = run("detect", "detector", "inputs", "--json").out.splitlines()
    assert sorted(json.loads(line)["input"] for line in lines) == sorted(names)


def test_an_input_that_was_not_judged_is_named_even_when_quiet(run: Run, world: Path) -> None:
    """A damaged file must not pass for a normal one: silence and exit code 0 would say that it did."""
    assert run("fit", "pca", "--data", world / "photos", "--out", "detector", "--quiet").code == 0
    ran = run("detect", "detector", world / "photos", "--quiet")
    assert ran.code in (0, 3)
    assert "skipped =cmd/damaged.png" in ran.err


def test_names_that_are_not_utf8(run: Run, world: Path) -> None:
    assert run("fit", "pca", "--data", world / "photos", "--out", "detector", "--quiet").code == 0
    Path("inputs").mkdir()
    shutil.copy(world / "photos/=cmd/00.png", os.fsencode("inputs/") + b"\xff\xfe.png")
    ran = run("detect", "detector", "inputs", "--out", "scores.csv", "--json")
    assert ran.code in (0, 3)
    assert os.fsencode(json.loads(ran.out)["input"]) == b"\xff\xfe.png"
    assert r"\udcff\udcfe.png" in Path("scores.csv").read_text(encoding="utf-8")
    assert r"\udcff\udcfe.png" in run("detect", "detector", "inputs").out


def test_a_table(run: Run, refused: Callable[..., str], world: Path) -> None:
    table = world / "table.csv"
    ran = run("train", "--data", table, "--arch", "mlp", "--epochs", 20, "--out", "victim", "--json")
    assert (ran.code, ran.err) == (0, "")
    assert ran.json["clean_accuracy"] > 0.9
    for norm in ("linf", "l2", "l1"):  # the test rows lie outside the box of the training rows here and there
        ran = run(
            "attack", "pgd", "--model", "victim", "--data", table, "--eps", 0.3, "--norm", norm, "--steps", 3, "--json"
        )
        assert (ran.code, ran.err) == (0, "")
        assert ran.json["robust_accuracy"] < ran.json["clean_accuracy"]
        assert ran.json["configuration"]["threat"]["low"] is None
    assert "eps=8" in refused("attack", "pgd", "--model", "victim", "--data", table, "--eps", 8)
    assert "small-cnn needs images" in refused("train", "--data", table, "--out", "x")
    assert run("fit", "k-means", "--data", table, "--out", "detector", "--quiet").code == 0
    Path("rows.csv").write_text("weight,age,size\n2.5,35,0.5\n-900,35,0.5\n")  # columns are found by name
    lines = [json.loads(line) for line in run("detect", "detector", "rows.csv", "--json").out.splitlines()]
    assert [line["flagged"] for line in lines] == [False, True]
    Path("lacking.csv").write_text("weight,age\n7,40\n")
    assert "lacks the columns 'size'" in refused("detect", "detector", "lacking.csv")


@pytest.mark.slow
def test_demo_on_a_folder(run: Run, refused: Callable[..., str], world: Path, tmp_path: Path) -> None:
    ran = run("demo", "--data", world / "photos", "--out", "demo")
    assert ran.code == 0
    assert "How easily is it fooled?" in ran.out
    assert f"{tmp_path}/demo/report.html" in ran.out
    assert "warning: skipped =cmd/damaged.png" in ran.err
    assert (tmp_path / "demo/report.html").exists()
    found = run("show", "demo", "--json").json
    assert set(found["attacks"]) == {"fgsm", "pgd"}
    assert set(found["detectors"]) == {"pca", "k-means", "autoencoder"}
    assert found["fpr"] == 0.05
    assert "exists already" in refused("demo", "--data", world / "photos", "--out", "demo")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--data", "table.csv"], ["table", "grey or RGB"]),
        (["--data", "one-class.npz"], ["one class only"]),
        (["--data", "two.npz", "--eps", "8"], ["eps=8", "8/255"]),
        (["--data", "two.npz", "--fpr", "0.001"], ["999 calibration inputs"]),
        (["--data", "two.npz", "--fpr", "5"], ["between 0 and 1", "5"]),
        (["--data", "missing.npz"], ["missing.npz"]),
    ],
)
def test_what_the_demo_cannot_show(
    refused: Callable[..., str], world: Path, options: list[str], says: list[str]
) -> None:
    line = refused("demo", "--data", world / options[1], *options[2:], "--out", "deep/demo")
    for word in says:
        assert word in line
