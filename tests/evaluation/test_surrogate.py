"""Gradients put in the place of those that a score lacks, and attacks that were made on another guard."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from robustgen.calibration import Threshold
from robustgen.data.load import load
from robustgen.detectors.calibrated import CalibratedDetector
from robustgen.errors import DataError
from robustgen.evaluation.adaptive import evade, verdicts
from robustgen.evaluation.bundles import BUNDLES, Bundle
from robustgen.evaluation.guarded import CleanArrays, detection_rows
from robustgen.evaluation.imitation import imitate, with_gradient_of
from robustgen.evaluation.surrogate import soft_neighbours, straight_through, transfer
from robustgen.evaluation.threats import Plan, _knowing, _once
from robustgen.guard import Guard
from robustgen.models.build import build
from robustgen.threat import ThreatModel

THREAT = ThreatModel("linf", 0.2)
GRADIENTS = Bundle(40, ("random",), 1, None, 0, 0, 1, 0, 0, 1)


class Sides(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        lead = 10 * (x[:, 0] - 0.5)
        return torch.stack([-lead, lead], 1)


def smooth(x: Tensor, label: Tensor) -> Tensor:
    return (x[:, 1] - (0.2 + 0.6 * label)).abs()


def rounded(x: Tensor, label: Tensor) -> Tensor:
    return (smooth(x, label) * 100).round() / 100


@dataclass(frozen=True)
class Toy:
    rule: Callable[[Tensor, Tensor], Tensor] = rounded
    limit: float = 0.1
    fpr: float = 0.05
    differentiable: bool = False
    random: bool = False

    @property
    def classifier(self) -> nn.Module:
        return Sides()

    @property
    def threshold(self) -> Threshold:
        return Threshold(self.limit, self.fpr, 100)

    @property
    def calibration_scores(self) -> Any:
        return np.linspace(0, self.limit, 100)

    def score(self, x: Tensor, label: Tensor | None = None) -> Tensor:
        return self.rule(x, self.classifier(x).argmax(1) if label is None else label)

    def at(self, fpr: float) -> Toy:
        return replace(self, limit=self.limit * self.fpr / fpr, fpr=fpr)


def inputs(n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    y = torch.arange(n) % 2
    first = 0.5 + (2 * y - 1) * 0.1 * (0.01 + 0.99 * torch.rand(n, generator=generator))
    return torch.stack([first, torch.rand(n, generator=generator)], 1), y


def test_a_score_without_gradients_falls_to_gradients_of_its_imitation(generator: torch.Generator) -> None:
    x, y = inputs(60, generator)
    guard = Toy()
    learnt = imitate(guard, inputs(2000, generator)[0], THREAT, queries=6000, epochs=15)
    evasion = evade(guard, x, y, THREAT, bundle=GRADIENTS, score=with_gradient_of(guard.score, learnt))
    reachable = smooth(x, 1 - y) - THREAT.eps
    assert evasion.lost[reachable < 0.03].all()
    assert not evasion.lost[reachable > 0.11].any()
    blind = evade(replace(guard, differentiable=True), x, y, THREAT, bundle=GRADIENTS)
    assert blind.rate < evasion.rate


def test_evade_learns_the_stand_in_itself_and_says_so(generator: torch.Generator) -> None:
    x, y = inputs(60, generator)
    guard, pool = Toy(), inputs(2000, generator)[0]
    evasion = evade(guard, x, y, THREAT, bundle=GRADIENTS, pool=pool)
    reachable = smooth(x, 1 - y) - THREAT.eps
    assert evasion.surrogate
    assert evasion.lost[reachable < 0.03].all()
    assert not evasion.lost[reachable > 0.11].any()
    queries = replace(GRADIENTS, steps=0, queries=10)
    assert not evade(guard, x, y, THREAT, bundle=queries, pool=pool).surrogate  # nothing there follows gradients
    assert not evade(replace(guard, rule=smooth, differentiable=True), x, y, THREAT, bundle=GRADIENTS).surrogate
    assert not evade(guard, x, y, THREAT, bundle=GRADIENTS, score=smooth).surrogate


def test_rows_of_attacks_through_a_stand_in_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BUNDLES, "short", Bundle(2, ("clean",), 1, 0, 0, 0, 0, 5, 0, 1))
    source = load("digits")
    batch = next(iter(source.batches("test", 20)))
    assert batch.y is not None
    plan = Plan(eps=(0.1,), headline=0.1, bundle="short")
    network = build("mlp", source.spec.shape, 10, seed=0).eval()
    told = {}
    for name, options in (("isolation-forest", {"trees": 5}), ("pca", {})):
        guard = Guard(network, CalibratedDetector.fit(name, source, options=options))
        clean = CleanArrays(batch.y.numpy(), *_once(guard, batch.x), guard.calibration_scores)
        knowing = _knowing(guard, source.spec, batch.x, batch.y, plan, None, {}, lambda what, share: None)
        told[name] = {
            (row["threat"], row["attack"]): row.get("surrogate") for row in detection_rows(clean, knowing, 0.05)
        }
    assert told["isolation-forest"] == {("W", "short"): True, ("W", "short, 8 bit"): True, ("Q", "square"): None}
    assert set(told["pca"].values()) == {None}


def test_values_are_the_score_s_and_gradients_the_surrogate_s() -> None:
    x = torch.tensor([[0.3, 0.47]], requires_grad=True)
    label = torch.tensor([0])
    joined = with_gradient_of(rounded, smooth)(x, label)
    torch.testing.assert_close(joined, rounded(x, label))
    torch.testing.assert_close(torch.autograd.grad(joined.sum(), x)[0], torch.tensor([[0.0, 1.0]]))


def test_a_step_is_passed_straight_through() -> None:
    x = torch.tensor([[0.26, 0.74]], requires_grad=True)
    found = straight_through(lambda x: x.round())(x)
    torch.testing.assert_close(found, torch.tensor([[0.0, 1.0]]))
    torch.testing.assert_close(torch.autograd.grad((3 * found).sum(), x)[0], torch.full((1, 2), 3.0))


def test_soft_neighbours_come_near_the_nearest_distance() -> None:
    references = torch.tensor([[0.0, 0.0], [1.0, 1.0]])
    x = torch.tensor([[0.1, 0.0], [0.9, 1.0]])
    found = soft_neighbours(references, 1e-3)(x, torch.zeros(2, dtype=torch.int64))
    torch.testing.assert_close(found, torch.full((2,), 0.1), atol=1e-3, rtol=0)


def test_what_transfers_is_judged_by_the_guard_attacked(generator: torch.Generator) -> None:
    x, y = inputs(60, generator)
    own, other = Toy(smooth, differentiable=True), Toy(lambda x, label: smooth(x, label) + 0.02, differentiable=True)
    found = transfer(own, other, x, y, THREAT, bundle=GRADIENTS)
    wrong, accepted, score, _ = verdicts(other, found.x_adv, y)
    assert torch.equal(found.lost, wrong & accepted)
    torch.testing.assert_close(found.score, score)
    assert torch.equal(torch.stack(list(found.found.values())).any(0), found.lost)
    assert found.lost.any()
    white = evade(other, x, y, THREAT, bundle=GRADIENTS)
    assert found.rate <= white.rate
    assert not transfer(own, Toy(lambda x, label: 1 + 0 * x[:, 0]), x, y, THREAT, bundle=GRADIENTS).lost.any()


def test_nothing_can_be_learnt_from_nothing() -> None:
    with pytest.raises(DataError, match="none came"):
        imitate(Toy(), torch.zeros(0, 2), THREAT)
