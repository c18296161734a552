"""`robustgen fit` and `robustgen detect`."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

Run = Callable[..., Any]


@pytest.mark.parametrize("name", ["pca", "k-means", "autoencoder"])
def test_fit_gives_a_calibrated_detector(run: Run, world: Path, tmp_path: Path, name: str) -> None:
    option = {"pca": "components=4", "k-means": "clusters=3", "autoencoder": "epochs=2"}[name]
    ran = run("fit", name, "--data", world / "two.npz", "--fpr", "1/10", "--param", option, "--out", "det", "--json")
    found = ran.json
    warned = [f"warning: self-test: {line}\n" for line in found["self_test"]["warnings"]]
    assert (ran.code, ran.err) == (0, "".join(warned))
    assert set(found) >= {"detector", "data", "n_train", "n_calibration", "fpr", "threshold"}
    assert (found["detector"], found["data"], found["fpr"]) == (name, "two.npz", 0.1)
    assert (found["n_train"], found["n_calibration"]) == (140, 30)
    assert found["options"][option.partition("=")[0]] == int(option.partition("=")[2])
    assert found == json.loads((tmp_path / "det/results.json").read_text())
    again = run("fit", name, "--data", world / "two.npz", "--fpr", 0.1, "--param", option, "--out", "again", "--quiet")
    assert again.code == 0
    assert again.err == ""
    row = next(line for line in again.out.splitlines() if "noise" in line)
    assert f"{found['self_test']['auroc']['noise']:.3f}" in row
    assert f"threshold  {found['threshold']:.6g}" in again.out


def test_auto_goes_by_the_data_and_what_is_saved_has_the_real_name(
    run: Run, refused: Callable[..., str], world: Path, tmp_path: Path
) -> None:
    ran = run("fit", "auto", "--data", world / "table.csv", "--fpr", "1/5", "--out", "table", "--param", "refit=false")
    assert ran.code == 0
    assert "fusion (by auto) on table.csv" in ran.out
    found = json.loads((tmp_path / "table/results.json").read_text())
    assert (found["detector"], found["options"]["refit"], found["options"]["seed"]) == ("fusion", False, 0)
    assert run("detect", "table", world / "table.csv").code in (0, 3)
    ran = run(
        "fit", "auto", "--data", world / "two.npz", "--out", "image", "--param", "epochs=1", "--seed", 3, "--json"
    )
    assert (ran.json["detector"], ran.json["options"]["seed"]) == ("autoencoder", 3)
    preset = ("--preset", "fast", "--param", "refit=false")
    ran = run("fit", "auto", "--data", world / "table.csv", "--fpr", "1/5", "--out", "short", *preset)
    assert ran.code == 0
    assert "fusion has no such option: it is left out" in ran.err
    says = refused("fit", "pca", "--data", world / "two.npz", "--out", "no", "--preset", "fast")
    assert "--preset is how long a detector trains, and pca has no such option: leave it out" in says
    says = refused("fit", "auto", "--data", world / "two.npz", "--out", "no", "--param", "members=pca")
    assert "unknown option of autoencoder 'members'" in says


def test_a_detector_of_pyod_by_name(run: Run, refused: Callable[..., str], world: Path, tmp_path: Path) -> None:
    pytest.importorskip("pyod")
    option = ("--param", "n_neighbors=3", "--param", "most=100")
    ran = run("fit", "pyod:knn", "--data", world / "table.csv", "--fpr", "1/5", "--out", "d", "--json", *option)
    assert (ran.code, ran.err) == (0, "")
    assert ran.json["options"]["arguments"] == '{"n_neighbors": 3}'
    assert ran.json["options"]["most"] == 100
    judged = run("detect", "d", world / "table.csv", "--json")
    assert judged.code in (0, 3)
    assert len(judged.out.splitlines()) == 200
    words = ("fit", "pyod:knn", "--data", world / "table.csv", "--out", "no", "--param")
    assert "did you mean 'n_neighbors'" in refused(*words, "n_neighbor=3")
    assert "most=3.5: a whole number is needed" in refused(*words, "most=3.5")
    assert "it compares" in refused("fit", "pyod:cof", "--data", world / "table.csv", "--out", "no")


def test_a_detector_of_art_by_name(run: Run, refused: Callable[..., str], world: Path, tmp_path: Path) -> None:
    pytest.importorskip("art")
    words = ("--data", world / "two.npz", "--model", world / "victim", "--fpr", "1/10")
    option = ("--param", "epochs=2", "--param", "eps=0.4", "--param", "arch=mlp")
    ran = run("fit", "art:binary-input", *words, "--out", "d", "--json", "--quiet", *option)
    assert (ran.code, ran.json["options"]["eps"]) == (0, 0.4)
    judged = run("detect", "d", world / "two.npz", "--json")
    assert judged.code in (0, 3)
    assert len(judged.out.splitlines()) == 200
    assert "unknown detector of ART 'binary-inputs'" in refused("fit", "art:binary-inputs", *words, "--out", "no")
    assert "did you mean 'epochs'" in refused("fit", "art:BinaryInput", *words, "--out", "no", "--param", "epoch=2")
    assert "self-supervised" in refused("fit", "art:beyond", *words, "--out", "no")
    assert "--model" in refused("fit", "art:BinaryInput", "--data", world / "two.npz", "--out", "no")


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("pac", [], ["unknown detector 'pac'", "did you mean 'pca'"]),
        ("pca", ["--fpr", "0"], ["strictly between 0 and 1", "0 came"]),
        ("pca", ["--fpr", "1"], ["strictly between 0 and 1", "1 came"]),
        ("pca", ["--fpr", "0.001"], ["0.001", "999 calibration inputs", "30 came"]),
        ("pca", ["--param", "componets=3"], ["'componets'", "did you mean 'components'"]),
        ("pca", ["--param", "components=abc"], ["components=abc", "a number"]),
        ("pca", ["--param", "components=0"], ["components", "0 came"]),
        ("pca", ["--param", "components=1000"], ["1000 components", "36"]),
        ("k-means", ["--param", "clusters=2.5"], ["clusters=2.5", "a whole number"]),
        ("k-means", ["--param", "seed=1"], ["'seed'"]),
        ("autoencoder", ["--param", "network=deep"], ["'deep'", "dense, convolutional"]),
        ("knn", ["--param", "method=modal"], ["method=modal", "one of mean, largest, median"]),
        ("fusion", ["--param", "members=knn k=0"], ["k=0"]),
        ("pca", ["--layer", "network"], ["--layer", "give --model too"]),
        ("pca", ["--weights", "w.pt", "--trust"], ["--weights and --trust", "give --model too"]),
        ("pca", ["--device", "cuda:77"], ["'cuda:77'"]),
    ],
)
def test_settings_of_fit_that_make_no_sense(
    refused: Callable[..., str], world: Path, name: str, options: list[str], says: list[str]
) -> None:
    line = refused("fit", name, "--data", world / "two.npz", "--out", "deep/detector", *options)
    for word in says:
        assert word in line


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ("nan.npz", "NaN"),
        ("few.npz", "at least 19 calibration inputs, but 2 came"),
        ("empty", "no images"),
        ("missing.csv", "missing.csv"),
        ("photos/=cmd/01.png", "no calibration inputs"),
    ],
)
def test_data_that_fit_cannot_use(refused: Callable[..., str], world: Path, data: str, says: str) -> None:
    assert says in refused("fit", "pca", "--data", world / data, "--out", "detector")


def test_fit_needs_no_labels(run: Run, world: Path) -> None:
    assert run("fit", "pca", "--data", world / "bare.npy", "--out", "a", "--quiet").code == 0
    assert run("fit", "pca", "--data", world / "one-class.npz", "--out", "b", "--quiet").code == 0


def test_detect_tells_apart_and_its_exit_code_says_so(run: Run, world: Path) -> None:
    normal = np.load(world / "bare.npy")
    np.save("foreign.npy", np.random.default_rng(5).random((4, 1, 6, 6), np.float32))
    np.save("calm.npy", np.tile(normal.mean(0, keepdims=True), (3, 1, 1, 1)))
    ran = run("detect", world / "detector", "foreign.npy", "--json")
    assert (ran.code, ran.err) == (3, "")
    lines = [json.loads(line) for line in ran.out.splitlines()]
    assert [line["input"] for line in lines] == ["0", "1", "2", "3"]
    for line in lines:
        assert list(line) == ["input", "score", "p_value", "flagged"]
        assert line["flagged"] is True
        assert line["p_value"] <= 0.05
    calm = run("detect", world / "detector", "calm.npy", "--json")
    assert calm.code == 0
    assert [json.loads(line)["flagged"] for line in calm.out.splitlines()] == [False] * 3
    people = run("detect", world / "detector", "foreign.npy", "--limit", 2)
    assert people.code == 3
    assert people.out.count("FLAGGED") == 2
    assert "2 of 2 inputs" in people.out


def test_detect_writes_all_rows(run: Run, world: Path, tmp_path: Path) -> None:
    words = ("detect", world / "detector", world / "two.npz")
    ran = run(*words, "--out", "new/scores.csv")
    assert ran.code in (0, 3)
    assert "200 inputs" in ran.out
    assert "all in new/scores.csv" in ran.out
    lines = [json.loads(line) for line in run(*words, "--json").out.splitlines()]
    with open("new/scores.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["input"], float(row["score"]), float(row["p_value"]), row["flagged"] == "1") for row in rows] == [
        (line["input"], line["score"], line["p_value"], line["flagged"]) for line in lines
    ]
    assert run(*words, "--out", "scores.jsonl", "--quiet").code == ran.code
    assert [json.loads(line) for line in Path("scores.jsonl").read_text().splitlines()] == lines
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new", "scores.jsonl"]


def test_another_rate_without_another_fit(run: Run, refused: Callable[..., str], world: Path) -> None:
    words = ("detect", world / "detector", world / "two.npz")
    counts = [
        sum(json.loads(line)["flagged"] for line in run(*words, "--fpr", rate, "--json").out.splitlines())
        for rate in ("0.05", "0.2", "1/2")
    ]
    assert counts[0] < counts[1] < counts[2]
    assert "999 calibration inputs, but 30 came" in refused(*words, "--fpr", "0.001")
    assert "strictly between 0 and 1" in refused(*words, "--fpr", "2")


@pytest.mark.parametrize(
    ("inputs", "says"),
    [
        ("colour.npz", ["(3, 6, 6)", "(1, 6, 6)"]),
        ("table.csv", ["table", "image"]),
        ("nan.npz", ["NaN"]),
        ("to-255.npz", ["[0, 1]"]),
        ("texts.npz", ["<U32"]),
        ("objects.npz", ["not read"]),
        ("empty", ["no images"]),
        ("missing.npy", ["missing.npy"]),
        ("photos/=cmd/damaged.png", ["damaged.png", "it is damaged"]),
    ],
)
def test_inputs_that_detect_cannot_use(refused: Callable[..., str], world: Path, inputs: str, says: list[str]) -> None:
    line = refused("detect", world / "detector", world / inputs, "--out", "deep/scores.csv")
    for word in says:
        assert word in line


def test_misspelt_data(refused: Callable[..., str], world: Path) -> None:
    assert "did you mean 'fashion-mnist'" in refused("detect", world / "detector", "fashion-mnis")


@pytest.mark.parametrize(
    ("out", "says"),
    [
        ("scores.txt", ["neither .csv nor .jsonl"]),
        ("there.csv", ["exists already", "--force"]),
        ("folder.csv", ["folder.csv"]),
    ],
)
def test_places_that_detect_does_not_write(refused: Callable[..., str], world: Path, out: str, says: list[str]) -> None:
    Path("there.csv").write_text("mine")
    Path("folder.csv").mkdir()
    line = refused("detect", world / "detector", world / "two.npz", "--out", out)
    for word in says:
        assert word in line
    assert Path("there.csv").read_text() == "mine"


def test_force_overwrites_a_file_but_no_folder(run: Run, refused: Callable[..., str], world: Path) -> None:
    words = ("detect", world / "detector", world / "two.npz", "--limit", 2, "--force")
    Path("there.csv").write_text("mine")
    Path("folder.csv").mkdir()
    assert run(*words, "--out", "there.csv").code == 0
    assert Path("there.csv").read_text().startswith("input,score,p_value,flagged")
    assert "is a folder" in refused(*words, "--out", "folder.csv")


def test_detectors_that_look_through_a_model(run: Run, refused: Callable[..., str], world: Path) -> None:
    data, code = world / "two.npz", f"{world}/models.py:net"
    assert run("fit", "pca", "--data", data, "--model", world / "victim", "--out", "kept", "--quiet").code == 0
    assert run("detect", "kept", data, "--quiet").code in (0, 3)  # the classifier is stored with it
    found = run("fit", "pca", "--data", data, "--model", code, "--out", "coded", "--json").json
    assert (found["model"], found["layer"]) == (code, "layer")
    line = refused("detect", "coded", data)
    assert "give the same --model" in line
    assert run("detect", "coded", data, "--model", code, "--quiet").code in (0, 3)
    assert "other weights" in refused("detect", "coded", data, "--model", f"{world}/models.py:ten_outputs")
    assert "leave out --model" in refused("detect", world / "detector", data, "--model", code)
    assert "give --model too" in refused("detect", world / "detector", data, "--weights", "w.pt")
    fit = ("fit", "pca", "--data", data, "--model", world / "victim", "--out", "x")
    assert "unknown layer 'network.layer'" in refused(*fit, "--layer", "network.layer")
    assert "is a detector, but a classifier" in refused(
        "fit", "pca", "--data", data, "--model", world / "detector", "--out", "x"
    )


def test_detectors_that_look_through_the_code_of_another(
    run: Run, refused: Callable[..., str], world: Path, tmp_path: Path
) -> None:
    data = world / "two.npz"
    found = run("fit", "k-means", "--data", data, "--features", world / "detector", "--out", "km", "--json").json
    assert (found["codes_of"], found["model"]) == ("pca", None)
    again = run("fit", "k-means", "--data", data, "--features", world / "detector", "--out", "again")
    assert "k-means on codes of pca on two.npz" in again.out
    assert run("detect", "km", data, "--quiet").code in (0, 3)  # the other detector is stored with it
    fit = ("fit", "pca", "--data", data, "--out", "x")
    assert "looks through the code of another" in refused(*fit, "--features", "km")
    assert "--model and --features" in refused(*fit, "--features", "km", "--model", world / "victim")
    assert "is a classifier, but a detector" in refused(*fit, "--features", world / "victim")


def test_a_vae_shows_its_raw_likelihood_beside_its_score(run: Run, world: Path) -> None:
    words = ("fit", "vae", "--data", world / "two.npz", "--param", "epochs=2", "--param", "likelihood=gaussian")
    ran = run(*words, "--out", "a")
    assert ran.code == 0
    assert "raw likelihood (-ELBO)" in ran.out
    assert "Nalisnick et al. 2019" in ran.out
    found = run(*words, "--out", "b", "--json").json["raw_likelihood"]
    assert set(found["raw"]) == set(found["score"]) == {"noise", "blank", "one shade", "blurred", "faint"}
    assert f"{found['raw']['noise']:.3f}" in ran.out


def test_a_conditional_detector_asks_the_classifier(run: Run, refused: Callable[..., str], world: Path) -> None:
    data, code = world / "two.npz", f"{world}/models.py:net"
    words = ("fit", "conditional-vae", "--data", data, "--param", "epochs=2", "--quiet")
    assert run(*words, "--model", world / "victim", "--out", "kept").code == 0
    kept = run("detect", "kept", data, "--json")  # the classifier is stored with it
    assert kept.code in (0, 3)
    assert run(*words, "--model", code, "--out", "coded").code == 0
    assert "give the same --model" in refused("detect", "coded", data)
    assert run("detect", "coded", data, "--model", code, "--quiet").code in (0, 3)
    assert "give the classifier with --model" in refused(*words, "--out", "x")
    assert "leave out --layer" in refused(*words, "--model", code, "--layer", "layer", "--out", "x")
    assert "needs one for each class" in refused(*words, "--model", f"{world}/models.py:ten_outputs", "--out", "x")
