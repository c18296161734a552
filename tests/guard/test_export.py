"""Exported guards decide as the guard does, or are not kept."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

from robustgen.data.load import load
from robustgen.detectors.calibrated import CalibratedDetector
from robustgen.errors import RobustgenError, UsageError
from robustgen.guard import Guard, GuardOutput
from robustgen.guard.export import Parity, _rounding, compare, export
from robustgen.models.build import build
from robustgen.models.load import LoadedModel


@pytest.fixture(scope="module")
def guard() -> Guard:
    digits, network = load("digits"), build("mlp", (1, 8, 8), 10, seed=0).eval()
    made = [CalibratedDetector.fit(name, digits) for name in ("pca", "k-means")]
    return Guard.fit(network, {"perturbed": made[:1], "adversarial": made[1:]}, digits)


def test_differences_are_seen() -> None:
    logits, score = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([1.0, 9.0])
    own = GuardOutput(logits, score, torch.tensor([True, False]))
    same = compare(own, own)
    assert (same.logits, same.score, same.decisions, same.holds) == (0.0, 0.0, 0, True)
    other = compare(own, GuardOutput(logits, score + torch.tensor([0.0, 1.0]), torch.tensor([True, True])))
    assert other.score == pytest.approx(0.1)
    assert (other.decisions, other.holds) == (1, False)


@pytest.mark.parametrize(
    ("score", "rounding", "holds"),
    [(9e-4, 0.0, True), (2e-3, 0.0, False), (2e-3, 1e-3, True), (2e-3, 4e-4, False), (2e-2, 1.0, False)],
)
def test_a_score_may_differ_by_what_rounding_does_to_the_guard_itself(
    score: float, rounding: float, holds: bool
) -> None:
    assert Parity(10, 1e-6, score, 0, rounding).holds is holds
    assert not Parity(10, 2e-3, 0.0, 0, rounding).holds  # of logits nothing more
    assert not Parity(10, 0.0, 0.0, 1, rounding).holds


@pytest.mark.parametrize(("offset", "low", "high"), [(0.0, 0.0, 1e-6), (1e5, 1e-4, 1e-2)])
def test_the_rounding_of_a_score_is_what_double_precision_changes(offset: float, low: float, high: float) -> None:
    class Summed(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> GuardOutput:
            score = (x.flatten(1).sum(1) + offset) - offset
            return GuardOutput(x.flatten(1), score, score < 1)

    x = torch.rand(40, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    made: Any = Summed()
    assert low <= _rounding(made, x, made(x)) <= high


@pytest.mark.parametrize("form", ["onnx", "pt2"])
@pytest.mark.parametrize(
    ("name", "options"),
    [("autoencoder", {"scores": "gms+edges", "epochs": 1}), ("k-means", {"per_class": True})],
)
def test_small_numbers_and_choices_by_class_survive(
    name: str, options: dict[str, Any], form: str, tmp_path: Path
) -> None:
    """Slopes of flat pixels lie under two square roots: 1e-8 added there is not nothing."""
    digits, network = load("digits"), build("mlp", (1, 8, 8), 10, seed=0).eval()
    model = LoadedModel(network, "mlp", "0" * 64) if "per_class" in options else None
    guard = Guard(model or network, CalibratedDetector.fit(name, digits, options=options, model=model))
    flat = (digits.read(digits.rows("test")[:20]).x > 0.5).float()
    assert export(guard, tmp_path / f"guard.{form}", flat).holds


def test_a_program_that_does_something_else_is_not_kept(
    guard: Guard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import robustgen.guard.export as module

    monkeypatch.setattr(module, "_exported", lambda _, x: torch.export.export(Flipped(guard), (x[:2],)))
    with pytest.raises(RobustgenError, match="does not do what the guard does"):
        export(guard, tmp_path / "guard.pt2", torch.rand(2, 1, 8, 8))
    assert not list(tmp_path.iterdir())


def test_the_file_is_compared_and_not_the_program_in_memory(
    guard: Guard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save, other = torch.export.save, torch.export.export(Flipped(guard), (torch.rand(2, 1, 8, 8),))
    monkeypatch.setattr(torch.export, "save", lambda _, path: save(other, path))
    with pytest.raises(RobustgenError, match="does not do what the guard does"):
        export(guard, tmp_path / "guard.pt2", torch.rand(2, 1, 8, 8))


@pytest.mark.skipif(not find_spec("onnxruntime") or not find_spec("onnxscript"), reason="needs robustgen[onnx]")
def test_inputs_and_outputs_have_names(
    guard: Guard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    import onnxruntime

    severity, make = list[int](), onnxruntime.InferenceSession

    def session(path: str, options: Any, **others: Any) -> Any:
        severity.append(options.log_severity_level)
        return make(path, options, **others)

    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    export(guard, tmp_path / "guard.onnx", torch.rand(2, 1, 8, 8))
    assert severity == [3]
    assert capfd.readouterr().err == ""
    read = make(str(tmp_path / "guard.onnx"))
    assert [one.name for one in read.get_inputs()] == ["x"]
    assert [one.name for one in read.get_outputs()] == ["logits", "score", "accepted"]


class Flipped(torch.nn.Module):
    def __init__(self, guard: Guard) -> None:
        super().__init__()
        self.guard = guard

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        logits, score, accepted = self.guard(x)
        return logits, score, ~accepted


def test_what_cannot_be_exported_is_refused(guard: Guard, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"ends in|does not end in"):
        export(guard, tmp_path / "guard.txt", torch.rand(2, 1, 8, 8))
    with pytest.raises(UsageError, match="two inputs"):
        export(guard, tmp_path / "guard.pt2", torch.rand(1, 1, 8, 8))
    forest = Guard(guard.classifier, CalibratedDetector.fit("isolation-forest", load("digits")))
    with pytest.raises(UsageError, match="isolation-forest cannot be written"):
        export(forest, tmp_path / "guard.pt2", torch.rand(2, 1, 8, 8))


EVERY_MEMBER = """
import sys
from pathlib import Path
import torch
from robustgen.data.load import load
from robustgen.detectors.calibrated import CalibratedDetector
from robustgen.guard import Guard
from robustgen.guard.default import members, needs_model
from robustgen.guard.export import export
from robustgen.training.classifier import train
from robustgen.training.descent import Recipe

