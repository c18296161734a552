from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from robustgen.attacks.fab import FAB, FABT
from robustgen.attacks.fab_projection import to_hyperplane
from robustgen.errors import UsageError
from robustgen.objectives import Misclassify, margin
from robustgen.testing import check_attack
from robustgen.threat import Norm, ThreatModel
from toys import Counting, Linear2, small_cnn

NORMS: tuple[Norm, ...] = ("linf", "l2", "l1")
WIDE = {"linf": 1.0, "l2": 100.0, "l1": 1000.0}


def rows() -> tuple[nn.Module, Tensor, Tensor]:
    """Inputs of a random network, with the labels that it gives them."""
    model, x = small_cnn().eval(), torch.rand(24, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return model, x, model(x).argmax(1)


@pytest.mark.parametrize("norm", NORMS)
def test_the_projection_is_what_a_solver_finds(norm: Norm, generator: torch.Generator) -> None:
    from scipy.optimize import linprog, minimize

    x = torch.rand(2, 12, 6, generator=generator, dtype=torch.float64)
    w = torch.randn(12, 6, generator=generator, dtype=torch.float64)
    gap = 2 * torch.randn(2, 12, generator=generator, dtype=torch.float64)
    w[3, 2] = 0.0
    change = to_hyperplane(x, w, gap, norm, 0.0, 1.0)
    assert ((x + change >= -1e-12) & (x + change <= 1 + 1e-12)).all()
    reach = torch.maximum(-w * x * gap.sign()[..., None], w * (1 - x) * gap.sign()[..., None]).clamp(min=0).sum(2)
    gained = (change * w).sum(2)
    torch.testing.assert_close(gained, torch.minimum(gap.abs(), reach) * gap.sign())
    assert (reach < gap.abs()).any()
    assert (reach > gap.abs()).any()
    lengths = ThreatModel(norm, 0.0).distance(change.flatten(0, 1), torch.zeros(24, 6)).reshape(2, 12)
    for k, i in ((reach - gap.abs()) > 0).nonzero().tolist():
        here, v, g = x[k, i].numpy(), w[i].numpy(), gap[k, i].item()
        room = [(-a, 1 - a) for a in here]
        if norm == "l1":  # change = p - q
            split = [(0, high) for _, high in room] + [(0, -low) for low, _ in room]
            best = linprog([1] * 12, A_eq=[[*v, *-v]], b_eq=[g], bounds=split).fun
        elif norm == "linf":  # the last variable bounds all others
            walls = [[*(sign * (j == i) for i in range(6)), -1] for j in range(6) for sign in (1, -1)]
            best = linprog([0] * 6 + [1], walls, [0] * 12, [[*v, 0]], [g], bounds=[*room, (0, None)]).fun
        else:
            plane = {"type": "eq", "fun": lambda d, v=v, g=g: d @ v - g, "jac": lambda d, v=v: v}
            options = {"ftol": 1e-14, "maxiter": 500}
            square = minimize(lambda d: d @ d, [0.0] * 6, bounds=room, constraints=[plane], options=options).fun
            best = square**0.5
        assert lengths[k, i].item() == pytest.approx(best, abs=1e-6)


@pytest.mark.parametrize("norm", NORMS)
def test_the_projection_ends_for_any_numbers(norm: Norm) -> None:
    x = torch.tensor([[[0.0, 0.5, 1.0]]]).expand(1, 5, 3)
    w = torch.tensor([[1.0, 2.0, 3.0], [0.0, 0.0, 0.0], [1e-30, 2e-30, 0.0], [1e-44, 1.0, 1e30], [1.0, -1.0, 1.0]])
    gap = torch.tensor([[torch.inf, 1.0, 1e-30, -1e30, torch.nan]])
    change = to_hyperplane(x, w, gap, norm, 0.0, 1.0)[0]
    torch.testing.assert_close(change[0], torch.tensor([1.0, 0.5, 0.0]))  # towards walls that do not reach far enough
    assert (change[1] == 0).all()
    assert (change[2] @ torch.tensor([1.0, 2.0, 0.0])).item() == pytest.approx(1.0)
    assert change[3, 2] == -1.0
    assert torch.isfinite(change[4]).all()


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("attack", [FAB, FABT])
def test_the_smallest_change_of_a_linear_model_is_found(
    attack: type[FAB | FABT], norm: Norm, generator: torch.Generator
) -> None:
    model, x = Linear2(torch.randn(30, generator=generator), 0.1), 0.3 * torch.randn(40, 30, generator=generator)
    y, nearest = model(x).argmax(1), model.distance(x, norm)
    threat = ThreatModel(norm, 50.0, low=-50, high=50)
    result = attack(threat=threat, steps=20).run(model, x, y)
    assert result.success.all()
    ratio = threat.distance(result.x_adv, x) / nearest
    assert (ratio >= 1 - 1e-5).all()
    assert (ratio <= 1.01).all()


@pytest.mark.parametrize("norm", NORMS)
def test_it_is_found_where_the_box_is_in_the_way(norm: Norm, generator: torch.Generator) -> None:
    model, x = Linear2(torch.randn(30, generator=generator), 0.1), torch.rand(40, 30, generator=generator)
    x = x.lerp(x.round(), 0.8)  # near the walls
    with torch.no_grad():
        z = model(x)[:, 1]
    threat = ThreatModel(norm, WIDE[norm])
    nearest = threat.distance(x + to_hyperplane(x[None], model.weight.expand_as(x), -z[None], norm, 0, 1)[0], x)
    result = FABT(threat=threat, steps=50).run(model, x, (z > 0).long())
    ratio = (threat.distance(result.x_adv, x) / nearest)[result.success]
    assert len(ratio) > 30
    assert (ratio >= 1 - 1e-4).all()
    assert (ratio <= 1.02).all()
    assert (nearest > 1.05 * model.distance(x, norm)).any()  # the walls did matter


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("name", ["fab", "fab-t"])
def test_norms_are_those_of_the_authors_program(name: str, norm: Norm) -> None:
    """Made by reference/fab.py. A verdict at the boundary can turn with the last bit, so not every row is equal."""
    model, x, y = rows()
    reference = torch.tensor(json.loads((Path(__file__).parent / "reference/fab.json").read_text())[f"{name} {norm}"])
    threat = ThreatModel(norm, WIDE[norm])
    attack = FAB(threat=threat, steps=30) if name == "fab" else FABT(threat=threat, steps=30, targets=1)
    found = threat.distance(attack(model, x, y), x)
    assert ((found - reference).abs() <= 1e-3 * reference).float().mean() >= 0.75
    torch.testing.assert_close(found.median(), reference.median(), rtol=0.01, atol=0)
    torch.testing.assert_close(found, reference, rtol=0.1, atol=0)


def test_pass_counts_are_exact() -> None:
    model, x, y = rows()
    counting = Counting(model)
    result = FABT(threat=ThreatModel("l2", 100.0), steps=7, targets=3, restarts=2).run(counting, x, y)
    assert (result.forward == 1 + 6 * (2 * 7 + 1)).all()
    assert (result.backward == 6 * 7).all()
    assert counting.forward_rows == result.forward.sum()
    assert counting.backward_rows == result.backward.sum()
    result = FAB(threat=ThreatModel("l2", 100.0), steps=7).run(model, x, y)
    assert (result.forward == 2 * 7 + 1).all()
    assert (result.backward == 7 * 10).all()


@pytest.mark.parametrize("attack", [FAB, FABT])
def test_evaluation_fools_the_same_rows_with_fewer_passes(attack: type[FAB | FABT]) -> None:
    model, x, y = rows()
    threat = ThreatModel("l2", 0.15)
    full, quick = (attack(threat=threat, steps=10, mode=mode).run(model, x, y) for mode in ("minimal", "evaluate"))
    assert 3 < full.success.sum() < 21
    assert torch.equal(full.success, quick.success)
    assert quick.forward[quick.success].sum() < full.forward[quick.success].sum() / 2
    assert torch.equal(quick.forward[~quick.success], full.forward[~quick.success])
    won = full.success
    assert (threat.distance(full.x_adv, x) <= threat.distance(quick.x_adv, x) + 1e-6)[won].all()
    assert torch.equal(full.first_success[won], quick.first_success[won])


@pytest.mark.parametrize("attack", [FAB, FABT])
def test_what_is_already_wrong_is_left_as_it_is(attack: type[FAB | FABT]) -> None:
    model, x, y = rows()
    result = attack(threat=ThreatModel("linf", 0.1), steps=5).run(model, x, (y + 1) % 10)
    assert result.success.all()
    assert torch.equal(result.x_adv, x)
    assert (result.forward <= 3).all()
    assert (result.first_success == 0).all()


@pytest.mark.parametrize("norm", NORMS)
def test_later_restarts_begin_half_the_radius_away(norm: Norm) -> None:
    model, x, y = rows()
    starts: list[Tensor] = []

    class Watched(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            starts.append(x.detach().clone())
            out: Tensor = model(x)
            return out

    threat = ThreatModel(norm, 0.02, low=-9, high=9)
    FAB(threat=threat, steps=1, restarts=2, batch_size=99).run(Watched(), x, y)
    # each restart: the start twice, for verdict and slope, and the end
    assert torch.equal(starts[0], x)
    torch.testing.assert_close(threat.distance(starts[3], x), torch.full((24,), 0.01))


@pytest.mark.parametrize(
    ("attack", "options"), [(FAB, {}), (FABT, {}), (FABT, {"mode": "evaluate"}), (FAB, {"restarts": 2})]
)
def test_contract(attack: type[FAB | FABT], options: dict[str, Any]) -> None:
    check_attack(lambda threat: attack(threat=threat, steps=4, **options))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "steps must be"),
        ({"targets": 0}, "targets must be"),
        ({"mode": "best"}, "minimal or evaluate"),
        ({"beta": 1.0}, "beta lies between"),
        ({"eta": 0.9}, "eta is at least 1"),
        ({"alpha_max": 1.5}, "alpha_max lies"),
        ({"objective": Misclassify(margin)}, "leave the objective out"),
        ({"objective": Misclassify(targeted=True)}, "no targeted form"),
    ],
)
def test_impossible_configurations_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        FABT(threat=ThreatModel("l2", 1.0), **options)
