"""A guard as one ordinary classifier."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from robustgen.attacks.apgd import APGDDLR
from robustgen.attacks.pgd import PGD
from robustgen.evaluation.reject_class import RejectClass
from robustgen.objectives import Evade, Misclassify, Rejection, dlr, margin, with_reject_class
from robustgen.threat import ThreatModel


class Linear(nn.Module):
    """Three classes of inputs of four values; the score is the distance of the last value from 0.3."""

    def __init__(self, threshold: float = 0.1) -> None:
        super().__init__()
        self.classifier = nn.Linear(4, 3)
        with torch.no_grad():
            self.classifier.weight.copy_(torch.tensor([[6.0, 0, 0, 1], [0, 6, 0, 0], [0, 0, 6, -4]]))
            self.classifier.bias.fill_(-9.0)
        self.threshold: Any = SimpleNamespace(value=threshold)
        self.calibration_scores = np.linspace(0, 0.2, 41)
        self.differentiable, self.random = True, False

    def score(self, x: Tensor, label: Tensor | None = None) -> Tensor:
        return (x[:, 3] - 0.3).abs()


@pytest.fixture
def points(generator: torch.Generator) -> Tensor:
    return torch.rand(400, 4, generator=generator)


def test_the_last_class_is_predicted_exactly_where_the_guard_rejects(points: Tensor) -> None:
    guard = Linear()
    for value in (0.1, float(guard.score(points)[7])):  # the second: a score exactly at the threshold is accepted
        guard.threshold = SimpleNamespace(value=value)
        joined, label = RejectClass(guard), guard.classifier(points).argmax(1)
        rejected = guard.score(points).double() > value
        logits = joined(points)
        assert logits.shape == (400, 4)
        assert torch.equal(logits.argmax(1), torch.where(rejected, 3, label))
        assert torch.equal(joined.passed(points, torch.zeros_like(label)), (label != 0) & ~rejected)
        assert 0 < int(rejected.sum()) < 400


def test_the_last_logit_is_exact_at_the_edge_and_where_a_score_is_no_number() -> None:
    logits = torch.tensor([[-5.0, 3.0, 2.0]]).repeat(6, 1)
    excess = torch.tensor([0.5, 1e-12, 0.0, -1e-12, math.nan, math.inf], dtype=torch.float64)
    joined = with_reject_class(logits, excess)
    assert joined[0].tolist() == [1.0, 9.0, 8.0, 13.5]
    assert (joined.argmax(1) == 3).tolist() == [True, True, False, False, True, True]
    assert joined.isfinite().all()


def test_its_gradient_is_that_of_logits_and_score_together(points: Tensor) -> None:
    """By finite differences; and the way of an adaptive attack towards a class climbs that margin."""
    guard = Linear().double()
    joined, x = RejectClass(guard), points[:40].double().requires_grad_()
    target = torch.full((40,), 1)
    lead = -margin(joined(x), target)
    slope = torch.autograd.grad(lead.sum(), x)[0]
    step = 1e-6 * torch.eye(4, dtype=torch.float64)
    with torch.no_grad():
        for value in range(4):
            up, down = (-margin(joined(x + sign * step[value]), target) for sign in (1, -1))
            torch.testing.assert_close((up - down) / 2e-6, slope[:, value], atol=1e-6, rtol=1e-6)
    rejection = Rejection(guard.score, 0.1, joined.rejection.scale)
    label = torch.zeros(40, dtype=torch.int64)
    pair = torch.stack([label, target], 1)
    worth, _ = Evade(rejection, "reject-class")(guard.classifier, x, pair)
    torch.testing.assert_close(torch.autograd.grad(worth.sum(), x)[0], slope)
    wrong, _ = Evade(rejection, "reject-class")(guard.classifier, x, label)
    every = joined(x)
    lead = every[:, 1:3].amax(1) - every[:, [0, 3]].amax(1)
    torch.testing.assert_close(torch.autograd.grad(wrong.sum(), x)[0], torch.autograd.grad(lead.sum(), x)[0])


def accepted(points: Tensor) -> tuple[RejectClass, Tensor, Tensor, Tensor]:
    """A guard as one network, inputs that it accepts, their labels, and the classes that come next."""
    guard = Linear()
    x = points[guard.score(points) <= 0.1]
    best = guard.classifier(x).topk(2).indices
    return RejectClass(guard), x, best[:, 0], best[:, 1]


@pytest.mark.parametrize(
    "attack",
    [
        PGD(threat=ThreatModel("linf", 0.3), objective=Misclassify(margin, True), steps=40, step_size=0.02),
        APGDDLR(threat=ThreatModel("l2", 0.6), objective=Misclassify(dlr, True), steps=40),
    ],
)
def test_ordinary_attacks_pass_a_guard_through_it(attack: Any, points: Tensor) -> None:
    """Towards the next class they find what the guard lets through; on the classifier alone they do not look for it."""
    joined, x, y, wrong = accepted(points)
    through, blind = (
        joined.passed(attack(network, x, wrong), y).double().mean() for network in (joined, joined.guard.classifier)
    )
    assert through > blind + 0.1


def test_art_attacks_a_guard_through_it(points: Tensor) -> None:
    pytest.importorskip("art")
    from art.attacks.evasion import ProjectedGradientDescent

    from robustgen.attacks.art import art_classifier

    joined, x, y, wrong = accepted(points)
    found = []
    for network, classes in ((joined, 4), (joined.guard.classifier, 3)):
        estimator = art_classifier(network, (4,), classes)
        attack = ProjectedGradientDescent(estimator, eps=0.3, eps_step=0.02, max_iter=40, targeted=True, verbose=False)
        moved = torch.from_numpy(attack.generate(x.numpy(), wrong.numpy()))
        found.append(float(joined.passed(moved, y).double().mean()))
    assert found[0] > found[1] + 0.1
