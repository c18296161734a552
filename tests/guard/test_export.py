"""Exported guards decide as the guard does, or are not kept."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from robustgen.data.load import load
from robustgen.detectors.calibrated import CalibratedDetector
from robustgen.errors import RobustgenError, UsageError
from robustgen.guard import Guard, GuardOutput
from robustgen.guard.export import compare, export
from robustgen.models.build import build


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


def test_a_program_that_does_something_else_is_not_kept(
    guard: Guard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import robustgen.guard.export as module

    monkeypatch.setattr(module, "_exported", lambda _, x: torch.export.export(Flipped(guard), (x[:2],)))
    with pytest.raises(RobustgenError, match="does not do what the guard does"):
        export(guard, tmp_path / "guard.pt2", torch.rand(2, 1, 8, 8))
    assert not list(tmp_path.iterdir())


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
