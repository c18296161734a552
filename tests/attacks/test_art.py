"""Known answers: the same attacks from ART, made by hand as its users do, and from their formulas.

ART logs instead of warning and its progress bars are off (`verbose=False`), so no warning needs to be let through here.
"""

from __future__ import annotations

import sys
from copy import deepcopy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from robustgen.attacks.art import art_classifier
from robustgen.attacks.base import Attack
from robustgen.attacks.fgsm import FGSM
from robustgen.attacks.passes import evaluated
from robustgen.attacks.pgd import PGD
from robustgen.data.load import load
from robustgen.errors import MissingPackageError
from robustgen.objectives import Misclassify
from robustgen.threat import ThreatModel
from robustgen.training.classifier import train
from robustgen.training.descent import Recipe

EPS = [0.0, 1 / 255, 0.1, 0.3, 1.0]


@pytest.fixture(scope="module")
def digits() -> tuple[Tensor, Tensor]:
    """All 1,797 digits."""
    source = load("digits")
    batch = source.read(source.rows("all"))
    assert batch.y is not None
    return batch.x, batch.y


@pytest.fixture(scope="module")
def victim() -> nn.Module:
    """About 95 % accurate, and fooled on some digits but not all at eps 0.1."""
    return train(load("digits"), "small-cnn", recipe=Recipe(epochs=4)).model.network


@pytest.fixture(scope="module")
def reference(victim: nn.Module, digits: tuple[Tensor, Tensor]) -> Any:
    """The estimator that ART's own examples build."""
    from art.estimators.classification import PyTorchClassifier

    loss, shape = nn.CrossEntropyLoss(), tuple(digits[0].shape[1:])
    return PyTorchClassifier(
        victim, loss=loss, input_shape=shape, nb_classes=10, clip_values=(0.0, 1.0), device_type="cpu"
    )


@pytest.mark.parametrize("eps", EPS)
def test_fgsm_is_the_three_lines_of_its_formula(victim: nn.Module, digits: tuple[Tensor, Tensor], eps: float) -> None:
    parts = []
    for x, y in zip(digits[0].split(256), digits[1].split(256), strict=True):
        point = x.clone().requires_grad_()
        with evaluated(victim):  # the same memory order: in another one, rounding can tip a ReLU, and with it a sign
            gradient = torch.autograd.grad(nn.functional.cross_entropy(victim(point), y, reduction="sum"), point)[0]
        parts.append((x + eps * gradient.sign()).clamp(0, 1))
    assert torch.equal(FGSM(threat=ThreatModel("linf", eps))(victim, *digits), torch.cat(parts))


@pytest.mark.parametrize("eps", EPS[1:])  # ART has no step of length 0
def test_fgsm_equals_arts(victim: nn.Module, reference: Any, digits: tuple[Tensor, Tensor], eps: float) -> None:
    """Bit for bit in the same memory order; in the usual one but for the few signs that its rounding can change."""
    from art.attacks.evasion import FastGradientMethod

    x, y = digits
    ours = FGSM(threat=ThreatModel("linf", eps))(victim, x, y).numpy()
    shielded = FastGradientMethod(art_classifier(victim, (1, 8, 8), 10), eps=eps, batch_size=256)
    assert np.array_equal(ours, shielded.generate(x.numpy(), y.numpy()))
    bare = FastGradientMethod(reference, eps=eps, batch_size=256)
    assert (ours == bare.generate(x.numpy(), y.numpy())).all((1, 2, 3)).mean() >= 0.995