digits, folder = load("digits"), Path(sys.argv[1])
model = train(digits, recipe=Recipe(epochs=1)).model
quick = {"magnet": {"epochs": 1}, "gat": {"steps": 5}}
parts = {
    channel: [
        CalibratedDetector.fit(
            one.name,
            digits,
            options=one.options | quick.get(one.name, {}),
            model=model if needs_model(one.name) else None,
        )
        for one in some
    ]
    for channel, some in members(digits.spec, "fast").items()
}
guard = Guard.fit(model, parts, digits)
x = digits.read(digits.rows("test")[:20]).x
assert export(guard, folder / "guard.pt2", x).holds
program = torch.export.load(folder / "guard.pt2").module()
for n in (1, 7):
    torch.testing.assert_close(program(x[:n])[1], guard(x[:n]).score)
others = ("deep-mahalanobis", "deep-knn", "kernel-density", "lid", "denoise-consistency")
for name in others:
    options = {"epochs": 1} if name == "denoise-consistency" else {}
    alone = Guard(model, CalibratedDetector.fit(name, digits, options=options, model=model))
    assert export(alone, folder / f"{name}.pt2", x).holds, name
"""


@pytest.mark.slow
def test_the_default_guard_and_what_watches_a_classifier_become_programs(tmp_path: Path) -> None:
    """In a process of its own: the shape checks of the tests fix the number of inputs in the exported program."""
    ran = subprocess.run(
        [sys.executable, "-c", EVERY_MEMBER, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ran.returncode, ran.stderr) == (0, "")
