"""`robustgen detect --update`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from robustgen.artifacts import read_artifact
from robustgen.data.load import load
from robustgen.detectors.calibrated import CalibratedDetector

Run = Callable[..., Any]


@pytest.fixture
def counting(run: Run, world: Path) -> Path:
    """A detector that counts, in the folder `det`."""
    found = run("fit", "simhash", "--data", world / "two.npz", "--param", "network=none", "--out", "det", "--json")
    assert found.json["facts"]["seen"] == 140
    assert 0 <= found.json["facts"]["unseen"] <= 1
    return Path("det")


def test_a_stream_is_scored_and_then_counted(run: Run, counting: Path) -> None:
    """Of inputs that are all alike, those of the first batch are new, and the later ones less and less."""
    np.save("odd.npy", np.tile(np.random.default_rng(0).random((1, 1, 6, 6), np.float32), (30, 1, 1, 1)))
    still = [json.loads(line)["score"] for line in run("detect", counting, "odd.npy", "--json").out.splitlines()]
    assert len(set(still)) == 1
    (counting / "notes.txt").write_text("mine")
    ran = run("detect", counting, "odd.npy", "--update", "--batch-size", 10, "--json")
    scores = [json.loads(line)["score"] for line in ran.out.splitlines()]
    assert scores[:10] == still[:10]
    assert len(set(scores[10:20])) == len(set(scores[20:])) == 1
    assert scores[0] > scores[10] > scores[20]
    again = CalibratedDetector.load(counting)
    assert again.summary()["facts"]["seen"] == 170
    assert json.loads((counting / "results.json").read_text())["facts"]["seen"] == 170
    assert (counting / "notes.txt").read_text() == "mine"
    last = [json.loads(line)["score"] for line in run("detect", counting, "odd.npy", "--json").out.splitlines()]
    assert last[0] < scores[20]


def test_another_rate_for_once_is_not_kept(run: Run, world: Path, counting: Path) -> None:
    before = read_artifact(counting).config["threshold"]
    assert run("detect", counting, world / "two.npz", "--update", "--fpr", 0.3, "--quiet").code in (0, 3)
    assert read_artifact(counting).config["threshold"] == before
    assert CalibratedDetector.load(counting).summary()["facts"]["seen"] == 340


def test_nothing_is_counted_without_being_asked_or_when_it_fails(
    run: Run, refused: Callable[..., str], world: Path, counting: Path
) -> None:
    before = read_artifact(counting).sha256
    assert run("detect", counting, world / "two.npz", "--quiet").code in (0, 3)
    refused("detect", counting, world / "nan.npz", "--update")
    assert read_artifact(counting).sha256 == before
    line = refused("detect", world / "detector", world / "two.npz", "--update")
    assert "pca takes in nothing after its fit: use simhash" in line


def test_two_runs_do_not_overwrite_each_other(
    run: Run, refused: Callable[..., str], world: Path, counting: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from robustgen.evaluation import detection

    real = detection.write_back
    other = CalibratedDetector.load(counting)

    def late(detector: Any, path: Path, sha256: str) -> None:
        real(other, path, sha256)
        other.update(next(iter(load(str(world / "two.npz")).batches("test", 5))).x)
        real(other, path, read_artifact(path).sha256)
        real(detector, path, sha256)

    monkeypatch.setattr(detection, "write_back", late)
    ran = run("detect", counting, world / "two.npz", "--update")
    assert ran.code == 2
    assert "was changed by another run since it was read" in ran.err
    assert CalibratedDetector.load(counting).summary()["facts"]["seen"] == 145


def test_counts_of_codes_go_on_too(run: Run, world: Path) -> None:
    data = world / "two.npz"
    words = ("fit", "simhash", "--data", data, "--features", world / "detector", "--param", "network=none")
    assert run(*words, "--out", "on", "--quiet").code == 0
    assert run("detect", "on", data, "--update", "--limit", 7, "--quiet").code in (0, 3)
    found = CalibratedDetector.load(Path("on")).summary()
    assert (found["codes_of"], found["facts"]["seen"]) == ("pca", 147)
