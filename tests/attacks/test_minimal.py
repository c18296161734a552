from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from robustgen.attacks.apgd_minimal import MinimalAPGD
from robustgen.attacks.base import Attack
from robustgen.attacks.carlini_wagner import CarliniWagner
from robustgen.attacks.ddn import DDN
from robustgen.attacks.deepfool import DeepFool
from robustgen.attacks.fmn import FMN
from robustgen.attacks.minimal import Clear
from robustgen.attacks.sigma_zero import SigmaZero
from robustgen.errors import UsageError
from robustgen.objectives import Misclassify, cross_entropy, margin
from robustgen.testing import check_attack
from robustgen.threat import Norm, ThreatModel
from toys import Counting, Linear2, small_cnn

Make = Callable[..., Attack]

SEARCHES: dict[str, tuple[Make, Norm]] = {
    "ddn": (lambda **options: DDN(**{"steps": 40, **options}), "l2"),
    "fmn-linf": (lambda **options: FMN(**{"steps": 40, **options}), "linf"),
    "fmn-l2": (lambda **options: FMN(**{"steps": 40, **options}), "l2"),
    "fmn-l1": (lambda **options: FMN(**{"steps": 40, **options}), "l1"),
    "apgd-linf": (lambda **options: MinimalAPGD(**{"steps": 8, "rounds": 5, **options}), "linf"),
    "apgd-l2": (lambda **options: MinimalAPGD(**{"steps": 8, "rounds": 5, **options}), "l2"),
    "apgd-l1": (lambda **options: MinimalAPGD(**{"steps": 8, "rounds": 5, **options}), "l1"),
    "sigma-zero": (lambda **options: SigmaZero(**{"steps": 40, **options}), "l0"),
    "carlini-wagner": (
        lambda **options: CarliniWagner(**{"steps": 20, "searches": 2, "step_size": 0.1, "constant": 1, **options}),
        "l2",
    ),
}
"""Those that look for the nearest success, 40 steps each, and a norm for each."""

ALL: dict[str, tuple[Make, Norm]] = {
    **SEARCHES,
    "deepfool-linf": (DeepFool, "linf"),
    "deepfool-l2": (DeepFool, "l2"),
}

IN_ROUNDS = {"steps": 40, "rounds": 10}  # what a search in rounds needs to come as near

WIDE: dict[Norm, float] = {"linf": 1.0, "l2": 100.0, "l1": 1000.0, "l0": 1000.0}


def linear(generator: torch.Generator, n: int = 40, d: int = 30) -> tuple[Linear2, Tensor, Tensor]:
    """Inputs in [0, 1], many of them at its walls, which the model's margin crosses within them."""
    weight = torch.randn(d, generator=generator)
    x = (1.6 * torch.rand(n, d, generator=generator) - 0.3).clamp(0, 1)
    model = Linear2(weight, -0.5 * weight.sum().item())
    y = model(x).argmax(1)
    return model, x, y


def nearest(model: Linear2, x: Tensor, y: Tensor, norm: Norm) -> Tensor:
    """The smallest change inside [0, 1] that brings the margin to zero, by its optimality conditions."""
    with torch.no_grad():
        z = (x.flatten(1) @ model.weight + model.bias).double()
    w = -z.sign()[:, None] * model.weight.detach().double()
    room, gain, need = torch.where(w > 0, 1 - x.double(), x.double()), w.abs(), z.abs()
    assert ((gain * room).sum(1) > need).all()
    if norm in ("linf", "l2"):  # the change is min(s, room), or min(s * |w|, room)
        shape = torch.ones_like(gain) if norm == "linf" else gain
        low, high = torch.zeros(len(x), 1).double(), torch.full((len(x), 1), 1e3).double()
        for _ in range(80):
            s = (low + high) / 2
            reached = (gain * torch.minimum(s * shape, room)).sum(1, keepdim=True) >= need[:, None]
            low, high = torch.where(reached, low, s), torch.where(reached, s, high)
        change: Tensor = torch.minimum(high * shape, room)
        size: Tensor = torch.linalg.vector_norm(change, torch.inf if norm == "linf" else 2.0, dim=1)
        return size
    order = (gain if norm == "l1" else gain * room).argsort(1, descending=True)
    gains, room = (gain * room).gather(1, order), room.gather(1, order)
    gain = gain.gather(1, order)
    before = gains.cumsum(1) - gains
    if norm == "l0":
        return (before < need[:, None]).sum(1).double()
    rest = (need[:, None] - before).clamp(min=0) / gain
    change = torch.minimum(rest, room)
    return change.sum(1)


