"""Fooling: from noise to a confident class."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import toys
from robustgen.attacks import ATTACKS
from robustgen.attacks.build import aimed, make
from robustgen.attacks.fooling import Fooling
from robustgen.errors import UsageError
from robustgen.registry import Entry
from robustgen.threat import ThreatModel

BOX: list[ThreatModel] = [ThreatModel("linf", 1.0), ThreatModel("l2", 8.0), ThreatModel("l1", 64.0)]


@pytest.fixture(scope="module")
def network() -> nn.Module:
    """Sure of itself nearly everywhere, so that confidence can be had."""
    network = toys.small_cnn().eval()
    with torch.no_grad():
        network[-1].weight.mul_(20)  # type: ignore[index]
    return network


@pytest.fixture(scope="module")
def inputs() -> tuple[Tensor, Tensor]:
    return torch.rand(10, 1, 8, 8, generator=torch.Generator().manual_seed(0)), torch.arange(10)


@pytest.mark.parametrize("threat", BOX, ids=["linf", "l2", "l1"])
def test_every_class_is_reached_with_the_confidence(
    network: nn.Module, inputs: tuple[Tensor, Tensor], threat: ThreatModel
) -> None:
    x, y = inputs
    counting = toys.Counting(network)
    result = Fooling(threat=threat, confidence=0.9).run(counting, x, y)
    with torch.no_grad():
        sure = network(result.x_adv).softmax(1).gather(1, y[:, None])[:, 0]
    assert result.success.all()
    assert (sure >= 0.9 - 1e-6).all()
    assert threat.allows(result.x_adv, x).all()
    assert int(result.forward.sum()) == counting.forward_rows
    assert (result.first_success == result.steps).all()
    assert 0 < int(result.steps.max()) < 200


def test_more_confidence_costs_more_steps(network: nn.Module, inputs: tuple[Tensor, Tensor]) -> None:
    steps = [Fooling(threat=BOX[0], confidence=c, step_size=0.002).run(network, *inputs).steps for c in (0.3, 0.6, 0.9)]
    assert (steps[0] <= steps[1]).all()
    assert (steps[1] <= steps[2]).all()
    assert steps[0].sum() < steps[2].sum()


def test_it_starts_from_noise_that_belongs_to_the_sample_and_the_seed(
    network: nn.Module, inputs: tuple[Tensor, Tensor]
) -> None:
    x, y = inputs
    made = Fooling(threat=BOX[0])(network, x, y)
    assert torch.allclose(Fooling(threat=BOX[0], batch_size=3)(network, x, y), made, atol=1e-5)
    back = torch.arange(10).flip(0)
    assert torch.allclose(Fooling(threat=BOX[0])(network, x[back], y[back]), made[back], atol=1e-5)
    assert (Fooling(threat=BOX[0], seed=1)(network, x, y) - made).abs().mean() > 0.1
    assert (made - x).abs().mean() > 0.2
    twice = Fooling(threat=BOX[0])(network, x[[0, 0]], y[[0, 0]])
    assert torch.equal(twice[0], twice[1])
    assert Fooling(threat=BOX[0])(network, x[:0], y[:0]).shape == x[:0].shape


def test_the_objective_follows_the_confidence(network: nn.Module, inputs: tuple[Tensor, Tensor]) -> None:
    """A linear model of constant logits cannot be made sure: no success, and still what ascent found."""

    class Flat(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.flatten(1)[:, :10] * 0.1

    x, y = inputs
    result = Fooling(threat=BOX[0], steps=20).run(Flat(), x, y)
    assert not result.success.any()
    places = result.x_adv.flatten(1)[:, :10]
    assert torch.equal(places.gather(1, y[:, None])[:, 0], torch.ones(10))  # the target's own value, at its wall
    assert float(places.scatter(1, y[:, None], 0.0).max()) == 0
    assert Fooling(threat=BOX[0], steps=20, confidence=0.1).run(Flat(), x, y).success.all()


@pytest.mark.parametrize(
    ("threat", "options", "message"),
    [
        (ThreatModel("linf", 1.0), {"confidence": 1.0}, "between 0 and 1"),
        (ThreatModel("linf", 1.0), {"steps": 0}, "steps"),
        (ThreatModel("linf", 1.0), {"step_size": 0.0}, "step_size"),
    ],
)
def test_impossible_configurations_are_refused(threat: ThreatModel, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Fooling(threat=threat, **options)


@pytest.mark.parametrize(
    ("threat", "message"),
    [
        (ThreatModel("linf", 0.5), "linf eps >= 1 is needed, but 0.5"),
        (ThreatModel("linf", 1.0, -1.0, 1.0), "linf eps >= 2 is needed, but 1"),
        (ThreatModel("l2", 7.0), "l2 eps >= 8 is needed, but 7"),
        (ThreatModel("l1", 63.0), "l1 eps >= 64 is needed, but 63"),
    ],
)
def test_a_ball_smaller_than_the_box_is_refused(
    network: nn.Module, inputs: tuple[Tensor, Tensor], threat: ThreatModel, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        Fooling(threat=threat)(network, *inputs)


def test_by_name_it_asks_for_a_class(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ATTACKS, "fooling", Entry("robustgen.attacks.fooling:Fooling", "-"))
    with pytest.raises(UsageError, match="aims at a class"):
        aimed("fooling")
    with pytest.raises(UsageError, match="no other loss"):
        aimed("fooling", loss="margin", targeted=True)
    attack = make("fooling", BOX[0], {"confidence": 0.5, **aimed("fooling", targeted=True)})
    assert attack == Fooling(threat=BOX[0], confidence=0.5)
    assert getattr(attack.objective, "confidence", None) == 0.5
    with pytest.raises(UsageError, match="no option 'objective'"):
        make("fooling", BOX[0], {"objective": attack.objective})
