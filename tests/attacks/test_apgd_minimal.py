from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from robustgen.attacks.apgd import APGD
from robustgen.attacks.apgd_minimal import MinimalAPGD, Narrowing
from robustgen.attacks.ascend import Play
from robustgen.attacks.passes import Seen
from robustgen.objectives import Misclassify, dlr
from robustgen.threat import Norm, ThreatModel
from toys import Counting, small_cnn

NORMS: tuple[Norm, ...] = ("linf", "l2", "l1")
WIDE: dict[Norm, float] = {"linf": 1.0, "l2": 8.0, "l1": 64.0}
SEARCHED: dict[Norm, float] = {"linf": 0.05, "l2": 0.4, "l1": 3.0}


@pytest.fixture
def cnn(generator: torch.Generator) -> tuple[nn.Module, Tensor, Tensor]:
    model = small_cnn().eval()
    x = torch.rand(24, 1, 8, 8, generator=generator)
    return model, x, model(x).argmax(1)


def bisected(norm: Norm, steps: int, rounds: int, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """The sizes that Auto-PGD for a given eps finds in a plain bisection over eps, each row by itself."""
    found = torch.full((len(x),), WIDE[norm])
    for row in range(len(x)):
        low, high = 0.0, WIDE[norm]
        for number in range(rounds):
            eps = (low + high) / 2
            attack = APGD(threat=ThreatModel(norm, eps), steps=steps, seed=number)
            success = attack.run(model, x[row : row + 1], y[row : row + 1]).success.item()
            low, high = (low, eps) if success else (eps, high)
        found[row] = high
    return found


@pytest.mark.parametrize("norm", NORMS)
def test_it_comes_nearer_than_a_bisection_of_as_many_passes(norm: Norm, cnn: tuple[nn.Module, Tensor, Tensor]) -> None:
    model, x, y = cnn
    x, y = x[:6], y[:6]
    threat = ThreatModel(norm, WIDE[norm])
    size = threat.distance(MinimalAPGD(threat=threat, steps=20, rounds=6)(model, x, y), x)
    assert size.mean() < bisected(norm, 20, 6, model, x, y).mean()


@pytest.mark.parametrize("norm", NORMS)
def test_more_rounds_find_no_larger_changes(norm: Norm, cnn: tuple[nn.Module, Tensor, Tensor]) -> None:
    """But for the share at the end in which nothing begins at random, which begins at another step."""
    model, x, y = cnn
    threat = ThreatModel(norm, WIDE[norm])
    few, many = (
        threat.distance(MinimalAPGD(threat=threat, steps=20, rounds=rounds)(model, x, y), x) for rounds in (2, 12)
    )
    assert (many <= few * 1.001).all()
    assert many.mean() < few.mean()


@pytest.mark.parametrize("norm", NORMS)
def test_every_look_stays_inside_the_ball_of_its_round(norm: Norm, generator: torch.Generator) -> None:
    """Of its radius, or in L1 of up to three times that, and inside the box; the ball never grows past a success."""
    x = torch.rand(6, 1, 4, 4, generator=generator)
    threat = ThreatModel(norm, 50.0 if norm != "linf" else 1.0)
    rule = Narrowing(threat, 9, 200, 0, torch.device("cpu"))
    label = torch.zeros(6, dtype=torch.int64)
    point, state = rule.begin(x, label, 0)
    play = Play(torch.arange(6), x, label, point, label.clone(), label.clone(), state)
    assert torch.equal(point, x)
    seen_radii = []
    for step in range(200):
        distance = threat.distance(play.point, x)
        assert (distance <= rule.ascent.stride / (1 if norm == "l1" else 2) * play.state["radius"] * (1 + 1e-5)).all()
        assert ((play.point >= 0) & (play.point <= 1)).all()
        assert (play.state["radius"] <= play.state["high"]).all()
        seen_radii.append(play.state["radius"].clone())
        achieved = distance > SEARCHED[norm]
        gradient = torch.randn(x.shape, generator=generator)
        play.point = rule.move(play, Seen(distance, achieved, gradient))
        play.step = torch.full_like(label, step + 1)
    assert (play.state["high"] > SEARCHED[norm]).all()
    assert (play.state["high"] < SEARCHED[norm] * 1.5).all()
    assert (torch.stack(seen_radii).diff(dim=0) != 0).any(0).all()


def test_a_round_that_succeeds_leaves_its_steps_to_the_next(cnn: tuple[nn.Module, Tensor, Tensor]) -> None:
    model, x, y = cnn
    counting = Counting(model)
    attack = MinimalAPGD(threat=ThreatModel("linf", 1.0), steps=10, rounds=6)
    found = attack.run(counting, x, y)
    assert (found.backward == 60).all()
    assert (found.forward == 61).all()
    assert counting.forward_rows == 61 * len(x)
    assert counting.backward_rows == 60 * len(x)
    assert (found.steps <= 60).all()


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("steps", [1, 2, 3])
def test_the_shortest_rounds_work(norm: Norm, steps: int, cnn: tuple[nn.Module, Tensor, Tensor]) -> None:
    model, x, y = cnn
    threat = ThreatModel(norm, WIDE[norm])
    found = MinimalAPGD(threat=threat, steps=steps, rounds=20).run(model, x, y)
    assert found.success.all()
    assert (threat.distance(found.x_adv, x) < WIDE[norm]).all()


@pytest.mark.parametrize("norm", NORMS)
def test_values_without_walls_are_searched_within_eps(norm: Norm, generator: torch.Generator) -> None:
    model = nn.Linear(6, 3)
    x = torch.randn(10, 6, generator=generator)
    with torch.no_grad():
        y = model(x).argmax(1)
    threat = ThreatModel(norm, 50.0, -math.inf, math.inf)
    found = MinimalAPGD(threat=threat, steps=20, rounds=5).run(model, x, y)
    assert found.success.all()
    assert (threat.distance(found.x_adv, x) < 25).all()


def test_the_objective_and_the_seed_make_a_difference(cnn: tuple[nn.Module, Tensor, Tensor]) -> None:
    model, x, y = cnn
    attack = MinimalAPGD(threat=ThreatModel("l2", 8.0), steps=20, rounds=4)
    here = attack(model, x, y)
    assert torch.equal(here, attack(model, x, y))
    for other in (
        MinimalAPGD(threat=attack.threat, steps=20, rounds=4, seed=1),
        MinimalAPGD(threat=attack.threat, steps=20, rounds=4, objective=Misclassify(dlr)),
    ):
        assert not torch.equal(here, other(model, x, y))
