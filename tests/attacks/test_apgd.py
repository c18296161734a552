from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from robustgen.attacks.apgd import APGD, APGDDLR, APGDT, Adaptive, AutoPGD, checkpoints
from robustgen.attacks.apgd_l1 import Sparse, radii
from robustgen.errors import UsageError
from robustgen.objectives import Misclassify, cross_entropy, difference, dlr, margin
from robustgen.testing import check_attack
from robustgen.threat import Norm, ThreatModel
from toys import Counting, Linear2, small_cnn

NORMS: tuple[Norm, ...] = ("linf", "l2", "l1")
KINDS: tuple[type[AutoPGD], ...] = (APGD, APGDDLR, APGDT)
EPS: dict[Norm, float] = {"linf": 0.01, "l2": 0.06, "l1": 0.4}
"""Where `small_cnn` is fooled on some rows and not on others."""


@pytest.fixture
def cnn(generator: torch.Generator) -> tuple[nn.Module, Tensor, Tensor]:
    model = small_cnn().eval()
    x = torch.rand(32, 1, 8, 8, generator=generator)
    return model, x, model(x).argmax(1)


@pytest.mark.parametrize(
    ("kind", "options"),
    [(APGD, {"restarts": 2}), (APGD, {"mode": "max-loss", "random_start": False}), (APGDDLR, {}), (APGDT, {})],
)
def test_it_keeps_the_contract(kind: type[AutoPGD], options: dict[str, Any]) -> None:
    check_attack(lambda threat: kind(threat=threat, steps=5, **options))