CONTRACTS = [name for name in ALL if name not in ("fmn-l2", "fmn-l1", "apgd-l2", "apgd-l1", "deepfool-l2")]
"""Each class once: the check goes through its norms by itself."""


@pytest.mark.parametrize("name", CONTRACTS)
def test_the_contract(name: str) -> None:
    make, _ = ALL[name]
    few = {"steps": 5} if name in SEARCHES else {}
    check_attack(lambda threat: make(threat=threat, **few))


@pytest.mark.parametrize("name", [name for name in CONTRACTS if name in SEARCHES])
def test_the_contract_where_a_row_stops_within_eps(name: str) -> None:
    make, _ = SEARCHES[name]
    check_attack(lambda threat: make(threat=threat, mode="evaluate", steps=5))


@pytest.mark.parametrize("name", [name for name in ALL if name not in ("sigma-zero", "carlini-wagner")])
def test_the_closed_form_distance_far_from_walls(name: str, generator: torch.Generator) -> None:
    make, norm = ALL[name]
    weight = torch.randn(30, generator=generator)
    model, x = Linear2(weight, 0.1), 0.1 * torch.randn(40, 30, generator=generator)
    y = model(x).argmax(1)
    threat = ThreatModel(norm, 4.0, low=-2, high=2)
    found = make(threat=threat, **(IN_ROUNDS if name.startswith("apgd") else {})).run(model, x, y)
    share = threat.distance(found.x_adv, x) / model.distance(x, norm)
    assert found.success.all()
    assert (share >= 0.9999).all()
    assert (share <= (1.025 if name.startswith("deepfool") else 1.01)).all()


@pytest.mark.parametrize("name", SEARCHES)
def test_the_optimum_inside_the_box(name: str, generator: torch.Generator) -> None:
    """In any box: the same problem moved and stretched has the same answer, moved and stretched."""
    make, norm = SEARCHES[name]
    model, x, y = linear(generator)
    best = nearest(model, x, y, norm)
    options: dict[str, float] = IN_ROUNDS if name.startswith("apgd") else {"steps": 100}
    if name == "carlini-wagner":
        options = {"steps": 300, "searches": 3, "step_size": 0.02}
    # Adam's steps, and the walls that tanh never reaches, bound how near to zero the last of these comes
    most = {"carlini-wagner": best * 1.05 + 0.01, "sigma-zero": best + 1}.get(name, best * 1.01)
    threat = ThreatModel(norm, WIDE[norm])
    found = make(threat=threat, **options)(model, x, y)
    size = threat.distance(found.double(), x.double())
    assert (model(found).argmax(1) != y).all()
    assert (size >= best * 0.9999 - 1e-6).all()  # the model's answers are rounded
    assert (size <= most).all()
    assert (size - best).mean() <= 0.1

    if name == "carlini-wagner":  # slow enough
        return

    def stretched(point: Tensor) -> Tensor:
        logits: Tensor = model((point + 3) / 4)
        return logits

    moved = 4 * x - 3
    again = make(threat=ThreatModel(norm, 4 * WIDE[norm], low=-3, high=1), **options)(stretched, moved, y)
    size = threat.distance(again.double(), moved.double()) / (1 if norm == "l0" else 4)
    assert (size >= best * 0.9999 - 1e-6).all()  # moving rounds
    assert (size <= most).all()
    assert (size - best).mean() <= 0.1


@pytest.mark.parametrize("name", ALL)
def test_pass_counts_are_exact(name: str, generator: torch.Generator) -> None:
    """n steps: n forward and backward passes (times the classes, for DeepFool) and one last forward pass."""
    make, norm = ALL[name]
    counting = Counting(small_cnn().eval())
    x = torch.rand(12, 1, 8, 8, generator=generator)
    y = counting.network(x).argmax(1)
    found = make(threat=ThreatModel(norm, WIDE[norm]), batch_size=5).run(counting, x, y)
    assert found.success.all()
    assert counting.forward_rows == int(found.forward.sum())
    if name.startswith("deepfool"):
        assert torch.equal(found.forward, found.steps + 1)
        assert torch.equal(found.backward, 10 * (found.steps + 1))
    else:
        assert counting.backward_rows == int(found.backward.sum())
        assert (found.backward == 40).all()
        assert (found.forward == 41).all()
        within = replace(make(threat=ThreatModel(norm, WIDE[norm])), mode="evaluate").run(counting, x, y)  # type: ignore[call-arg]
        assert torch.equal(within.forward, within.first_success + 1)
        assert torch.equal(within.steps, within.first_success)
        assert (within.first_success < 40).all()


