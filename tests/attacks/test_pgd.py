from __future__ import annotations

import pytest
import torch
from torch import Tensor

from robustgen.attacks.fgsm import FGSM
from robustgen.attacks.pgd import PGD
from robustgen.errors import UsageError
from robustgen.objectives import Misclassify, cross_entropy, dlr, margin
from robustgen.threat import Norm, ThreatModel
from toys import Counting, Linear2, small_cnn

NORMS: tuple[Norm, ...] = ("linf", "l2", "l1")


@pytest.fixture
def linear(generator: torch.Generator) -> tuple[Linear2, Tensor, Tensor]:
    """A linear model and inputs far from the walls, with the labels that it gives them."""
    model = Linear2(torch.randn(30, generator=generator), 0.1)
    x = 0.3 * torch.randn(60, 30, generator=generator)
    return model, x, model(x).argmax(1)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("random_start", [False, True])
def test_pgd_succeeds_exactly_beyond_the_closed_form_distance(
    norm: Norm, random_start: bool, linear: tuple[Linear2, Tensor, Tensor]
) -> None:
    model, x, y = linear
    nearest = model.distance(x, norm)
    for share, fooled in ((1.03, True), (0.97, False)):
        for row in range(0, 60, 6):
            threat = ThreatModel(norm, share * nearest[row].item(), low=-50, high=50)
            result = PGD(threat=threat, steps=40, random_start=random_start).run(
                model, x[row : row + 1], y[row : row + 1]
            )
            assert bool(result.success) == fooled


@pytest.mark.parametrize("norm", NORMS)
def test_pgd_gains_all_that_a_linear_model_gives(norm: Norm, linear: tuple[Linear2, Tensor, Tensor]) -> None:
    """The largest gain of the margin is eps * ||w||_dual; PGD in full reaches it within 5 %."""
    model, x, y = linear
    threat = ThreatModel(norm, 0.2, low=-50, high=50)
    attack = PGD(threat=threat, steps=40, mode="max-loss", objective=Misclassify(margin))
    gained = margin(model(attack(model, x, y)), y) - margin(model(x), y)
    most = 0.2 * torch.linalg.vector_norm(model.weight, {"linf": 1.0, "l2": 2.0, "l1": torch.inf}[norm])
    assert (gained <= most * (1 + 1e-5)).all()
    assert (gained >= 0.95 * most).all()


@pytest.mark.parametrize("norm", NORMS)
def test_pgd_finds_the_optimum_inside_the_box(norm: Norm, generator: torch.Generator) -> None:
    """With walls near, the optimum of a linear model is a fractional knapsack (L1) or a clipped ball; scipy gives
    it.
    """
    from scipy.optimize import linprog, minimize

    weight = torch.randn(6, generator=generator)
    model, x = Linear2(weight, 0.0), torch.rand(5, 6, generator=generator)
    y, w = torch.ones(5, dtype=torch.int64), weight.double().numpy()
    eps = {"linf": 0.3, "l2": 0.8, "l1": 1.2}[norm]
    attack = PGD(threat=ThreatModel(norm, eps), steps=200, mode="max-loss", objective=Misclassify(margin))
    gained = (margin(model(attack(model, x, y)), y) - margin(model(x), y)).tolist()
    for here, gain in zip(x.double().numpy(), gained, strict=True):
        room = [(max(-v, -eps), min(1 - v, eps)) for v in here]
        if norm == "l1":  # delta = p - q
            bounds = [(0, high) for _, high in room] + [(0, -low) for low, _ in room]
            best = -linprog([*w, *-w], A_ub=[[1] * 12], b_ub=[eps], bounds=bounds).fun
        elif norm == "linf":
            best = sum(max(-v * low, -v * high) for v, (low, high) in zip(w, room, strict=True))
        else:
            ball = {"type": "ineq", "fun": lambda d: eps**2 - d @ d}
            best = -minimize(lambda d: d @ w, [0.0] * 6, bounds=room, constraints=[ball], method="SLSQP").fun
        assert gain >= 0.95 * best


@pytest.mark.parametrize("mode", ["evaluate", "max-loss", "last"])
def test_pass_counts_are_exact(mode: str, generator: torch.Generator) -> None:
    """n steps cost n forward and n backward passes a row and one last forward pass; a settled row costs nothing
    more.
    """
    counting = Counting(small_cnn().eval())
    x = torch.rand(40, 1, 8, 8, generator=generator)
    y = counting.network(x).argmax(1)
    attack = PGD(threat=ThreatModel("linf", 0.02), steps=6, mode=mode, batch_size=16)  # type: ignore[arg-type]
    result = attack.run(counting, x, y)
    assert counting.forward_rows == int(result.forward.sum())
    assert counting.backward_rows == int(result.backward.sum())
    if mode == "evaluate":
        assert 0 < result.success.sum() < 40
        assert torch.equal(result.backward[result.success], torch.clamp(result.steps[result.success] + 1, max=6))
        assert (result.backward[~result.success] == 6).all()
    else:
        assert (result.backward == 6).all()
    assert (result.forward <= 7).all()
    counting.forward_rows = 0
    attack(counting, x, y)
    assert counting.forward_rows == (int(result.forward.sum()) if mode != "last" else 240)


