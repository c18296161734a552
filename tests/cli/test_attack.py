"""`robustgen attack`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from robustgen import runtime
from robustgen.attacks import ATTACKS
from robustgen.registry import Entry

PROMISED = {
    "attack", "norm", "eps", "n", "clean_accuracy", "robust_accuracy", "robust_accuracy_interval", "success_rate",
    "seconds", "forward_passes", "backward_passes", "warnings", "versions",
}  # fmt: skip


@pytest.fixture
def common(world: Path) -> tuple[object, ...]:
    return ("--model", world / "victim", "--data", world / "two.npz", "--eps", 0.4)


def test_result_and_files(run: Callable[..., Any], common: tuple[object, ...], world: Path, tmp_path: Path) -> None:
    ran = run("attack", "pgd", *common, "--steps", 3, "--out", "run", "--json")
    assert (ran.code, ran.err) == (0, "")
    found = ran.json
    assert set(found) >= PROMISED
    assert (found["attack"], found["norm"], found["eps"], found["n"]) == ("pgd", "linf", 0.4, 30)
    assert found["clean_accuracy"] == 1.0
    low, high = found["robust_accuracy_interval"]
    assert low <= found["robust_accuracy"] <= high < 1.0
    assert found["warnings"] == []
    assert found["curve"] == [
        {"eps": 0.4, "robust_accuracy": found["robust_accuracy"], "robust_accuracy_interval": [low, high]}
    ]
    assert found["members"] == [{"name": "PGD", "fooled": round(found["success_rate"] * found["n_attacked"])}]
    assert found["quantise"] is None
    assert all(finding["holds"] for finding in found["diagnosis"])
    assert len(found["model_sha256"]) == len(found["data_sha256"]) == 64
    assert found == json.loads((tmp_path / "run/results.json").read_text())
    assert {path.name for path in (tmp_path / "run").iterdir()} >= {"results.json", "samples.npz", "adversarials.npz"}
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    with np.load(tmp_path / "run/samples.npz") as samples:
        assert samples["success"].sum() == round(found["success_rate"] * found["n_attacked"])
    again = run("attack", "fgsm", "--model", world / "victim", "--data", "run/adversarials.npz", "--eps", 0, "--json")
    assert again.json["clean_accuracy"] == pytest.approx(found["robust_accuracy"])


def test_nothing_is_written_without_out(run: Callable[..., Any], common: tuple[object, ...], tmp_path: Path) -> None:
    ran = run("attack", "fgsm", *common)
    assert (ran.code, ran.err) == (0, "")
    for label in ("clean accuracy", "robust accuracy", "attack success rate", "forward / backward passes", "seconds"):
        assert label in ran.out
    assert list(tmp_path.iterdir()) == []


def test_every_option_counts(run: Callable[..., Any], common: tuple[object, ...]) -> None:
    options = ["--norm", "l2", "--steps", 2, "--step-size", "1/8", "--restarts", 2, "--loss", "margin", "--seed", 7]
    found = run("attack", "pgd", *common, *options, "--limit", 5, "--batch-size", 3, "--split", "train", "--json").json
    settings = found["configuration"]
    assert (found["n"], found["norm"], found["split"], found["seed"]) == (5, "l2", "train", 7)
    assert (settings["steps"], settings["step_size"], settings["restarts"]) == (2, 0.125, 2)
    assert (settings["objective"]["loss"], settings["batch_size"]) == ("margin", 3)
    assert settings["random_start"] is True
    plain = run(
        "attack", "pgd", *common, "--no-random-start", "--param", "mode=max-loss", "--param", "steps=4", "--json"
    )
    assert plain.json["configuration"]["random_start"] is False
    assert (plain.json["configuration"]["mode"], plain.json["configuration"]["steps"]) == ("max-loss", 4)


@pytest.mark.parametrize(("target", "attacked"), [("next", 30), ("least-likely", 30), ("1", 14)])
def test_targets(run: Callable[..., Any], common: tuple[object, ...], target: str, attacked: int) -> None:
    found = run("attack", "pgd", *common, "--targeted", target, "--steps", 3, "--json").json
    assert found["configuration"]["objective"]["targeted"] is True
    assert found["n_attacked"] == attacked


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("fgms", [], ["unknown attack 'fgms'", "did you mean 'fgsm'", "pgd"]),
        ("pgd", ["--eps", "8"], ["eps=8", "[0, 1]", "8/255"]),
        ("pgd", ["--eps", "-0.1"], ["eps", "-0.1"]),
        ("pgd", ["--eps", "0:8:3"], ["eps=8", "[0, 1]"]),
        ("pgd", ["--norm", "l0"], ["PGD works in linf, l2, l1", "l0"]),
        ("pgd", ["--mode", "everything"], ["mode=everything", "evaluate, max-loss, last"]),
        ("fgsm", ["--mode", "last"], ["'mode'"]),
        ("pgd", ["--precision", "float16"], ["unknown precision 'float16'", "known: bfloat16, float32, mixed"]),
        ("pgd", ["--param", "eot=3"], ["'eot'"]),
        ("pgd", ["--quantise", "uint9"], ["'uint9'", "did you mean 'uint8'"]),
        ("pgd", ["--norm", "l7"], ["unknown norm 'l7'", "linf"]),
        ("pgd", ["--loss", "crossentropy"], ["'crossentropy'", "did you mean 'cross-entropy'"]),
        ("pgd", ["--split", "tset"], ["'tset'", "did you mean 'test'"]),
        ("pgd", ["--targeted", "nxt"], ["'nxt'", "least-likely"]),
        ("pgd", ["--targeted", "7"], ["7", "classes 0 to 1"]),
        ("pgd", ["--step-size", "-1"], ["step_size", "-1"]),
        ("pgd", ["--restarts", "3", "--no-random-start"], ["3 restarts", "random starts"]),
        ("pgd", ["--device", "cuda:77"], ["'cuda:77'"]),
        ("fgsm", ["--steps", "3"], ["fgsm has no option 'steps'"]),
        ("pgd", ["--param", "stepz=3"], ["'stepz'", "did you mean 'steps'"]),
        ("pgd", ["--param", "seed=3"], ["'seed'"]),
        ("pgd", ["--param", "threat=3"], ["'threat'"]),
        ("pgd", ["--param", "steps"], ["NAME=VALUE", "'steps'"]),
        ("pgd", ["--param", "steps=abc"], ["steps=abc", "a whole number"]),
        ("pgd", ["--param", "steps=2.5"], ["steps=2.5", "a whole number"]),
        ("pgd", ["--param", "steps=2", "--steps", "3"], ["'steps'", "twice"]),
        ("pgd", ["--param", "mode=nothing"], ["mode=nothing", "evaluate, max-loss, last"]),
        ("pgd", ["--param", "random-start=3"], ["random_start=3", "true or false"]),
        ("pgd", ["--param", "step-size=x"], ["step_size=x", "a number or none"]),
    ],
)
def test_settings_that_make_no_sense(
    refused: Callable[..., str], common: tuple[object, ...], name: str, options: list[str], says: list[str]
) -> None:
    line = refused("attack", name, *common, *options, "--out", "deep/run")
    for word in says:
        assert word in line


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("colour.npz", ["(3, 6, 6)", "(1, 6, 6)"]),
        ("table.csv", ["table", "image"]),
        ("nan.npz", ["NaN", "row 7"]),
        ("bare.npy", ["no labels"]),
        ("to-255.npz", ["[0, 1]", "x / 255"]),
        ("empty", ["no images"]),
        ("missing.npz", ["missing.npz"]),
    ],
)
def test_data_that_does_not_fit(refused: Callable[..., str], world: Path, name: str, says: list[str]) -> None:
    line = refused("attack", "fgsm", "--model", world / "victim", "--data", world / name, "--eps", 0.1, "--out", "run")
    for word in says:
        assert word in line


def test_built_in_data_of_another_shape(refused: Callable[..., str], world: Path) -> None:
    line = refused("attack", "fgsm", "--model", world / "victim", "--data", "digits", "--eps", 0.1, "--out", "run")
    assert "(1, 8, 8)" in line
    assert "give the data it was made for" in line


@pytest.mark.parametrize("text", ["abc", "1/0", "nan", ""])
def test_eps_that_is_no_number(misused: Callable[..., str], world: Path, text: str) -> None:
    said = misused("attack", "pgd", "--model", world / "victim", "--data", world / "two.npz", "--eps", text)
    assert f"'{text}' is not a number: write it like 0.03 or 8/255" in said


@pytest.mark.parametrize("text", ["0:0.3", "0:0.3:x", "0:0.3:1", "0:1:2:3", "::", "0:1:-5"])
def test_eps_that_is_no_range(misused: Callable[..., str], world: Path, text: str) -> None:
    said = misused("attack", "pgd", "--model", world / "victim", "--data", world / "two.npz", "--eps", text)
    assert f"'{text}' is not a range: write it like 0:0.3:16" in said


@pytest.mark.parametrize(
    ("text", "grid"),
    [
        ("0:0.3:4", [0, 0.1, 0.2, 0.3]),
        ("0:1/2:3", [0, 0.25, 0.5]),
        ("0.3,1/10,0.1", [0.1, 0.3]),
        ("0.4", [0.4]),
    ],
)
def test_a_curve(run: Callable[..., Any], world: Path, text: str, grid: list[float]) -> None:
    words = ("attack", "pgd", "--model", world / "victim", "--data", world / "two.npz", "--steps", 3, "--eps", text)
    found = run(*words, "--json").json
    assert [point["eps"] for point in found["curve"]] == grid  # exactly: 3 * 0.1 would not do
    assert found["eps"] == grid[-1]
    accuracies = [point["robust_accuracy"] for point in found["curve"]]
    assert accuracies == sorted(accuracies, reverse=True)
    assert accuracies[-1] == found["robust_accuracy"]
    said = run(*words).out
    assert ("robust accuracy against eps" in said) == (len(grid) > 1)
    assert "ok: " in said
    assert "mean first-success step" in said


def test_attacks_that_need_a_size_ask_for_it(refused: Callable[..., str], world: Path) -> None:
    line = refused("attack", "pgd", "--model", world / "victim", "--data", world / "two.npz", "--out", "run")
    assert "pgd needs the size of the change allowed: give --eps" in line


def test_attacks_for_the_smallest_change_need_no_size(
    run: Callable[..., Any], world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ATTACKS, "ddn", Entry("robustgen.attacks.ddn:DDN", "smallest change"))
    words = ("attack", "ddn", "--model", world / "victim", "--data", world / "two.npz", "--steps", 40)
    found = run(*words, "--json").json
    assert (found["norm"], found["eps"], found["success_rate"]) == ("l2", 6.0, 1.0)  # the diagonal of 36 pixels
    assert found["curve"][0] == {
        "eps": 0,
        "robust_accuracy": found["clean_accuracy"],
        "robust_accuracy_interval": found["clean_accuracy_interval"],
    }
    assert len(found["curve"]) == 17
    assert found["curve"][-2]["robust_accuracy"] == 0  # where the last of them fell
    ran = run(*words)
    assert "l2, any eps, 30 inputs" in " ".join(ran.out.split())
    assert run(*words, "--eps", 0.5, "--json").json["curve"][-1]["eps"] == 0.5


def test_passes_as_they_are_asked_for(
    run: Callable[..., Any], common: tuple[object, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = run("attack", "pgd", *common, "--steps", 3, "--no-random-start", "--json").json
    options = ("--eot", 2, "--precision", "bfloat16", "--mode", "max-loss", "--no-diagnose")
    monkeypatch.setattr(runtime, "has_bfloat16", lambda _: False)
    ran = run("attack", "pgd", *common, "--steps", 3, *options, "--json")
    assert "no bfloat16" in ran.err
    found = ran.json
    settings = found["configuration"]
    assert (settings["eot"], settings["precision"], settings["mode"]) == (2, "bfloat16", "max-loss")
    assert settings["compile"] is False
    assert found["backward_passes"] >= 2 * plain["backward_passes"]
    assert len(found["diagnosis"]) == 2 < len(plain["diagnosis"])


def test_rounding(run: Callable[..., Any], common: tuple[object, ...], tmp_path: Path) -> None:
    ran = run("attack", "pgd", *common, "--steps", 3, "--quantise", "uint8", "--out", "run", "--json")
    told = ran.json["quantise"]
    assert told["levels"] == 256
    assert told["success_after"] == ran.json["success_rate"] <= told["success_before"]
    with np.load(tmp_path / "run/adversarials.npz") as saved:
        assert saved["x"].dtype == np.float32
    assert "before rounding to 256 levels" in run("attack", "pgd", *common, "--quantise", "uint8").out


def test_classes_with_other_names_are_told(run: Callable[..., Any], world: Path) -> None:
    ran = run("attack", "fgsm", "--model", world / "victim", "--data", world / "photos", "--eps", 0.1, "--json")
    (warning,) = ran.json["warnings"]
    assert "classes 0, 1" in warning
    assert "=cmd, [red]cat" in warning
    assert f"warning: {warning}" in ran.err


def test_accuracy_near_chance_is_told_and_good_accuracy_is_not(run: Callable[..., Any], world: Path) -> None:
    victim = ("--model", world / "victim", "--eps", 0.1, "--json")
    (warning,) = run("attack", "fgsm", *victim, "--data", world / "one-class.npz").json["warnings"]
    assert "clean accuracy is 50.0%, near chance for 2 classes" in warning
    assert run("attack", "fgsm", *victim, "--data", world / "two.npz").json["warnings"] == []
