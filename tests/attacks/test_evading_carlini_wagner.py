"""Carlini and Wagner's attack on a classifier and its detector: the nearest point that is wrong and accepted."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import linprog, minimize
from torch import Tensor

from robustgen.attacks.carlini_wagner import CarliniWagner
from robustgen.attacks.evading_carlini_wagner import EvadingCarliniWagner, TwoHinges
from robustgen.errors import UsageError
from robustgen.objectives import Rejection
from robustgen.testing import check_attack
from robustgen.threat import Norm, ThreatModel
from toys import Linear2, small_cnn

FEW: dict[str, Any] = {"steps": 30, "searches": 4, "constant": 1.0}
EVERYTHING = Rejection(lambda x, label: -1 - x.flatten(1).square().sum(1), 0.0)
NOTHING = Rejection(lambda x, label: 1 + x.flatten(1).square().sum(1), 0.0)
LINF, L2 = ThreatModel("linf", 0.3), ThreatModel("l2", 2.0)


def mean(x: Tensor, label: Tensor) -> Tensor:
    """A score that grows with the values' mean, and with the label."""
    return x.flatten(1).mean(1) + 0.01 * label


@pytest.mark.parametrize("mode", ["minimal", "evaluate"])
def test_it_keeps_the_promises_of_an_attack(mode: Any) -> None:
    rejection = Rejection(mean, 0.5)
    check_attack(lambda threat: EvadingCarliniWagner(threat=threat, rejection=rejection, steps=4, mode=mode))


def images(n: int, generator: torch.Generator) -> tuple[Any, Tensor, Tensor]:
    model = small_cnn().eval()
    x = torch.rand(n, 1, 8, 8, generator=generator)
    return model, x, model(x).argmax(1)


@pytest.mark.parametrize("mode", ["minimal", "evaluate"])
def test_a_detector_that_accepts_everything_changes_nothing(mode: Any, generator: torch.Generator) -> None:
    model, x, y = images(12, generator)
    plain = CarliniWagner(threat=L2, mode=mode, step_size=0.1, **FEW).run(model, x, y)
    both = EvadingCarliniWagner(threat=L2, rejection=EVERYTHING, mode=mode, **FEW).run(model, x, y)
    assert plain.success.any()
    assert torch.equal(both.x_adv, plain.x_adv)
    assert torch.equal(both.success, plain.success)
    assert torch.equal(both.forward, plain.forward)


@pytest.mark.parametrize("threat", [L2, LINF])
def test_a_detector_that_rejects_everything_is_never_evaded(threat: ThreatModel, generator: torch.Generator) -> None:
    model, x, y = images(8, generator)
    found = EvadingCarliniWagner(threat=threat, rejection=NOTHING, **FEW).run(model, x, y)
    assert not found.success.any()
    assert (model(found.x_adv).argmax(1) != y).any()  # the best attempt has a wrong label
    assert threat.allows(found.x_adv, x).all()


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_what_is_returned_as_a_success_is_one(norm: Norm, generator: torch.Generator) -> None:
    model, x, y = images(8, generator)
    rejection = Rejection(mean, float(mean(x, y).median()))
    lost = torch.zeros(8, dtype=torch.bool)
    for eps in (0.05, 0.3, 1.0) if norm == "linf" else (0.3, 0.8, 6.0):
        threat = ThreatModel(norm, eps)
        found = EvadingCarliniWagner(threat=threat, rejection=rejection, **FEW).run(model, x, y)
        predicted = model(found.x_adv).argmax(1)
        succeeds = (predicted != y) & rejection(found.x_adv, predicted)[1]
        assert threat.allows(found.x_adv, x).all()
        assert succeeds[found.success].all()
        assert not (lost & ~found.success).any()  # what falls in a ball falls in a larger one
        lost = found.success
        stopped = EvadingCarliniWagner(threat=threat, rejection=rejection, mode="evaluate", **FEW).run(model, x, y)
        assert torch.equal(stopped.success, found.success)
        assert (stopped.forward <= found.forward).all()
    assert lost.sum() >= 6