@pytest.mark.parametrize(
    ("case", "attack"),
    [
        ("linf-ce", APGD(threat=ThreatModel("linf", 0.05))),
        ("linf-dlr", APGDDLR(threat=ThreatModel("linf", 0.05))),
        ("linf-t", APGDT(threat=ThreatModel("linf", 0.02))),
        ("l2-ce", APGD(threat=ThreatModel("l2", 0.1))),
        ("l1-ce", APGD(threat=ThreatModel("l1", 0.3), large_radii=False)),
        ("l1-wide-ce", APGD(threat=ThreatModel("l1", 0.3))),
    ],
)
def test_every_point_is_the_one_that_the_authors_program_looks_at(
    case: str, attack: AutoPGD, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`reference/apgd_traces.py` says how the points were recorded: in L1 without what rounding alone changes."""

    def share(rule: Sparse, point: Tensor, clean: Tensor) -> Tensor:
        return ((point - clean).abs() > 1e-6 * rule.threat.eps).double().mean(1)

    monkeypatch.setattr(Sparse, "_share", share)
    with np.load(Path(__file__).parent / "reference" / "apgd_traces.npz") as stored:
        arrays = {name: torch.from_numpy(stored[name]) for name in ("first", "second", case, f"{case}-x")}
    x, seen = arrays[f"{case}-x"], []

    def model(point: Tensor) -> Tensor:
        seen.append(point.detach().clone())
        return torch.tanh(point @ arrays["first"]) @ arrays["second"]

    y = model(x).argmax(1)
    seen.clear()
    replace(attack, steps=30, mode="max-loss").run(model, x, y)
    points = torch.stack([point for point in seen if not torch.equal(point, x)])
    assert points.shape == arrays[case].shape
    torch.testing.assert_close(points, arrays[case], rtol=0, atol=2e-6)  # starts are drawn in single precision


def test_in_l1_a_value_that_rounding_keeps_changed_counts_as_the_authors_count_it(generator: torch.Generator) -> None:
    clean = 0.3 * torch.rand(1, 400, generator=generator)
    clean[:, 200:] = 0
    change = 0.01 * torch.rand(1, 400, generator=generator)
    change[0, 0] = 0.6
    rule = Sparse(ThreatModel("l1", 0.25), radii(0.25, 10, False), None, clean.device, None)
    moved = rule._legal(clean + change, clean, torch.tensor([0.25]))
    assert (moved - clean).abs()[0, 1:].max() < 1e-7  # all taken back, but for a rounding
    changed = moved[0] != clean[0]
    assert 2 < changed.sum() < 200
    assert not changed[200:].any()  # a zero is added to without rounding
    assert rule._share(moved, clean).item() == pytest.approx(changed.double().mean().item())
    assert ThreatModel("l1", 0.25).allows(moved, clean).all()


def test_checkpoints_are_those_of_the_paper() -> None:
    ends = [step for step, window in enumerate(checkpoints(100)) if window]
    assert ends == [22, 41, 57, 70, 80, 87, 93, 99]  # windows 22, 19, 16, 13, 10, 7, 6, 6
    assert [step for step, window in enumerate(checkpoints(3)) if window] == [1, 2, 3]


def test_radii_spend_all_steps() -> None:
    assert [(stage.radius, stage.steps) for stage in radii(2.0, 100, True)] == [(6, 30), (4, 30), (2, 40)]
    for steps in range(3, 60):
        stages = radii(1.0, steps, True)
        assert sum(stage.steps for stage in stages) == steps
        assert min(stage.steps for stage in stages) >= 1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("norm", NORMS)
def test_it_succeeds_exactly_beyond_the_closed_form_distance(
    kind: type[AutoPGD], norm: Norm, generator: torch.Generator
) -> None:
    model = Linear2(torch.randn(30, generator=generator), 0.1)
    x = 0.3 * torch.randn(3, 30, generator=generator)
    y = model(x).argmax(1)
    for row, nearest in enumerate(model.distance(x, norm).tolist()):
        for share, fooled in ((1.02, True), (0.98, False)):
            attack = kind(threat=ThreatModel(norm, share * nearest, low=-50, high=50), steps=40)
            result = attack.run(model, x[row : row + 1], y[row : row + 1])
            assert bool(result.success) == fooled
            assert bool(attack.threat.allows(result.x_adv, x[row : row + 1]))


@pytest.mark.parametrize("norm", NORMS)
def test_max_loss_gains_all_that_a_linear_model_gives(norm: Norm, generator: torch.Generator) -> None:
    model = Linear2(torch.randn(30, generator=generator), 0.1)
    x = 0.3 * torch.randn(40, 30, generator=generator)
    y = model(x).argmax(1)
    threat = ThreatModel(norm, 0.2, low=-50, high=50)
    attack = APGD(threat=threat, mode="max-loss", objective=Misclassify(margin))
    gained = margin(model(attack(model, x, y)), y) - margin(model(x), y)
    most = 0.2 * torch.linalg.vector_norm(model.weight, {"linf": 1.0, "l2": 2.0, "l1": torch.inf}[norm])
    assert (gained <= most * (1 + 1e-4)).all()
    assert (gained >= 0.98 * most).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("norm", NORMS)
def test_stopping_rows_early_finds_the_same_rows_at_exact_cost(
    kind: type[AutoPGD], norm: Norm, cnn: tuple[nn.Module, Tensor, Tensor]
) -> None:
    model, x, y = cnn
    counting, steps = Counting(model), 12
    attack = kind(threat=ThreatModel(norm, EPS[norm]), steps=steps, batch_size=16)
    if isinstance(attack, APGDT):
        attack = replace(attack, targets=3)
    stopping = attack.run(counting, x, y)
    assert counting.forward_rows == int(stopping.forward.sum())
    assert counting.backward_rows == int(stopping.backward.sum())
    in_full = replace(attack, mode="max-loss").run(model, x, y)
    assert torch.equal(stopping.success, in_full.success)
    assert 0 < stopping.success.sum() < len(x)
    assert stopping.backward.sum() < in_full.backward.sum()
    runs, clean = (3, 1) if kind is APGDT else (1, 0)
    looks = steps + 2 if norm == "l1" else steps  # one more where each of the first two radii ends
    for result, rows in ((in_full, torch.ones_like(y, dtype=torch.bool)), (stopping, ~stopping.success)):
        assert (result.backward[rows] == runs * looks).all()
        assert (result.forward[rows] == runs * (looks + 1) + clean).all()
    once = stopping.success & (stopping.restart == 0)
    assert torch.equal(stopping.backward[once], (stopping.steps[once] + 1).clamp(max=looks))


@pytest.mark.parametrize("norm", NORMS)
def test_max_loss_returns_no_lower_loss_than_the_first_success(
    norm: Norm, cnn: tuple[nn.Module, Tensor, Tensor]
) -> None:
    model, x, y = cnn
    attack = APGD(threat=ThreatModel(norm, 2 * EPS[norm]), steps=20)
    fast, full = attack.run(model, x, y), replace(attack, mode="max-loss").run(model, x, y)
    lower, higher = (cross_entropy(model(result.x_adv), y) for result in (fast, full))
    assert (higher >= lower - 1e-5).all()
    assert higher.mean() > lower.mean()


@pytest.mark.parametrize("norm", NORMS)
def test_each_restart_begins_elsewhere_and_as_far_as_eps_allows(norm: Norm, generator: torch.Generator) -> None:
    x = 0.3 + 0.4 * torch.rand(5, 1, 4, 4, generator=generator)
    threat, y, none = ThreatModel(norm, 0.2), torch.zeros(5, dtype=torch.int64), torch.device("cpu")
    rule = Adaptive(threat, 9, 0.75, 0, none) if norm != "l1" else Sparse(threat, radii(0.2, 9, False), 0, none, None)
    starts = [rule.begin(x, y, restart)[0] for restart in range(2)]
    assert ((starts[0] - starts[1]).flatten(1).abs().amax(1) > 0.01).all()
    for start in starts:
        torch.testing.assert_close(threat.distance(start, x), torch.full((5,), 0.2))


def test_restarts_cost_rows_that_still_hold_alone(cnn: tuple[nn.Module, Tensor, Tensor]) -> None:
    model, x, y = cnn
    attack = APGD(threat=ThreatModel("linf", 0.01), steps=3)
    once, often = attack.run(model, x, y), replace(attack, restarts=4).run(model, x, y)
    assert (often.success | ~once.success).all()
    assert 0 < often.success.sum() < len(x)
    assert torch.equal(often.forward[once.success], once.forward[once.success])
    assert (often.forward[~often.success] == 16).all()


def test_targets_are_the_likeliest_wrong_classes_in_order(cnn: tuple[nn.Module, Tensor, Tensor]) -> None:
    """On a linear model towards its classes, only one target at a time can lie behind the ball."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 5))
    x = cnn[1]
    with torch.no_grad():
        y = model(x).argmax(1)
        order = model(x).scatter(1, y[:, None], -torch.inf).argsort(1, descending=True)
    result = APGDT(threat=ThreatModel("linf", 1.0), steps=30, mode="max-loss").run(model, x, y)
    assert result.success.all()
    found, rows = model(result.x_adv), torch.arange(len(x))
    aimed = order[rows, result.restart]
    assert (result.restart < 4).all()
    assert (difference(found, y, aimed) > 0).all()
    first = APGDT(threat=ThreatModel("linf", 1.0), steps=30, targets=1).run(model, x, y)
    assert torch.equal(first.success, first.restart == 0)


@pytest.mark.parametrize("kind", [APGD, APGDDLR])
@pytest.mark.parametrize("norm", NORMS)
def test_a_targeted_objective_reaches_its_target(
    kind: type[AutoPGD], norm: Norm, cnn: tuple[nn.Module, Tensor, Tensor]
) -> None:
    model, x, y = cnn
    target = (y + 1) % 10
    loss = dlr if kind is APGDDLR else cross_entropy
    eps = {"linf": 0.3, "l2": 2.0, "l1": 12.0}[norm]
    attack = kind(threat=ThreatModel(norm, eps), steps=40, objective=Misclassify(loss, targeted=True))
    result = attack.run(model, x, target)
    assert result.success.double().mean() > 0.9
    assert torch.equal(model(result.x_adv).argmax(1)[result.success], target[result.success])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("classes", [1, 2, 3])
@pytest.mark.parametrize("n", [0, 1])
def test_few_classes_and_few_rows(
    kind: type[AutoPGD], norm: Norm, classes: int, n: int, generator: torch.Generator
) -> None:
    model = nn.Linear(12, classes)
    x = torch.rand(n, 12, generator=generator)
    y = model(x).argmax(1)
    attack = kind(threat=ThreatModel(norm, 1.0), steps=6)
    result = attack.run(model, x, y)
    assert result.x_adv.shape == x.shape
    assert attack.threat.allows(result.x_adv, x).all()
    assert torch.equal(result.success, model(result.x_adv).argmax(1) != y)
    assert not (classes == 1 and result.success.any())


def test_rows_that_are_wrong_already_are_successes(cnn: tuple[nn.Module, Tensor, Tensor]) -> None:
    model, x, y = cnn
    for kind in KINDS:
        result = kind(threat=ThreatModel("linf", 1e-4), steps=10).run(model, x, (y + 1) % 10)
        assert result.success.all()
        assert (result.backward == 1).all()


def test_tiny_gradients_keep_their_direction_in_l2(generator: torch.Generator) -> None:
    """Squared in single precision they would underflow to 0, and the row would be left where it started."""
    model = Linear2(1e-25 * torch.randn(30, generator=generator), 0.0)
    x = 0.3 * torch.randn(20, 30, generator=generator)
    y = model(x).argmax(1)
    weight = model.weight.detach().double()
    eps = 1.05 * ((x.double() @ weight).abs() / weight.norm()).max().item()
    threat = ThreatModel("l2", eps, low=-50, high=50)
    result = APGD(threat=threat, objective=Misclassify(margin), steps=40).run(model, x, y)
    assert result.success.all()


@pytest.mark.parametrize(
    ("kind", "norm", "options", "message"),
    [
        (APGD, "linf", {"steps": 0}, "steps must be a whole number"),
        (APGD, "linf", {"restarts": 0}, "restarts must be a whole number"),
        (APGD, "linf", {"rho": 1.5}, "from 0 to 1"),
        (APGD, "linf", {"mode": "last"}, "modes evaluate and max-loss"),
        (APGD, "linf", {"large_radii": True}, "needs norm l1"),
        (APGD, "l1", {"large_radii": True, "steps": 2}, "at least 3 steps"),
        (APGD, "l2", {"restarts": 2, "random_start": False}, "need random starts"),
        (APGD, "l0", {}, "works in linf, l2, l1"),
        (APGDT, "linf", {"targets": 0}, "targets must be a whole number"),
        (APGDT, "linf", {"objective": Misclassify(margin)}, "leave the objective out"),
        (APGDT, "linf", {"objective": Misclassify(targeted=True)}, "no targeted form"),
    ],
)
def test_impossible_configurations_are_refused(
    kind: type[AutoPGD], norm: Norm, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        kind(threat=ThreatModel(norm, 0.1), **options)