@pytest.mark.parametrize("name", ALL)
def test_inputs_that_are_wrong_already_are_the_answer(name: str, generator: torch.Generator) -> None:
    make, norm = ALL[name]
    model = small_cnn().eval()
    x = torch.rand(6, 1, 8, 8, generator=generator)
    y = (model(x).argmax(1) + 1) % 10
    for eps in (0.0, 1.0):
        found = make(threat=ThreatModel(norm, eps)).run(model, x, y)
        assert torch.equal(found.x_adv, x)
        assert found.success.all()
        assert (found.first_success == 0).all()
        assert (found.forward == 1).all()


@pytest.mark.parametrize("name", ALL)
def test_one_run_gives_the_whole_curve(name: str, generator: torch.Generator) -> None:
    """eps only decides what counts: the same points, less those that lie outside, which are drawn in."""
    make, norm = ALL[name]
    model = small_cnn().eval()
    x = torch.rand(16, 1, 8, 8, generator=generator)
    y = model(x).argmax(1)
    threat = ThreatModel(norm, WIDE[norm])
    free = make(threat=threat).run(model, x, y)
    size = threat.distance(free.x_adv, x)
    eps = size.sort().values[8].item()
    tight = replace(threat, eps=eps)
    bound = make(threat=tight).run(model, x, y)
    assert 0 < bound.success.sum() < 16
    assert torch.equal(bound.success, tight.allows(free.x_adv, x))
    assert torch.equal(bound.x_adv[bound.success], free.x_adv[bound.success])
    assert (bound.first_success[~bound.success] == -1).all()
    assert tight.allows(bound.x_adv, x).all()
    assert (bound.x_adv != x).flatten(1).any(1).all()


@pytest.mark.parametrize("name", SEARCHES)
def test_towards_a_target(name: str, generator: torch.Generator) -> None:
    make, norm = SEARCHES[name]
    model = small_cnn().eval()
    x = torch.rand(8, 1, 8, 8, generator=generator)
    target = (model(x).argmax(1) + 3) % 10
    loss = cross_entropy if name == "ddn" else margin
    threat = ThreatModel(norm, WIDE[norm])
    aimed = make(threat=threat, objective=Misclassify(loss, targeted=True)).run(model, x, target)
    anything = make(threat=threat).run(model, x, model(x).argmax(1))
    assert aimed.success.all()
    assert torch.equal(model(aimed.x_adv).argmax(1), target)
    assert threat.distance(aimed.x_adv, x).mean() > threat.distance(anything.x_adv, x).mean()


def test_polishing_only_drops_changes(generator: torch.Generator) -> None:
    model = small_cnn().eval()
    x = torch.rand(16, 1, 8, 8, generator=generator)
    y = model(x).argmax(1)
    threat = ThreatModel("l0", 64)
    as_published = threat.distance(SigmaZero(threat=threat, steps=45, polish=0.0)(model, x, y), x)
    cut = threat.distance(SigmaZero(threat=threat, steps=60, polish=0.25)(model, x, y), x)
    assert cut.sum() < as_published.sum()


def test_deepfool_has_no_targeted_form() -> None:
    with pytest.raises(UsageError, match="no targeted form"):
        DeepFool(threat=ThreatModel("l2", 1.0), objective=Misclassify(targeted=True))


def test_deepfool_with_fewer_candidates_costs_less_and_still_succeeds(generator: torch.Generator) -> None:
    model = small_cnn().eval()
    x = torch.rand(12, 1, 8, 8, generator=generator)
    y = model(x).argmax(1)
    few = DeepFool(threat=ThreatModel("l2", 100.0), candidates=3).run(model, x, y)
    assert few.success.all()
    assert torch.equal(few.backward, 3 * (few.steps + 1))


