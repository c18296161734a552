"""`robustgen train`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from robustgen.artifacts import read_artifact


def test_result_and_artifact(run: Callable[..., Any], world: Path, tmp_path: Path) -> None:
    ran = run("train", "--data", world / "two.npz", "--arch", "mlp", "--epochs", 3, "--out", "new/victim", "--json")
    assert (ran.code, ran.err) == (0, "")
    assert ran.json["clean_accuracy"] == 1.0
    assert ran.json == json.loads((tmp_path / "new/victim/results.json").read_text())
    assert {path.name for path in (tmp_path / "new/victim").iterdir()} == {
        "manifest.json",
        "tensors.safetensors",
        "results.json",
    }
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["victim"]
    again, first = read_artifact(tmp_path / "new/victim"), read_artifact(world / "victim")
    assert all(bool((again.tensors[key] == first.tensors[key]).all()) for key in first.tensors)


def test_words_for_people(run: Callable[..., Any], world: Path) -> None:
    ran = run("train", "--data", world / "two.npz", "--arch", "mlp", "--epochs", 1, "--out", "victim", "--quiet")
    assert (ran.code, ran.err) == (0, "")
    assert "clean accuracy" in ran.out
    assert "140 inputs of two.npz" in ran.out


def test_adversarial_training_is_recorded(run: Callable[..., Any], world: Path) -> None:
    common = ("train", "--data", world / "two.npz", "--arch", "mlp", "--epochs", 1, "--json", "--eps", "1/10")
    fast = run(*common, "--adversarial", "fast-fgsm", "--out", "fast").json["adversarial"]
    assert fast == {"attack": "fast-fgsm", "norm": "linf", "eps": 0.1, "steps": 1, "step_size": 0.125}
    strong = run(*common, "--adversarial", "pgd", "--steps", 2, "--norm", "l2", "--out", "strong").json["adversarial"]
    assert (strong["attack"], strong["norm"], strong["steps"]) == ("pgd", "l2", 2)
    assert run(*common, "--adversarial", "fast", "--out", "short").json["adversarial"] == fast
    trades = run(*common, "--adversarial", "trades", "--steps", 2, "--out", "usual").json["adversarial"]
    assert (trades["attack"], trades["steps"], trades["beta"]) == ("trades", 2, 6.0)
    weak = run(*common, "--adversarial", "trades", "--steps", 2, "--beta", 0, "--out", "none").json
    assert weak["adversarial"]["beta"] == 0
    assert weak["losses"] == run(*common, "--out", "plain").json["losses"]


def test_a_weight_that_says_nothing_is_refused(refused: Callable[..., str], world: Path) -> None:
    common = ("train", "--data", world / "two.npz", "--out", "victim")
    assert "train by trades" in refused(*common, "--beta", 3)
    assert "train by trades" in refused(*common, "--adversarial", "pgd", "--beta", 3)
    assert "from 0 up" in refused(*common, "--adversarial", "trades", "--beta", -1)
    assert "did you mean 'trades'" in refused(*common, "--adversarial", "trade")


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("missing.npz", ["missing.npz", "no such file"]),
        ("missing/folder", ["missing/folder", "no such file or folder"]),
        ("empty", ["no images in", "empty"]),
        ("models.py", ["models.py", "not of a form that is read"]),
        ("nan.npz", ["nan.npz", "NaN", "row 7", "drop or fill"]),
        ("inf.npz", ["inf.npz", "infinite", "row 7"]),
        ("one-class.npz", ["one class only ('0')", "at least two"]),
        ("no-labels.npz", ["no labels", "'y'"]),
        ("bare.npy", ["no labels"]),
        ("texts.npz", ["<U32", "uint8"]),
        ("objects.npz", ["objects", "not read"]),
        ("other-keys.npz", ["['a', 'b']", "it needs x"]),
        ("half-labels.npz", ["float64", "not whole numbers"]),
        ("to-255.npz", ["[0, 1]", "x / 255"]),
        ("short-labels.npz", ["(10,)", "(200,)"]),
    ],
)
def test_data_that_cannot_be_used(refused: Callable[..., str], world: Path, name: str, says: list[str]) -> None:
    line = refused("train", "--data", world / name, "--arch", "mlp", "--out", "deep/victim")
    for word in says:
        assert word in line


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--arch", "mpl"], ["unknown architecture 'mpl'", "did you mean 'mlp'"]),
        (["--arch", "torchvision:resnt18"], ["resnt18", "torchvision:resnet18"]),
        (["--arch", "small-resnet"], ["(1, 6, 6)", "at least 8 x 8", "mlp"]),
        (["--lr", "nan"], ["learning rate", "above 0", "nan"]),
        (["--lr", "-1"], ["learning rate", "-1"]),
        (["--device", "cuda:77"], ["'cuda:77'", "cpu"]),
        (["--device", "cdua"], ["'cdua'", "cpu"]),
        (["--adversarial", "pdg"], ["'pdg'", "did you mean 'pgd'"]),
        (["--adversarial", "pgd", "--eps", "8"], ["eps=8", "[0, 1]", "8/255"]),
        (["--adversarial", "pgd", "--eps", "-1"], ["eps", "-1"]),
        (["--adversarial", "pgd", "--norm", "l3"], ["unknown norm 'l3'", "linf"]),
        (["--data", "digitz"], ["'digitz'", "did you mean 'digits'"]),
    ],
)
def test_options_that_make_no_sense(
    refused: Callable[..., str], world: Path, options: list[str], says: list[str]
) -> None:
    given = {"--data": str(world / "two.npz"), "--arch": "mlp", "--epochs": "1", "--out": "victim"}
    given |= dict(zip(options[::2], options[1::2], strict=True))
    line = refused("train", *[part for pair in given.items() for part in pair])
    for word in says:
        assert word in line


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--eps", "abc"], "'abc' is not a number: write it like 0.03 or 8/255"),
        (["--eps", "1/0"], "'1/0' is not a number"),
        (["--eps", "inf"], "'inf' is not a number"),
        (["--size", "big"], "'big' is not an image size: write it like 32 or 48x64"),
        (["--size", "0"], "'0' is not an image size"),
        (["--size", "1x2x3"], "'1x2x3' is not an image size"),
        (["--epochs", "0"], "--epochs"),
        (["--seed", "99999999999999999999"], "--seed"),
        (["--batch-size", "many"], "--batch-size"),
        (["--dta", "x"], "--data"),
        (["--out"], "--out"),
    ],
)
def test_options_that_cannot_be_read(misused: Callable[..., str], options: list[str], says: str) -> None:
    assert says in misused("train", "--data", "digits", "--out", "victim", *options)


def test_a_diverging_run_is_a_failed_run(refused: Callable[..., str], world: Path) -> None:
    common = ("train", "--data", world / "two.npz", "--arch", "mlp", "--epochs", 2, "--out", "victim")
    line = refused(*common, "--lr", "1e30", code=1)
    assert "diverged in epoch 1" in line
    assert "1e+30" in line


def test_images_are_resized_on_request(run: Callable[..., Any], refused: Callable[..., str], world: Path) -> None:
    common = ("train", "--arch", "mlp", "--epochs", 1, "--quiet")
    assert run(*common, "--data", world / "photos", "--size", 16, "--out", "square").code == 0
    assert read_artifact(Path("square")).config["shape"] == [3, 16, 16]
    assert run(*common, "--data", world / "photos", "--size", "8x12", "--out", "wide").code == 0
    assert read_artifact(Path("wide")).config["shape"] == [3, 8, 12]
    assert "table" in refused(*common, "--data", world / "table.csv", "--size", 8, "--out", "table")
