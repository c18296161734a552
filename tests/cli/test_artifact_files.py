"""Artifacts that were damaged, changed, written by a newer version, or are something else; and `robustgen show`."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from robustgen.artifacts import digest, to_json

Refused = Callable[..., str]


def commands(world: Path, artifact: Path, kind: str) -> list[tuple[object, ...]]:
    """All that read such an artifact."""
    two = world / "two.npz"
    if kind == "victim":
        return [
            ("attack", "fgsm", "--model", artifact, "--data", two, "--eps", 0.1, "--out", "run"),
            ("fit", "pca", "--model", artifact, "--data", two, "--out", "run"),
        ]
    return [("detect", artifact, two, "--out", "scores.csv")]


def rewritten(world: Path, kind: str, change: Callable[[dict[str, Any]], object]) -> Path:
    """A copy whose manifest was changed with its hash made to fit, as someone could who means it."""
    copy = Path("copy")
    shutil.copytree(world / kind, copy)
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest.pop("sha256")
    change(manifest)
    (copy / "manifest.json").write_text(to_json({**manifest, "sha256": digest(to_json(manifest).encode())}))
    return copy


@pytest.mark.parametrize("kind", ["victim", "detector"])
@pytest.mark.parametrize("name", ["manifest.json", "tensors.safetensors"])
@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "gone"])
def test_damage_is_seen(refused: Refused, world: Path, kind: str, name: str, damage: str) -> None:
    copy = Path("copy")
    shutil.copytree(world / kind, copy)
    data = bytearray((copy / name).read_bytes())
    data[len(data) // 2] ^= 4
    (copy / name).write_bytes({"flip": data, "cut": data[: len(data) // 3], "empty": b"", "gone": b""}[damage])
    if damage == "gone":
        (copy / name).unlink()
    for command in commands(world, copy, kind):
        line = refused(*command)
        assert "copy" in line
        assert "manifest.json" in line if (name, damage) == ("manifest.json", "gone") else "it is damaged" in line
    refused("show", copy)


@pytest.mark.parametrize("kind", ["victim", "detector"])
def test_a_newer_format_says_what_to_do(refused: Refused, world: Path, kind: str) -> None:
    copy = rewritten(world, kind, lambda manifest: manifest.update(format=99))
    for command in [*commands(world, copy, kind), ("show", copy)]:
        line = refused(*command)
        assert "format 99" in line
        assert "upgrade robustgen" in line


@pytest.mark.parametrize(
    ("kind", "change", "says"),
    [
        ("victim", lambda m: m["config"].update(arch="nothing"), "unknown architecture 'nothing'"),
        ("victim", lambda m: m["config"].update(shape=[1, 7, 7]), "do not fit the network"),
        ("victim", lambda m: m["config"].pop("arch"), "make it again"),
        ("victim", lambda m: m["config"].pop("data"), "make it again"),
        ("victim", lambda m: m["config"].update(data={"colour": "red"}), "make it again"),
        ("victim", lambda m: m.update(config=[]), "make it again"),
        ("detector", lambda m: m["config"].update(detector="nothing"), "unknown detector 'nothing'"),
        ("detector", lambda m: m["config"].update(options={"nothing": 1}), "no option 'nothing'"),
        ("detector", lambda m: m["config"].update(threshold=3), "fit it again"),
        ("detector", lambda m: m["config"].update(data=None), "fit it again"),
        ("detector", lambda m: m["config"].pop("n_train"), "fit it again"),
        ("detector", lambda m: m.update(config=[]), "fit it again"),
    ],
)
def test_a_manifest_that_was_written_by_hand(
    refused: Refused, world: Path, kind: str, change: Callable[[dict[str, Any]], object], says: str
) -> None:
    copy = rewritten(world, kind, change)
    assert says in refused(*commands(world, copy, kind)[0])


def test_another_kind_of_thing(refused: Refused, world: Path) -> None:
    two = world / "two.npz"
    assert "is a classifier, but a detector is needed" in refused("detect", world / "victim", two)
    assert "holds no manifest.json" in refused("detect", world / "results", two)
    assert "holds no manifest.json" in refused("detect", world / "photos", two)
    assert "there is nothing there" in refused("detect", "nowhere", two)
    assert "holds no manifest.json" in refused("detect", two, two)


@pytest.mark.parametrize(
    ("name", "kind", "has"),
    [
        ("victim", "classifier", ["config.arch", "mlp", "clean_accuracy"]),
        ("detector", "detector", ["config.detector", "pca", "config.threshold.fpr"]),
        ("results", "results", ["robust_accuracy", "configuration.threat.norm"]),
    ],
)
def test_show(run: Callable[..., Any], world: Path, name: str, kind: str, has: list[str]) -> None:
    ran = run("show", world / name)
    assert (ran.code, ran.err) == (0, "")
    for word in [kind, *has]:
        assert word in ran.out
    found = run("show", world / name, "--json")
    assert (found.code, found.json["kind"]) == (0, kind)


def test_show_of_something_else(refused: Refused, misused: Refused, world: Path, tmp_path: Path) -> None:
    assert "not something robustgen made" in refused("show", world / "photos")
    assert "nothing there" in refused("show", "nowhere")
    assert "not something robustgen made" in refused("show", world / "two.npz")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/results.json").write_text("{")
    assert "cannot be read as JSON" in refused("show", "broken")
    assert "ARTIFACT" in misused("show")