def test_deepfool_goes_to_the_nearest_of_several_boundaries(generator: torch.Generator) -> None:
    """Of a linear model with many classes: min over k of the margin to k over the length of the slope's difference."""
    model = nn.Linear(20, 8, bias=False)
    nn.init.normal_(model.weight, generator=generator)
    x = torch.rand(40, 20, generator=generator)
    with torch.no_grad():
        logits = model(x)
        y = logits.argmax(1)
        for norm, order in (("l2", 2.0), ("linf", 1.0)):
            length = torch.linalg.vector_norm(model.weight[None] - model.weight[y][:, None], order, dim=2)
            gap = torch.where(length > 0, (logits.gather(1, y[:, None]) - logits) / length, torch.inf).amin(1)
            threat = ThreatModel(norm, 50.0, low=-50, high=50)  # type: ignore[arg-type]  # two of the norms
            found = DeepFool(threat=threat).run(model, x, y)
            share = threat.distance(found.x_adv, x) / gap
            assert found.success.all()
            assert (share > 1).all()
            assert (share < 1.02 + 1e-3 / gap).all()


def test_confidence_asks_for_more(generator: torch.Generator) -> None:
    model = small_cnn().eval()
    x = torch.rand(8, 1, 8, 8, generator=generator)
    y = model(x).argmax(1)
    make, _ = SEARCHES["carlini-wagner"]
    found = make(threat=ThreatModel("l2", 100.0), confidence=0.5, searches=3).run(model, x, y)
    assert found.success.all()
    assert (margin(model(found.x_adv), y) >= 0.499).all()
    none = make(threat=ThreatModel("l2", 100.0), confidence=1e6).run(model, x, y)
    assert not none.success.any()


def test_a_flat_model_does_not_stop_ddn(generator: torch.Generator) -> None:
    """Where the gradient is zero it leaves in a direction of the sample's own."""

    class Stepped(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            z = (x.flatten(1) - 0.5).abs().sum(1).round() - 4
            return torch.stack([z, -z], 1)

    x = 0.5 + 0.05 * torch.rand(6, 30, generator=generator)
    found = DDN(threat=ThreatModel("l2", 5.0), steps=60).run(Stepped(), x, torch.ones(6, dtype=torch.int64))
    assert found.zero_gradient.all()
    assert found.success.all()


def test_a_tie_is_no_success() -> None:
    objective = Clear(Misclassify(margin))
    logits = torch.tensor([[1.0, 1.0 + 1e-6], [1.0, 1.1], [1.1, 1.0], [-2.0, -1.9]])
    _, achieved = objective(lambda x: x, logits, torch.zeros(4, dtype=torch.int64))
    assert achieved.tolist() == [False, True, False, True]


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("n", [0, 1])
def test_few_rows_and_two_classes(name: str, n: int, generator: torch.Generator) -> None:
    make, norm = ALL[name]
    model, x, y = linear(generator, n=1)
    found = make(threat=ThreatModel(norm, WIDE[norm])).run(model, x[:n], y[:n])
    assert found.success.all()
    assert found.x_adv.shape == (n, 30)


@pytest.mark.parametrize(
    ("make", "norm", "options", "message"),
    [
        (DDN, "linf", {}, "DDN works in l2"),
        (FMN, "l0", {}, "FMN works in linf, l2, l1"),
        (SigmaZero, "l2", {}, "SigmaZero works in l0"),
        (CarliniWagner, "linf", {}, "CarliniWagner works in l2"),
        (DeepFool, "l1", {}, "DeepFool works in linf, l2"),
        (MinimalAPGD, "l0", {}, "MinimalAPGD works in linf, l2, l1"),
        (MinimalAPGD, "l2", {"rounds": 0}, "rounds must be a whole number"),
        (DDN, "l2", {"steps": 0}, "steps must be a whole number"),
        (DDN, "l2", {"gamma": 1.0}, "gamma, the share"),
        (FMN, "l2", {"gamma_final": 0.2}, "gamma, the share"),
        (FMN, "l2", {"alpha": 0.0}, "alpha must be a number above 0"),
        (DDN, "l2", {"init_norm": -1.0}, "init_norm must be a number above 0"),
        (SigmaZero, "l0", {"threshold": 2.0}, "threshold must lie in"),
        (SigmaZero, "l0", {"polish": 1.0}, "polish, a share"),
        (CarliniWagner, "l2", {"searches": 0}, "searches must be a whole number"),
        (CarliniWagner, "l2", {"confidence": -1.0}, "confidence must be 0 or more"),
        (DeepFool, "l2", {"candidates": 1}, "candidates must be at least 2"),
        (DeepFool, "l2", {"overshoot": -0.1}, "overshoot must be 0 or more"),
        (FMN, "l2", {"precision": "bfloat16"}, "needs float32"),
    ],
)
def test_impossible_configurations_are_refused(
    make: Make, norm: Norm, options: dict[str, object], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        make(threat=ThreatModel(norm, 1.0), **options)
