"""What a classifier holds on its own against Auto-Attack, in balls inside one another."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from robustgen.attacks.auto_attack import AutoAttack
from robustgen.evaluation.screening import alone
from robustgen.threat import ThreatModel


class Sides(nn.Module):
    """Three classes by the mean of an image: how far a label is from the border is known."""

    def forward(self, x: Tensor) -> Tensor:
        mean = x.flatten(1).mean(1)
        return torch.stack([-(mean - place).abs() * 20 for place in (0.2, 0.5, 0.8)], 1)


def images(n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """One grey each, from 0.22 to 0.78, with the label that it has."""
    level = torch.linspace(0.22, 0.78, n)
    x = level[:, None, None, None].expand(n, 1, 4, 4) + 0.01 * torch.rand(n, 1, 4, 4, generator=generator)
    return x, Sides()(x).argmax(1)


def test_an_input_is_fooled_exactly_where_the_border_lies_in_the_ball(generator: torch.Generator) -> None:
    x, y = images(40, generator)
    mean = x.flatten(1).mean(1)
    border = torch.minimum((mean - 0.35).abs(), (mean - 0.65).abs())
    sizes = (0.12, 0.03, 0.06)  # in any order
    found = alone(Sides(), x, y, [ThreatModel("linf", size) for size in sizes])
    for size, one in zip(sizes, found, strict=True):
        sure = (border - size).abs() > 1e-4
        assert torch.equal(one.fooled[sure], (border < size)[sure])
        assert one.fooled.any()
        assert not one.fooled.all()
        assert ThreatModel("linf", size).allows(one.x_adv, x).all()
        assert (Sides()(one.x_adv).argmax(1) != y)[one.fooled].all()
    large, small, middle = (one.fooled for one in found)
    assert not (small & ~middle).any()
    assert not (middle & ~large).any()


def test_it_is_auto_attack_at_the_largest_size(generator: torch.Generator) -> None:
    x, y = images(20, generator)
    threat = ThreatModel("linf", 0.07)
    whole = AutoAttack(threat=threat, seed=2).run(Sides(), x, y)
    (one,) = alone(Sides(), x, y, [threat], seed=2)
    assert torch.equal(one.fooled, whole.success)
    assert torch.equal(one.x_adv, whole.x_adv)
    assert torch.equal(one.forward, whole.forward)
    assert torch.equal(one.backward, whole.backward)


def test_an_input_that_is_wrong_already_is_fooled_at_every_size(generator: torch.Generator) -> None:
    x, y = images(6, generator)
    y = (y + 1) % 3
    for one in alone(Sides(), x, y, [ThreatModel("linf", 0.1), ThreatModel("linf", 0.01)]):
        assert one.fooled.all()


def test_nothing_counts_as_held_where_values_have_no_bounds(generator: torch.Generator) -> None:
    x, y = images(6, generator)
    (one,) = alone(Sides(), x, y, [ThreatModel("linf", 0.001, -torch.inf, torch.inf)])
    assert one.fooled.all()
    assert torch.equal(one.x_adv, x)


def test_it_tells_how_far_it_is_and_ends_at_the_whole(generator: torch.Generator) -> None:
    x, y = images(30, generator)
    told: list[float] = []
    alone(Sides(), x, y, [ThreatModel("linf", size) for size in (0.03, 0.06)], progress=told.append)
    assert told == sorted(told)
    assert told[-1] == 1
    assert len({round(share, 6) for share in told if 0 < share < 0.5}) > 3  # within the first size too