@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.1), ("linf", 0.2), ("l2", 0.5)])
def test_pgd_follows_arts(
    victim: nn.Module, reference: Any, digits: tuple[Tensor, Tensor], norm: Any, eps: float
) -> None:
    """Two memory orders round differently, which can tip a ReLU and send a path elsewhere: so shares of rows."""
    from art.attacks.evasion import ProjectedGradientDescentPyTorch

    x, y = digits[0][:300], digits[1][:300]
    size = 2.5 * eps / 20
    order = np.inf if norm == "linf" else 2
    theirs = ProjectedGradientDescentPyTorch(
        reference, norm=order, eps=eps, eps_step=size, max_iter=20, batch_size=256, verbose=False
    )
    expected = torch.from_numpy(theirs.generate(x.numpy(), y.numpy()))
    attack = PGD(threat=ThreatModel(norm, eps), steps=20, step_size=size, random_start=False, mode="last")
    ours = attack(victim, x, y)
    # in L2 ART projects onto the ball and then the box, and so falls short of the nearest legal point
    if norm == "linf":
        assert ((ours - expected).abs().flatten(1).amax(1) <= 1e-6).double().mean() >= 0.99
    with torch.no_grad():
        fooled, fooled_by_art = victim(ours).argmax(1) != y, victim(expected).argmax(1) != y
    assert 0.05 < fooled.double().mean() < 0.95
    assert (fooled != fooled_by_art).double().mean() <= 0.01


def test_stopping_at_success_fools_what_arts_last_iterate_fools(
    victim: nn.Module, reference: Any, digits: tuple[Tensor, Tensor]
) -> None:
    from art.attacks.evasion import ProjectedGradientDescentPyTorch

    x, y = digits[0][:200], digits[1][:200]
    theirs = ProjectedGradientDescentPyTorch(reference, eps=0.1, eps_step=0.01, max_iter=20, verbose=False)
    expected = torch.from_numpy(theirs.generate(x.numpy(), y.numpy()))
    result = PGD(threat=ThreatModel("linf", 0.1), steps=20, step_size=0.01, random_start=False).run(victim, x, y)
    with torch.no_grad():
        lost = (victim(expected).argmax(1) != y) & ~result.success
    assert lost.double().mean() <= 0.01


