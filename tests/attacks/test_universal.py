"""Universal: one perturbation, whatever the order."""

from __future__ import annotations

from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn

import toys
from robustgen.attacks.universal import Universal
from robustgen.errors import UsageError
from robustgen.objectives import Misclassify
from robustgen.threat import ThreatModel

NORMS: list[tuple[Literal["linf", "l2"], float]] = [("linf", 0.1), ("l2", 1.0)]


def _victim() -> tuple[nn.Module, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 4))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / 6)
        x = 0.35 + 0.3 * torch.rand(300, 1, 8, 8, generator=generator)
        return network, x, network(x).argmax(1)


@pytest.mark.parametrize(("norm", "eps"), NORMS)
def test_one_perturbation_fools_many(norm: Literal["linf", "l2"], eps: float) -> None:
    network, x, y = _victim()
    threat = ThreatModel(norm, eps)
    counting = toys.Counting(network)
    result = Universal(threat=threat).run(counting, x, y)
    deltas = result.x_adv - x  # the box is out of reach
    assert (deltas - deltas[:1]).abs().max() < 1e-6
    assert threat.allows(result.x_adv, x).all()
    with torch.no_grad():
        assert torch.equal(network(result.x_adv).argmax(1) != y, result.success)
        random = threat.project(x + threat.sample(x[:1], torch.tensor([1])) - x[:1], x)
        by_chance = (network(random).argmax(1) != y).double().mean()
    assert result.success.double().mean() > max(0.3, 2 * by_chance)
    assert int(result.forward.sum()) == counting.forward_rows == 300 * 2 * 20
    assert int(result.backward.sum()) == counting.backward_rows == 300 * 20
    assert ((result.first_success >= 1) | ~result.success).all()


def test_on_a_linear_model_it_is_the_step_that_moves_every_row_most() -> None:
    weight = torch.randn(20, generator=torch.Generator().manual_seed(1))
    network = toys.Linear2(weight, -0.5 * float(weight.sum()))
    x = 0.4 + 0.2 * torch.rand(200, 20, generator=torch.Generator().manual_seed(2))
    y = network(x).argmax(1)
    x, y = x[y == 1], y[y == 1]
    eps = 1.01 * float(network.distance(x, "linf").median())
    result = Universal(threat=ThreatModel("linf", eps), step_size=eps).run(network, x, y)
    assert torch.allclose(result.x_adv - x, (-eps * weight.sign()).expand_as(x), atol=1e-6)
    assert torch.equal(result.success, network.distance(x, "linf") < eps)


def test_neither_order_nor_batch_size_matters() -> None:
    network, x, y = _victim()
    made = Universal(threat=ThreatModel("l2", 1.0), steps=5)(network, x, y)
    order = torch.arange(300).flip(0)
    assert torch.equal(Universal(threat=ThreatModel("l2", 1.0), steps=5)(network, x[order], y[order]), made[order])
    assert torch.allclose(
        Universal(threat=ThreatModel("l2", 1.0), steps=5, batch_size=7)(network, x, y), made, atol=1e-5
    )
    assert not torch.equal(Universal(threat=ThreatModel("l2", 1.0), steps=5, seed=1)(network, x, y), made)
    assert Universal.whole


@pytest.mark.parametrize("n", [0, 1])
def test_small_batches(n: int) -> None:
    network, x, y = _victim()
    result = Universal(threat=ThreatModel("linf", 0.3), steps=5).run(network, x[:n], y[:n])
    assert result.x_adv.shape == x[:n].shape
    assert result.success.all()


def test_with_eps_0_nothing_changes() -> None:
    network, x, y = _victim()
    for norm in ("linf", "l2"):
        assert torch.equal(Universal(threat=ThreatModel(norm, 0.0), steps=2)(network, x, y), x)


def test_it_can_aim_at_a_class() -> None:
    network, x, y = _victim()
    target = torch.full_like(y, 2)
    attack = Universal(threat=ThreatModel("linf", 0.2), objective=Misclassify(targeted=True))
    with torch.no_grad():
        before = (network(x).argmax(1) == 2).double().mean()
        after = (network(attack(network, x, target)).argmax(1) == 2).double().mean()
    assert after > before + 0.3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "steps"),
        ({"step_size": 0.0}, "step_size"),
        ({"clip": 0.0}, "clip"),
        ({"precision": "bfloat16"}, "needs float32"),
    ],
)
def test_impossible_configurations_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Universal(threat=ThreatModel("linf", 0.1), **options)
