"""HopSkipJump: known optimum, decisions only, exact queries."""

from __future__ import annotations

from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn

import toys
from robustgen.attacks.hop_skip_jump import HopSkipJump
from robustgen.errors import UsageError
from robustgen.objectives import Misclassify
from robustgen.testing import check_attack
from robustgen.threat import ThreatModel

NORMS: list[tuple[Literal["linf", "l2"], float]] = [("linf", 1.0), ("l2", 5.0)]


def _linear(seed: int = 0) -> tuple[toys.Linear2, Tensor, Tensor]:
    """A boundary through the middle of the box, and inputs well inside the box."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(20, generator=generator)
    network = toys.Linear2(weight, -0.5 * float(weight.sum()))
    x = 0.35 + 0.3 * torch.rand(12, 20, generator=generator)
    return network, x, network(x).argmax(1)


def test_it_keeps_the_contract() -> None:
    """For a short walk: in a long one a decision within the rounding of the model comes, and then paths part."""

    def make(threat: ThreatModel) -> HopSkipJump:
        norm: Any = threat.norm if threat.norm in HopSkipJump.norms else "l2"
        return HopSkipJump(threat=ThreatModel(norm, threat.eps), queries=120, initial_probes=30)

    check_attack(make)


@pytest.mark.parametrize(("norm", "eps"), NORMS)
def test_it_finds_the_nearest_point_of_a_linear_boundary(norm: Literal["linf", "l2"], eps: float) -> None:
    network, x, y = _linear()
    result = HopSkipJump(threat=ThreatModel(norm, eps)).run(network, x, y)
    best = network.distance(x, norm)
    found = ThreatModel(norm, eps).distance(result.x_adv, x)
    assert result.success.all()
    assert (found >= best * 0.999).all()
    assert (found <= best * 1.05).all()


@pytest.mark.parametrize(("norm", "eps"), NORMS)
def test_more_queries_find_nearer_points_and_are_never_exceeded(norm: Literal["linf", "l2"], eps: float) -> None:
    network, x, y = _linear()
    sizes = []
    for queries in (60, 500, 4000):
        counting = toys.Counting(network)
        result = HopSkipJump(threat=ThreatModel(norm, eps), queries=queries).run(counting, x, y)
        assert int(result.forward.max()) <= queries
        assert int(result.forward.sum()) == counting.forward_rows
        assert int(result.backward.sum()) == counting.backward_rows == 0
        assert (result.steps <= result.forward).all()
        sizes.append(ThreatModel(norm, eps).distance(result.x_adv, x).median())
    assert sizes[0] > sizes[1] > sizes[2]


def test_a_row_gets_as_near_whatever_rows_are_beside_it() -> None:
    network, x, y = _linear()
    threat = ThreatModel("l2", 5.0)
    whole = threat.distance(HopSkipJump(threat=threat, queries=2000)(network, x, y), x)
    small = threat.distance(HopSkipJump(threat=threat, queries=2000, batch_size=5)(network, x, y), x)
    alone = torch.cat(
        [
            threat.distance(HopSkipJump(threat=threat, queries=2000)(network, x[i : i + 1], y[i : i + 1]), x[i : i + 1])
            for i in range(3)
        ]
    )
    assert torch.allclose(small, whole, rtol=0.02)
    assert torch.allclose(alone, whole[:3], rtol=0.02)


def test_it_needs_nothing_but_decisions() -> None:
    """The same result from a model that gives its prediction and no score."""
    network, x, y = _linear()

    class Decided(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return nn.functional.one_hot(network(x).argmax(1), 2).float()

    attack = HopSkipJump(threat=ThreatModel("l2", 5.0), queries=500)
    assert torch.equal(attack(network, x, y), attack(Decided(), x, y))


def test_inputs_already_misclassified_stay_as_they_are_for_one_query() -> None:
    network, x, y = _linear()
    result = HopSkipJump(threat=ThreatModel("l2", 1.0), queries=100).run(network, x, 1 - y)
    assert torch.equal(result.x_adv, x)
    assert result.success.all()
    assert result.forward.max() <= 15
    assert (result.first_success >= 1).all()


def test_evaluate_stops_at_the_first_success_within_eps() -> None:
    network, x, y = _linear()
    threat = ThreatModel("l2", float(network.distance(x, "l2").median()) * 1.3)
    full = HopSkipJump(threat=threat, queries=3000).run(network, x, y)
    short = HopSkipJump(threat=threat, queries=3000, mode="evaluate").run(network, x, y)
    assert torch.equal(full.success, short.success)
    assert 0 < int(short.success.sum()) < len(x)
    won = short.success
    assert torch.equal(short.first_success, full.first_success)
    assert torch.equal(short.forward[won], short.first_success[won])
    assert short.forward[won].double().mean() < full.forward[won].double().mean() / 2


def test_without_a_start_a_row_fails_and_is_still_moved() -> None:
    class One(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.stack([x.flatten(1).sum(1), x.flatten(1).sum(1) - 1], 1)

    x, y = torch.full((3, 5), 0.5), torch.zeros(3, dtype=torch.int64)
    result = HopSkipJump(threat=ThreatModel("linf", 0.1), starts=7).run(One(), x, y)
    assert not result.success.any()
    assert result.forward.tolist() == [8, 8, 8]
    assert (result.x_adv != x).any(1).all()
    assert (result.first_success == -1).all()


def test_the_targeted_form_reaches_its_class() -> None:
    generator = torch.Generator().manual_seed(1)
    network = nn.Linear(20, 3, bias=False)
    with torch.no_grad():
        network.weight.copy_(torch.randn(3, 20, generator=generator))
    x = torch.rand(9, 20, generator=generator)
    target = (network(x).argmax(1) + 1) % 3
    attack = HopSkipJump(threat=ThreatModel("l2", 5.0), objective=Misclassify(targeted=True), queries=1000)
    result = attack.run(network, x, target)
    assert result.success.any()
    assert torch.equal(network(result.x_adv).argmax(1) == target, result.success)


def test_averaged_draws_are_counted() -> None:
    network, x, y = _linear()
    counting = toys.Counting(network)
    result = HopSkipJump(threat=ThreatModel("l2", 5.0), queries=200, eot=3).run(counting, x, y)
    assert int(result.forward.sum()) == counting.forward_rows
    assert 300 < int(result.forward.max()) <= 600


@pytest.mark.parametrize("option", ["queries", "initial_probes", "most_probes", "starts"])
def test_counts_are_counts(option: str) -> None:
    with pytest.raises(UsageError, match=option):
        HopSkipJump(threat=ThreatModel("l2", 1.0), **{option: 0})  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="works in linf, l2"):
        HopSkipJump(threat=ThreatModel("l1", 1.0))
