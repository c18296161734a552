"""Attackers who know the detector: they find what there is, and nothing where there is nothing."""

from __future__ import annotations

from typing import Any, get_args

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from robustgen.attacks.pgd import PGD
from robustgen.calibration import Threshold
from robustgen.data.source import DataSpec
from robustgen.detectors.calibrated import CalibratedDetector
from robustgen.detectors.making import make
from robustgen.errors import UsageError
from robustgen.evaluation.adaptive import WAYS, adaptive, evade, judged_against
from robustgen.objectives import Evade, Way
from robustgen.threat import ThreatModel

THREAT = ThreatModel("linf", 0.2)


class Sides(nn.Module):
    """Class 1 where the first value is above a half; the logits know nothing of the second."""

    def forward(self, x: Tensor) -> Tensor:
        lead = 10 * (x[:, 0] - 0.5)
        return torch.stack([-lead, lead], 1)


def second(x: Tensor, label: Tensor) -> Tensor:
    """A score that is the distance of the second value from the label's place: 0.2 for class 0, 0.8 for class 1."""
    return (x[:, 1] - (0.2 + 0.6 * label)).abs()


def near_the_border(n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Inputs of both classes at most 0.1 from the border, their second values uniform."""
    y = torch.arange(n) % 2
    first = 0.5 + (2 * y - 1) * 0.1 * (0.01 + 0.99 * torch.rand(n, generator=generator))
    return torch.stack([first, torch.rand(n, generator=generator)], 1), y


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("targeted", [False, True])
def test_an_input_is_lost_exactly_where_a_legal_point_is_accepted_as_the_other_class(
    way: str, targeted: bool, generator: torch.Generator
) -> None:
    """The first value can always cross the border; then the score of the other class decides, which an attacker can
    lower by eps: in closed form.
    """
    x, y = near_the_border(200, generator)
    objective = Evade(second, 0.1, targeted=targeted, **WAYS[way])
    attack = PGD(threat=THREAT, objective=objective, steps=60, step_size=0.01)
    result = attack.run(Sides(), x, 1 - y if targeted else y)
    reachable = second(x, 1 - y) - THREAT.eps
    assert result.success[reachable < 0.08].all()
    assert not result.success[reachable > 0.1].any()
    lost = result.success
    assert torch.equal(Sides()(result.x_adv[lost]).argmax(1), 1 - y[lost])
    assert (second(result.x_adv[lost], 1 - y[lost]) <= 0.1).all()


def test_a_wrong_label_ranks_above_a_right_one_and_then_the_score_counts() -> None:
    x = torch.tensor([[0.4, 0.8], [0.6, 0.3], [0.6, 0.5], [0.45, 0.8]])
    value, achieved = Evade(second, 0.1)(Sides(), x, torch.zeros(4, dtype=torch.int64))
    assert value.argsort().tolist() == [0, 3, 1, 2]
    assert not achieved.any()


def test_directions_are_those_of_the_ways() -> None:
    """With gradients a of the margin and b of the score: selective a or -b; orthogonal a without b, or -b without a."""
    a, b = torch.tensor([1.0, 1.0, 0.0]), torch.tensor([0.0, 2.0, 1.0])

    def model(x: Tensor) -> Tensor:
        lead = (x * a).sum(1)
        return torch.stack([-lead / 2, lead / 2], 1)

    def direction(point: Tensor, **options: Any) -> Tensor:
        x = point[None].clone().requires_grad_()
        value, _ = Evade(lambda x, _: (x * b).sum(1), -10.0, **options)(model, x, torch.tensor([0]))
        return torch.autograd.grad(value.sum(), x)[0][0]

    held, fooled = torch.tensor([-1.0, 0.0, 0.0]), torch.tensor([1.0, 0.0, 0.0])
    torch.testing.assert_close(direction(held), a)
    torch.testing.assert_close(direction(fooled), -b)
    torch.testing.assert_close(direction(held, way="orthogonal"), a - (a @ b) / (b @ b) * b)
    torch.testing.assert_close(direction(fooled, way="orthogonal"), -(b - (a @ b) / (a @ a) * a))
    both = direction(held, way="lagrangian", weight=0.5)
    torch.testing.assert_close(both, a / a.norm() - 0.5 * b / b.norm())
    torch.testing.assert_close(direction(fooled, way="lagrangian"), -b / b.norm())


@pytest.mark.parametrize("way", get_args(Way))
def test_a_row_does_not_depend_on_the_others(way: Way, generator: torch.Generator) -> None:
    x, y = near_the_border(10, generator)
    attack = PGD(threat=THREAT, objective=Evade(second, 0.1, way), steps=10)
    together, alone = attack.run(Sides(), x, y), attack.run(Sides(), x[3:4], y[3:4])
    torch.testing.assert_close(alone.x_adv[0], together.x_adv[3])


def calibrated(name: str, model: Any = None, **options: Any) -> CalibratedDetector:
    data = torch.rand(200, 2, generator=torch.Generator().manual_seed(1))
    detector = make(name, options).fit(data)
    spec = DataSpec("toy", "table", (2,), ("a", "b"), 0.0, 1.0, "0" * 64)
    return CalibratedDetector(name, detector, Threshold(0.3, 0.05, 200), np.zeros(1), spec, 200, None, model)


def test_more_attacks_and_targets_never_lose_fewer(generator: torch.Generator) -> None:
    x, y = near_the_border(60, generator)
    detector = calibrated("knn", k=3)
    attacks = adaptive(detector, ThreatModel("linf", 0.1), steps=5)
    one = evade({"selective": attacks["selective"]}, Sides(), x, y)
    all_of_them = evade(attacks, Sides(), x, y)
    with_targets = evade(attacks, Sides(), x, y, targets=3)
    assert not (one.lost & ~all_of_them.lost).any()
    assert not (all_of_them.lost & ~with_targets.lost).any()
    assert set(all_of_them.found) <= set(attacks)
    assert torch.equal(torch.stack(list(all_of_them.found.values())).any(0), all_of_them.lost)
    score = judged_against(detector)
    lost = with_targets.lost
    predicted = Sides()(with_targets.x_adv).argmax(1)
    assert torch.equal(lost, (predicted != y) & (score(with_targets.x_adv, predicted) <= detector.threshold.value))
    assert attacks["selective"].threat.allows(with_targets.x_adv, x).all()
    assert with_targets.rate == lost.double().mean()


def test_nothing_is_lost_where_everything_is_flagged(generator: torch.Generator) -> None:
    x, y = near_the_border(10, generator)
    flags_all = Evade(lambda x, _: x[:, 0] * 0 + 1, 0.5)
    evasion = evade({"flat": PGD(threat=THREAT, objective=flags_all, steps=5)}, Sides(), x, y, targets=1)
    assert not evasion.lost.any()
    assert (Sides()(evasion.x_adv).argmax(1) != y).any()  # the best attempts are kept: wrong, and flagged


def test_scores_without_gradients_are_refused() -> None:
    with pytest.raises(UsageError, match="scores without gradients"):
        adaptive(calibrated("isolation-forest", trees=5), THREAT)