@pytest.mark.parametrize("name", ["HopSkipJump", "BoundaryAttack"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_decision_based_attacks_run_on_float64_inputs(
    victim: nn.Module, digits: tuple[Tensor, Tensor], name: str, dtype: torch.dtype
) -> None:
    import art.attacks.evasion

    x = digits[0][:4].numpy()
    options: dict[str, dict[str, Any]] = {
        "HopSkipJump": {"max_iter": 2, "max_eval": 50, "init_eval": 10, "init_size": 50},
        "BoundaryAttack": {"targeted": False, "max_iter": 10, "num_trial": 5, "sample_size": 5, "init_size": 50},
    }
    network = train(load("digits"), "mlp", recipe=Recipe(epochs=1)).model.network.to(dtype)
    estimator = art_classifier(network, (1, 8, 8), 10)
    x_adv = getattr(art.attacks.evasion, name)(estimator, verbose=False, **options[name]).generate(x)
    changed = estimator.predict(x_adv).argmax(1) != estimator.predict(x).argmax(1)
    assert changed.all()
    assert x_adv.min() >= 0
    assert x_adv.max() <= 1
    assert {p.dtype for p in network.parameters()} == {dtype}


def test_arts_attacks_leave_a_shielded_network_as_it_was(victim: nn.Module, digits: tuple[Tensor, Tensor]) -> None:
    from art.attacks.evasion import FastGradientMethod, ProjectedGradientDescentPyTorch

    x, y = digits[0][:100].numpy(), digits[1][:100].numpy()
    before = _state(victim.train())
    estimator = art_classifier(victim, (1, 8, 8), 10)
    FastGradientMethod(estimator, eps=0.1).generate(x, y)
    ProjectedGradientDescentPyTorch(estimator, max_iter=2, verbose=False).generate(x, y)
    estimator.class_gradient(x[:2])
    assert _state(victim) == before
    victim.eval()


def test_a_function_without_parameters_is_wrapped_too(digits: tuple[Tensor, Tensor]) -> None:
    estimator = art_classifier(lambda x: x.flatten(1)[:, :10], (1, 8, 8), 10)
    assert np.array_equal(estimator.predict(digits[0][:5].numpy().astype(np.float64)), digits[0][:5].flatten(1)[:, :10])


class _HalvedSequential(nn.Sequential):
    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self[1](self[0](x / 2))
        return logits


def test_a_sequential_network_with_a_forward_of_its_own_is_called_by_it(digits: tuple[Tensor, Tensor]) -> None:
    """ART calls the layers of a bare one in turn, and so attacks another network."""
    network = _HalvedSequential(nn.Flatten(), nn.Linear(64, 10))
    x = digits[0][:5]
    assert np.array_equal(art_classifier(network, (1, 8, 8), 10).predict(x.numpy()), network(x).detach().numpy())


def test_missing_art_is_said_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "art.estimators.classification", None)
    with pytest.raises(MissingPackageError, match="pip install adversarial-robustness-toolbox"):
        art_classifier(nn.Linear(2, 2), (2,), 2)


class _Broken(RuntimeError):
    pass


class _Counted:
    """An objective that breaks at its second call."""

    calls = 0

    def __call__(self, model: Any, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        self.calls += 1
        if self.calls == 2:
            raise _Broken
        return Misclassify()(model, x, y)


def _state(network: nn.Module) -> dict[str, Any]:
    """All of a network that an attack could change, comparable with ==."""
    return {
        "training": [module.training for module in network.modules()],
        "parameters": [
            (id(p), p.data_ptr(), p.stride(), p.requires_grad, p._version, p.detach().numpy().tobytes(), _bytes(p.grad))
            for p in network.parameters()
        ],
        "buffers": [(id(b), b.numpy().tobytes()) for b in network.buffers()],
    }


def _bytes(tensor: Tensor | None) -> bytes | None:
    return None if tensor is None else tensor.numpy().tobytes()


@pytest.fixture
def mixed() -> nn.Sequential:
    """A network in which everything that could be disturbed is set in an unusual way."""
    network = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(), nn.Flatten(), nn.Linear(144, 10)
    )
    network[0].weight.requires_grad_(False)
    network[5].bias.grad = torch.ones(10)
    network[1].eval()
    return network


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    "attack",
    [
        FGSM(threat=ThreatModel("linf", 0.1)),
        PGD(threat=ThreatModel("linf", 0.1), steps=5, restarts=2, batch_size=7),
        PGD(threat=ThreatModel("l2", 1.0), steps=5, mode="max-loss"),
        PGD(threat=ThreatModel("l1", 5.0), steps=5, mode="last"),
    ],
)
def test_an_attack_changes_nothing_but_its_result(mixed: nn.Sequential, attack: Attack, training: bool) -> None:
    mixed[3].train(training)
    x, y = torch.rand(20, 1, 8, 8, requires_grad=True), torch.arange(20) % 10
    before, x_before, y_before = _state(mixed), x.detach().clone(), y.clone()
    random, random_numpy = torch.get_rng_state(), repr(np.random.get_state())  # noqa: NPY002  # the state that must stay
    attack(mixed, x, y)
    attack.run(mixed, x, y)
    assert _state(mixed) == before
    assert torch.equal(x, x_before)
    assert torch.equal(y, y_before)
    assert x.grad is None
    assert torch.equal(torch.get_rng_state(), random)
    assert repr(np.random.get_state()) == random_numpy  # noqa: NPY002


def test_an_exception_inside_leaves_the_network_as_it_was(mixed: nn.Module) -> None:
    x = torch.rand(20, 1, 8, 8)
    with torch.no_grad():
        y = deepcopy(mixed).eval()(x).argmax(1)  # right at first, so that there is a second call
    before = _state(mixed)
    with pytest.raises(_Broken):
        PGD(threat=ThreatModel("linf", 0.1), objective=_Counted())(mixed, x, y)
    assert _state(mixed) == before
    assert torch.is_grad_enabled()
