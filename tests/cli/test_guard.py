"""`robustgen guard`, `robustgen detect --guard` and `robustgen export`."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

from robustgen.guard import Guard

Run = Callable[..., Any]
VERDICTS = {"normal", "seen", "near", "seen+near"}


@pytest.fixture
def parts(run: Run, world: Path, tmp_path: Path) -> list[str]:
    """A classifier and two detectors in the current folder, as options of `guard`."""
    data = ("--data", world / "two.npz")
    assert run("train", *data, "--arch", "mlp", "--epochs", 2, "--out", "vic", "--quiet").code == 0
    assert run("fit", "pca", *data, "--out", "pca", "--quiet").code == 0
    assert run("fit", "k-means", *data, "--model", "vic", "--out", "seen", "--quiet").code == 0
    return ["--detector", "near=pca", "--detector", "seen=seen"]


def test_a_guard_classifies_or_rejects(run: Run, world: Path, tmp_path: Path, parts: list[str]) -> None:
    ran = run("guard", "--model", "vic", "--data", world / "two.npz", "--fpr", "1/10", *parts, "--out", "g", "--json")
    assert (ran.code, ran.err) == (0, "")
    assert (ran.json["detector"], ran.json["fpr"], ran.json["n_calibration"]) == ("pca|k-means", 0.1, 15)
    assert ran.json == json.loads((tmp_path / "g/results.json").read_text())
    for given in (("detect", "g", world / "two.npz"), ("detect", "--guard", "g", world / "two.npz")):
        ran = run(*given, "--limit", 20, "--out", "rows.csv", "--force")
        assert ran.code in (0, 3)
        assert "class" in ran.out
        rows = list(csv.DictReader((tmp_path / "rows.csv").read_text().splitlines()))
        assert len(rows) == 20
        assert {row["verdict"] for row in rows} <= VERDICTS
        assert {row["label"] for row in rows} <= {"0", "1"}
        assert [int(row["flagged"]) for row in rows] == [row["verdict"] != "normal" for row in rows]
    ran = run("detect", "g", world / "two.npz", "--limit", 20, "--fpr", 0.5)
    assert ran.code == 3
    assert not {"NEAR", "SEEN"} & set(ran.out.replace("+", " ").split())  # channels are named as they are
    ran = run("detect", "g", world / "two.npz", "--limit", 3, "--json", "--explain", "why", "--explain-all")
    lines = [json.loads(line) for line in ran.out.splitlines()]
    assert [set(line["channels"]) for line in lines] == [{"near", "seen"}] * 3
    assert all("heat_map" in line["explanation"] for line in lines)
    assert run("show", "g").code == 0


def test_the_default_guard_is_fitted_and_goes_on_where_it_stopped(
    run: Run, world: Path, tmp_path: Path, parts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from robustgen.detectors.calibrated import CalibratedDetector
    from robustgen.guard import default
    from robustgen.guard.default import Wanted

    wanted = {"near": [Wanted("pca", {}, 1.0)], "seen": [Wanted("k-means", {"clusters": 3}, 1.0)]}
    monkeypatch.setattr(default, "members", lambda *_: wanted)
    monkeypatch.setattr(default, "SHARES", {"near": 0.2, "seen": 0.8})
    whole, fitted = CalibratedDetector.fit, list[str]()

    def fit(name: str, *rest: Any, **options: Any) -> CalibratedDetector:
        if name == "k-means" and len(fitted) == 1:
            fitted.append("stopped")
            raise KeyboardInterrupt
        fitted.append(name)
        return whole(name, *rest, **options)

    monkeypatch.setattr(CalibratedDetector, "fit", fit)
    command = ("guard", "--model", "vic", "--data", world / "two.npz", "--fpr", "1/10", "--out", "g", "--quiet")
    assert run(*command).code != 0
    assert run(*command).code == 0
    assert fitted == ["pca", "stopped", "k-means"]
    assert Guard.load(tmp_path / "g").shares == pytest.approx({"near": 0.2, "seen": 0.8})
    assert sorted(path.name for path in (tmp_path / "g").iterdir()) == [
        "manifest.json", "members", "results.json", "tensors.safetensors",
    ]  # fmt: skip


def test_what_is_wrong_is_said(
    run: Run, refused: Callable[..., str], world: Path, tmp_path: Path, parts: list[str]
) -> None:
    guard = ("guard", "--model", "vic", "--data", world / "two.npz", "--out", "no")
    assert "nothing there" in refused(*guard, "--detector", "nowhere")
    assert "did you mean 'fisher'" in refused(*guard, *parts, "--within", "fischer")
    assert "a channel is named" in refused(*guard, "--detector", "a-b=pca")
    assert "needs at least" in refused(*guard, *parts, "--fpr", 0.01)
    assert "written CHANNEL=PART" in refused(*guard, *parts, "--share", "seen:3")
    assert "every channel" in refused(*guard, *parts, "--share", "seen=3")
    assert "every channel" in refused(*guard, "--share", "seen=3")  # the default guard's, before it is fitted
    assert "leave it out beside --detector" in refused(*guard, *parts, "--preset", "bogus")
    assert "did you mean 'fast'" in refused(*guard, "--preset", "fasst")
    assert "an argument is missing" in refused("detect", "pca")
    assert "is a detector, but a guard is needed" in refused("detect", "--guard", "pca", world / "two.npz")
    assert "leave out the detector" in refused("detect", "--guard", "g", "pca", world / "two.npz")
    assert not (tmp_path / "no").exists()


@pytest.mark.slow
def test_a_guard_is_exported(
    run: Run, refused: Callable[..., str], world: Path, tmp_path: Path, parts: list[str]
) -> None:
    """In a process of its own: the shape checks of the tests fix the number of inputs in the exported program."""
    two = world / "two.npz"
    assert run("guard", "--model", "vic", "--data", two, "--fpr", "1/10", *parts, "--out", "g", "--quiet").code == 0
    command = [sys.executable, "-c", "from robustgen_cli.main import main; main()", "export", "g", "--data", str(two)]
    path = os.pathsep.join(filter(None, sys.path))
    for form in ("pt2", "onnx") if find_spec("onnxruntime") and find_spec("onnxscript") else ("pt2",):
        ran = subprocess.run(
            [*command, "--out", f"g.{form}", "--json"],
            env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert (ran.returncode, ran.stderr) == (0, "")
        assert json.loads(ran.stdout)["decisions"] == 0
    program, guard = torch.export.load(tmp_path / "g.pt2").module(), Guard.load(tmp_path / "g")
    x = torch.rand(7, *guard.spec.shape, generator=torch.Generator().manual_seed(0))
    for n in (1, 7):  # any number of inputs
        torch.testing.assert_close(program(x[:n])[1], guard(x[:n]).score)
    assert "exists already" in refused("export", "g", "--data", two, "--out", "g.pt2")
    assert "does not end in" in refused("export", "g", "--data", two, "--out", "g.txt")