def smallest(model: Linear2, v: Tensor, limit: float, x: Tensor, y: Tensor, norm: Norm) -> np.ndarray[Any, Any]:
    """The smallest change inside [0, 1] that brings w.x + b to 0 and v.x to `limit`, by a solver."""
    w, b = model.weight.detach().double().numpy(), float(model.bias.detach())
    sizes = []
    for row, label in zip(x.double().numpy(), y.tolist(), strict=True):
        sign = 1 - 2 * label  # the label is 1 where w.x + b > 0
        rows = np.stack([-sign * w, v.double().numpy()])
        ends = np.array([sign * (w @ row + b), limit - v.double().numpy() @ row])
        walls = [(-value, 1 - value) for value in row]
        if norm == "linf":
            d = len(row)
            bounded = np.block([[np.eye(d), -np.ones((d, 1))], [-np.eye(d), -np.ones((d, 1))]])
            both = np.concatenate([np.hstack([rows, np.zeros((2, 1))]), bounded])
            found = linprog(np.eye(d + 1)[d], both, np.concatenate([ends, np.zeros(2 * d)]), bounds=[*walls, (0, None)])
            sizes.append(found.fun)
        else:
            inside = {"type": "ineq", "fun": lambda z, r=rows, e=ends: e - r @ z, "jac": lambda z, r=rows: -r}
            found = minimize(lambda z: z @ z, 0 * row, jac=lambda z: 2 * z, bounds=walls, constraints=inside)
            sizes.append(np.sqrt(found.fun))
        assert found.success
    return np.asarray(sizes)


@pytest.mark.parametrize(("norm", "share"), [("l2", 1.03), ("linf", 1.05)])
def test_the_smallest_change_for_a_linear_classifier_and_a_linear_score(
    norm: Norm, share: float, generator: torch.Generator
) -> None:
    weight, v = torch.randn(2, 20, generator=generator)
    model = Linear2(weight, -0.5 * weight.sum().item())
    x = 0.1 + 0.8 * torch.rand(12, 20, generator=generator)
    y = model(x).argmax(1)
    score = x @ v
    limit = float(score.quantile(0.2))  # most inputs are rejected as they are, and some are not
    best = smallest(model, v, limit, x, y, norm)
    rejection = Rejection(lambda x, label: x.flatten(1) @ v, limit, float(score.std()))
    threat = ThreatModel(norm, 1.0 if norm == "linf" else 10.0)
    found = EvadingCarliniWagner(threat=threat, rejection=rejection, steps=100, searches=6, step_size=0.05).run(
        model, x, y
    )
    size = threat.distance(found.x_adv, x).double().numpy()
    assert found.success.all()
    assert (size > best * (1 - 1e-4) - 1e-6).all()
    assert (size < best * share + 0.01).all()
    alone = CarliniWagner(threat=ThreatModel("l2", 10.0), steps=100, searches=6, step_size=0.05, constant=1.0).run(
        model, x, y
    )
    if norm == "l2":
        both = size > threat.distance(alone.x_adv, x).double().numpy() + 0.05
        assert both.any()  # the detector asks for more somewhere


def test_a_hinge_pulls_only_while_its_aim_is_not_reached() -> None:
    """Logits (0, 10 (a - 1/2)), score b: the gradient in closed form, by which aims are reached."""
    x = torch.tensor([[0.2, 0.9], [0.8, 0.9], [0.2, 0.1], [0.8, 0.1]], requires_grad=True)
    model = Linear2(torch.tensor([10.0, 0.0]), -5.0)
    objective = TwoHinges(Rejection(lambda x, label: x[:, 1], 0.5, 0.1), torch.tensor([3.0, 1.0]))
    value, achieved = objective(model, x, torch.tensor([[0, 0], [0, 0], [0, 1], [0, 1]]))
    (gradient,) = torch.autograd.grad(value.sum(), x)
    torch.testing.assert_close(gradient, torch.tensor([[10.0, -30.0], [0.0, -30.0], [10.0, 0.0], [0.0, 0.0]]))
    assert achieved.tolist() == [False, False, False, True]
    assert (value > 0).tolist() == [False, True, False, True]


def test_confidence_asks_for_more(generator: torch.Generator) -> None:
    model = Linear2(torch.tensor([10.0, 1.0]), -5.0)
    x = torch.rand(6, 2, generator=generator) * torch.tensor([0.4, 1.0])
    y = torch.zeros(6, dtype=torch.int64)
    attack = EvadingCarliniWagner(threat=L2, rejection=EVERYTHING, confidence=2.0, searches=4)
    found = attack.run(model, x, y)
    assert found.success.all()
    assert (model(found.x_adv)[:, 1] >= 2).all()


@pytest.mark.parametrize("options", [{"steps": 0}, {"searches": 0}, {"step_size": 0.0}, {"confidence": -1.0}])
def test_impossible_configurations_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(options))):
        EvadingCarliniWagner(threat=L2, rejection=EVERYTHING, **options)


def test_it_works_in_two_norms() -> None:
    with pytest.raises(UsageError, match="works in l2, linf"):
        EvadingCarliniWagner(threat=ThreatModel("l1", 1.0), rejection=EVERYTHING)
