from __future__ import annotations

import pytest
import torch

from robustgen.objectives import LOSSES, Misclassify, cross_entropy, dlr, margin
from robustgen.registry import resolve


@pytest.mark.parametrize("name", LOSSES)
def test_losses_are_differentiable_and_per_sample(name: str, generator: torch.Generator) -> None:
    loss = resolve(LOSSES, name, "loss")
    logits = torch.randn(6, 5, generator=generator, dtype=torch.float64, requires_grad=True)
    y = torch.tensor([0, 1, 2, 3, 4, 0])
    assert loss(logits, y).shape == (6,)
    assert torch.autograd.gradcheck(lambda z: loss(z, y), (logits,))
    assert torch.equal(loss(logits[2:3], y[2:3]), loss(logits, y)[2:3])


def test_known_values() -> None:
    logits = torch.tensor([[3.0, 1.0, 0.0, -1.0]])
    y, wrong = torch.tensor([0]), torch.tensor([1])
    assert margin(logits, y).item() == -2.0
    assert margin(logits, wrong).item() == 2.0
    assert dlr(logits, y).item() == pytest.approx(-2.0 / 3.0)
    assert cross_entropy(logits, y).item() == pytest.approx(-torch.log_softmax(logits, 1)[0, 0].item())


def test_margin_is_positive_exactly_where_the_label_is_not_predicted(generator: torch.Generator) -> None:
    logits = torch.randn(500, 4, generator=generator)
    y = torch.randint(0, 4, (500,), generator=generator)
    assert torch.equal(margin(logits, y) > 0, logits.argmax(1) != y)


def test_dlr_is_blind_to_scale_and_falls_back_for_two_classes(generator: torch.Generator) -> None:
    logits, y = torch.randn(50, 6, generator=generator), torch.zeros(50, dtype=torch.int64)
    torch.testing.assert_close(dlr(1000 * logits + 5, y), dlr(logits, y), atol=1e-3, rtol=1e-3)
    assert torch.equal(dlr(logits[:, :2], y), margin(logits[:, :2], y))


def test_a_targeted_objective_is_achieved_at_the_target(generator: torch.Generator) -> None:
    logits = torch.randn(50, 4, generator=generator)
    target = torch.full((50,), 2)
    value, achieved = Misclassify(targeted=True)(lambda x: x, logits, target)
    assert torch.equal(achieved, logits.argmax(1) == 2)
    torch.testing.assert_close(value, -cross_entropy(logits, target))