def test_restarts_only_cost_rows_that_still_hold_and_only_help(generator: torch.Generator) -> None:
    model = small_cnn().eval()
    x = torch.rand(80, 1, 8, 8, generator=generator)
    y = model(x).argmax(1)
    threat = ThreatModel("linf", 0.02)
    once = PGD(threat=threat, steps=3).run(model, x, y)
    often = PGD(threat=threat, steps=3, restarts=5).run(model, x, y)
    assert (often.success | ~once.success).all()
    assert torch.equal(often.forward[once.success], once.forward[once.success])
    assert (often.forward[~often.success] == 5 * 4).all()


def test_the_active_set_changes_cost_and_not_the_result(generator: torch.Generator) -> None:
    """Stopping at the first success finds the same rows as looking at every iterate to the end."""
    model = small_cnn().eval()
    x = torch.rand(80, 1, 8, 8, generator=generator)
    y = model(x).argmax(1)
    threat = ThreatModel("l2", 0.1)
    stopping = PGD(threat=threat, steps=8).run(model, x, y)
    in_full = PGD(threat=threat, steps=8, mode="max-loss").run(model, x, y)
    assert torch.equal(stopping.success, in_full.success)
    assert 0 < stopping.success.sum() < 80
    assert stopping.backward.sum() < in_full.backward.sum()


def test_success_grows_with_eps_and_reaches_everything_in_the_full_box(generator: torch.Generator) -> None:
    model = small_cnn().eval()
    x = torch.rand(60, 1, 8, 8, generator=generator)
    y = model(x).argmax(1)
    shares = [
        PGD(threat=ThreatModel("linf", eps), steps=20).run(model, x, y).success.float().mean()
        for eps in (0.0, 0.01, 0.03, 1.0)
    ]
    assert shares == sorted(shares)
    assert shares[0] == 0
    assert shares[-1] == 1


def test_failed_rows_come_back_attacked_not_clean(generator: torch.Generator) -> None:
    model = small_cnn().eval()
    x = torch.rand(30, 1, 8, 8, generator=generator)
    y = model(x).argmax(1)
    result = PGD(threat=ThreatModel("linf", 0.005), steps=5).run(model, x, y)
    held = ~result.success
    assert held.any()
    assert (cross_entropy(model(result.x_adv[held]), y[held]) > cross_entropy(model(x[held]), y[held])).all()


@pytest.mark.parametrize("loss", [cross_entropy, margin])
def test_a_targeted_attack_reaches_its_target(loss: object, generator: torch.Generator) -> None:
    model = small_cnn().eval()
    x = torch.rand(20, 1, 8, 8, generator=generator)
    target = (model(x).argmax(1) + 1) % 10
    attack = PGD(threat=ThreatModel("linf", 0.5), steps=60, objective=Misclassify(loss, targeted=True))  # type: ignore[arg-type]
    result = attack.run(model, x, target)
    assert result.success.float().mean() > 0.9
    assert torch.equal(model(result.x_adv).argmax(1)[result.success], target[result.success])


def test_a_targeted_dlr_aims_at_the_target(generator: torch.Generator) -> None:
    model = small_cnn().eval()
    x = torch.rand(60, 1, 8, 8, generator=generator)
    target = (model(x).argmax(1) + 1) % 10
    attack = PGD(threat=ThreatModel("linf", 0.3), objective=Misclassify(dlr, targeted=True))
    result = attack.run(model, x, target)
    assert result.success.double().mean() > 0.9
    assert torch.equal(model(result.x_adv).argmax(1)[result.success], target[result.success])


def test_fgsm_is_its_formula_bit_by_bit(generator: torch.Generator) -> None:
    model = small_cnn().eval()
    x = torch.rand(50, 1, 8, 8, generator=generator)
    y = torch.randint(0, 10, (50,), generator=generator)
    point = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(torch.nn.functional.cross_entropy(model(point), y, reduction="sum"), point)
    for eps in (0.0, 0.01, 8 / 255, 0.3, 1.0):
        ours = FGSM(threat=ThreatModel("linf", eps))(model, x, y)
        assert torch.equal(ours, (x + eps * gradient.sign()).clamp(0, 1))


def test_an_exception_inside_the_model_leaves_it_as_it_was(generator: torch.Generator) -> None:
    model = small_cnn()
    model.add_module("broken", torch.nn.Linear(3, 3))
    model.train()
    strides = [p.stride() for p in model.parameters()]
    with pytest.raises(RuntimeError):
        PGD(threat=ThreatModel("linf", 0.1))(
            model, torch.rand(4, 1, 8, 8, generator=generator), torch.zeros(4, dtype=torch.int64)
        )
    assert all(module.training for module in model.modules())
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    assert [p.stride() for p in model.parameters()] == strides


def test_a_model_without_gradients_is_survived_and_reported(generator: torch.Generator) -> None:
    model = small_cnn().eval()
    x = torch.rand(10, 1, 8, 8, generator=generator)
    y = model(x).argmax(1)
    result = PGD(threat=ThreatModel("linf", 0.1), steps=3, random_start=False).run(lambda z: model(z.detach()), x, y)
    assert result.zero_gradient.all()
    assert not result.success.any()


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (torch.zeros(2, 3, dtype=torch.uint8), torch.zeros(2, dtype=torch.int64), "divide uint8"),
        (torch.zeros(2, 3), torch.zeros(3, dtype=torch.int64), "labels y of shape"),
        (torch.zeros(2, 3), torch.zeros(2), "int64"),
        (torch.full((2, 3), 2.0), torch.zeros(2, dtype=torch.int64), "outside the box"),
        (torch.full((2, 3), torch.nan), torch.zeros(2, dtype=torch.int64), "NaN"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(x: Tensor, y: Tensor, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        PGD(threat=ThreatModel("linf", 0.1))(lambda z: z, x, y)
