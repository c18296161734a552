"""ART's attacks as ours, and ours as ART's. ART and one victim are loaded once for the file."""

from __future__ import annotations

import inspect
import os
import random
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import toys
from robustgen.attacks import build
from robustgen.attacks.art import art_classifier, as_evasion_attack
from robustgen.attacks.art_attack import ArtAttack, parameters_of
from robustgen.attacks.art_names import ART, EXCLUDED, art_name
from robustgen.attacks.base import Attack
from robustgen.attacks.build import aimed, declared, kind_of, make
from robustgen.attacks.fgsm import FGSM
from robustgen.attacks.pgd import PGD
from robustgen.data.load import load
from robustgen.errors import MissingPackageError, UsageError
from robustgen.models.normalise import Normalised
from robustgen.objectives import Misclassify
from robustgen.threat import ThreatModel
from robustgen.training.classifier import train
from robustgen.training.descent import Recipe
from robustgen_cli.list import TABLES
from robustgen_cli.parameters import settings

LINF, L2 = ThreatModel("linf", 0.1), ThreatModel("l2", 1.0)
QUICK: dict[str, dict[str, Any]] = {
    "AutoProjectedGradientDescent": {"max_iter": 5, "nb_random_init": 1},
    "BasicIterativeMethod": {"max_iter": 5},
    "BoundaryAttack": {"max_iter": 3},
    "CarliniL2Method": {"max_iter": 2, "binary_search_steps": 2},
    "DeepFool": {"max_iter": 5},
    "ElasticNet": {"max_iter": 3, "binary_search_steps": 2},
    "FastGradientMethod": {},
    "HopSkipJump": {"max_iter": 1, "max_eval": 50, "init_eval": 10},
    "NewtonFool": {"max_iter": 3},
    "ProjectedGradientDescent": {"max_iter": 5, "num_random_init": 1},
    "SaliencyMapMethod": {"gamma": 0.1},
    "ShadowAttack": {"nb_steps": 2},
    "SimBA": {"max_iter": 5},
    "SpatialTransformation": {"max_rotation": 30.0, "num_rotations": 3},
    "SquareAttack": {"max_iter": 5},
    "UniversalPerturbation": {"max_iter": 1, "attacker": "fgsm"},
    "VirtualAdversarialMethod": {"max_iter": 2},
    "ZooAttack": {"max_iter": 2, "nb_parallel": 8},
}


@pytest.fixture(scope="module")
def digits() -> tuple[Tensor, Tensor]:
    source = load("digits")
    batch = source.read(source.rows("all")[:6])
    assert batch.y is not None
    return batch.x, batch.y


@pytest.fixture(scope="module")
def victim() -> nn.Module:
    """About 95 % accurate."""
    return train(load("digits"), "small-cnn", recipe=Recipe(epochs=2)).model.network


def _predicted(network: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        return network(x).argmax(1)


def test_every_attack_of_art_is_named_or_excluded() -> None:
    import art.attacks.evasion as evasion
    from art.estimators.classification import PyTorchClassifier

    theirs = {name: kind for name, kind in vars(evasion).items() if inspect.isclass(kind)}
    assert set(ART) & set(EXCLUDED) == set()
    assert set(theirs) | {"BrendelBethgeAttack"} == set(ART) | set(EXCLUDED)
    for name in set(ART) & set(theirs):
        for needed in theirs[name]._estimator_requirements:
            assert issubclass(PyTorchClassifier, needed), name


def test_names_are_matched_in_any_spelling() -> None:
    for name in ("art:ProjectedGradientDescent", "art:projected-gradient-descent", "PROJECTED_gradient_descent"):
        assert art_name(name) == "ProjectedGradientDescent"
    assert kind_of("art:fast-gradient-method") is ArtAttack
    with pytest.raises(UsageError, match="did you mean 'DeepFool'"):
        make("art:DeepFol", LINF)
    with pytest.raises(UsageError, match="art:DPatch cannot run here: it needs an object detector"):
        make("art:dpatch", LINF)


def test_names_are_listed_without_loading_art_or_torch() -> None:
    code = "import sys, robustgen.attacks.art_names; print({'art', 'torch', 'numpy'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"
    assert {f"art:{name}" for name in ART} < set(TABLES["attacks"])


def test_fgsm_of_art_is_ours_bit_by_bit(victim: nn.Module, digits: tuple[Tensor, Tensor]) -> None:
    theirs = make("art:fast-gradient-method", LINF).run(victim, *digits)
    ours = FGSM(threat=LINF).run(victim, *digits)
    assert torch.equal(theirs.x_adv, ours.x_adv)
    assert torch.equal(theirs.success, ours.success)


@pytest.mark.parametrize(
    ("name", "threat"), [(name, L2 if place % 2 else LINF) for place, name in enumerate(QUICK)], ids=list(QUICK)
)
def test_results_are_legal_verified_counted_and_nothing_else_changes(
    victim: nn.Module,
    digits: tuple[Tensor, Tensor],
    capfd: pytest.CaptureFixture[str],
    name: str,
    threat: ThreatModel,
) -> None:
    x, y = digits[0][:3], digits[1][:3]
    counting = toys.Counting(victim)
    before = [p.clone() for p in victim.parameters()]
    states = torch.get_rng_state(), repr(np.random.get_state()), random.getstate(), os.getcwd()  # noqa: NPY002
    result = make(f"art:{name}", threat, QUICK[name]).run(counting, x, y)
    assert capfd.readouterr() == ("", "")
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (repr(np.random.get_state()), random.getstate(), os.getcwd()) == states[1:]  # noqa: NPY002
    assert all(torch.equal(a, b) and b.grad is None for a, b in zip(before, victim.parameters(), strict=True))
    assert threat.allows(result.x_adv, x).all()
    assert torch.equal(result.success, _predicted(victim, result.x_adv) != y)
    assert int(result.forward.sum()) == counting.forward_rows
    assert int(result.backward.sum()) == counting.backward_rows


def test_with_eps_0_nothing_changes_and_empty_batches_pass(victim: nn.Module, digits: tuple[Tensor, Tensor]) -> None:
    x, y = digits
    for name in ("ProjectedGradientDescent", "DeepFool"):
        assert torch.equal(make(f"art:{name}", ThreatModel("linf", 0.0))(victim, x, y), x)
    assert make("art:DeepFool", LINF)(victim, x[:0], y[:0]).shape == x[:0].shape


def test_the_seed_decides_what_is_random(victim: nn.Module, digits: tuple[Tensor, Tensor]) -> None:
    def found(seed: int) -> Tensor:
        options = {"max_iter": 3, "num_random_init": 1, "seed": seed}
        return make("art:ProjectedGradientDescent", LINF, options)(victim, *digits)

    assert torch.equal(found(1), found(1))
    assert not torch.equal(found(1), found(2))


def test_a_targeted_objective_is_arts_targeted_form(victim: nn.Module, digits: tuple[Tensor, Tensor]) -> None:
    x, y = digits
    target = (y + 1) % 10
    name = "art:ProjectedGradientDescent"
    options = {"max_iter": 40, **aimed(name, targeted=True)}
    result = make(name, ThreatModel("linf", 0.5), options).run(victim, x, target)
    assert result.success.any()
    assert torch.equal(result.success, _predicted(victim, result.x_adv) == target)
    with pytest.raises(UsageError, match="no targeted form"):
        make("art:DeepFool", LINF, aimed("art:DeepFool", targeted=True))(victim, x, target)
    with pytest.raises(UsageError, match="aims at a class"):
        make("art:TargetedUniversalPerturbation", LINF)
    with pytest.raises(UsageError, match="no other loss"):
        aimed(name, loss="margin")


@pytest.mark.parametrize(
    ("name", "threat", "options", "message"),
    [
        ("art:ProjectedGradientDescent", LINF, {"max_itr": 3}, "did you mean 'max_iter'"),
        ("art:ProjectedGradientDescent", LINF, {"norm": 2}, "unknown option"),
        ("art:ProjectedGradientDescent", LINF, {"max_iter": -1}, "refused: .*iterations"),
        ("art:ProjectedGradientDescent", ThreatModel("l0", 3), {}, "linf, l2 and l1"),
        ("art:LowProFool", LINF, {"objective": Misclassify(targeted=True)}, "needs vectors"),
    ],
)
def test_what_cannot_run_says_why(
    victim: nn.Module, digits: tuple[Tensor, Tensor], name: str, threat: ThreatModel, options: Any, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        make(name, threat, options)(victim, *digits)


def test_vectors(digits: tuple[Tensor, Tensor]) -> None:
    x, y = digits[0].flatten(1), digits[1]
    network = nn.Linear(64, 10)
    result = make("art:ProjectedGradientDescent", L2, {"max_iter": 3}).run(network, x, y)
    assert L2.allows(result.x_adv, x).all()
    with pytest.raises(UsageError, match=r"needs images .* but \(64,\) came"):
        make("art:SquareAttack", LINF)(network, x, y)


def test_parameters_are_read_by_the_types_that_art_declares() -> None:
    name = "art:projected-gradient-descent"
    assert set(parameters_of(name)) >= {"max_iter", "eps_step", "decay", "random_eps"}
    assert {"norm", "eps", "estimator", "verbose", "batch_size"} & set(parameters_of(name)) == set()
    pairs = ["max-iter=7", "decay=none", "random_eps=true", "eps_step=1/255"]
    read = settings(name, declared(name), {}, pairs)
    assert read == {"max_iter": 7, "decay": None, "random_eps": True, "eps_step": 1 / 255}
    attack = make(name, LINF, {**read, "seed": 3})
    assert isinstance(attack, ArtAttack)
    assert (attack.name, attack.parameters, attack.seed) == ("ProjectedGradientDescent", read, 3)
    assert settings("p", declared("art:PixelAttack"), {}, ["th=none"]) == {"th": None}
    universal = settings("u", declared("art:UniversalPerturbation"), {}, ['attacker_params={"eps": 0.1}', "delta=0.5"])
    assert universal == {"attacker_params": {"eps": 0.1}, "delta": 0.5}
    composite = settings("c", declared("art:CompositeAdversarialAttackPyTorch"), {}, ["enabled_attack=0,5"])
    assert composite == {"enabled_attack": (0, 5)}
    with pytest.raises(UsageError, match="max_iter=many: a whole number is needed"):
        settings(name, declared(name), {}, ["max_iter=many"])
    assert declared("pgd") is PGD
    assert settings("pgd", declared("pgd"), {}, ["steps=3"]) == {"steps": 3}


@pytest.mark.parametrize(
    ("name", "module", "package"),
    [("AutoAttack", "multiprocess", "multiprocess"), ("DeepFool", "art.attacks.evasion", "toolbox")],
)
def test_a_missing_package_is_named(
    monkeypatch: pytest.MonkeyPatch,
    victim: nn.Module,
    digits: tuple[Tensor, Tensor],
    name: str,
    module: str,
    package: str,
) -> None:
    attack = make(f"art:{name}", LINF)
    art_classifier(victim, (1, 8, 8), 10)
    monkeypatch.setitem(sys.modules, module, None)
    if module.startswith("art."):
        monkeypatch.delattr(sys.modules["art.attacks"], "evasion")
    with pytest.raises(MissingPackageError, match=package):
        attack(victim, *digits)


@pytest.fixture(scope="module")
def estimator(victim: nn.Module) -> Any:
    from art.estimators.classification import PyTorchClassifier

    mean, std = np.array([0.5], dtype=np.float32), np.array([0.25], dtype=np.float32)
    return PyTorchClassifier(
        victim, nn.CrossEntropyLoss(), (1, 8, 8), 10, clip_values=(0.0, 1.0), preprocessing=(mean, std)
    )


def test_an_attack_as_arts_attacks_network_and_preprocessing_together(
    victim: nn.Module, estimator: Any, digits: tuple[Tensor, Tensor]
) -> None:
    from art.attacks import EvasionAttack

    x, y = digits
    attack = PGD(threat=LINF, steps=5, restarts=2)
    expected = attack(Normalised(victim, [0.5], [0.25]), x, y)
    theirs = as_evasion_attack(attack, estimator)
    assert isinstance(theirs, EvasionAttack)
    made = theirs.generate(x.numpy(), y.numpy())
    assert (np.abs(made - expected.numpy()).max((1, 2, 3)) < 1e-6).mean() > 0.8
    assert np.array_equal(theirs.generate(x.numpy(), np.eye(10)[y.numpy()]), made)
    assert theirs.generate(x.numpy().astype(np.float64), y.numpy()).dtype == np.float64
    own = torch.from_numpy(estimator.predict(x.numpy()).argmax(1))
    assert np.array_equal(theirs.generate(x.numpy()), theirs.generate(x.numpy(), own.numpy()))


def test_the_estimators_clip_values_are_the_box(victim: nn.Module, digits: tuple[Tensor, Tensor]) -> None:
    from art.estimators.classification import PyTorchClassifier

    wide = PyTorchClassifier(victim, nn.CrossEntropyLoss(), (1, 8, 8), 10, clip_values=(-0.05, 2.0))
    made = as_evasion_attack(FGSM(threat=LINF), wide).generate(digits[0].numpy(), digits[1].numpy())
    assert made.min() == pytest.approx(-0.05)
    assert made.max() > 1


def test_art_trains_against_our_attack(digits: tuple[Tensor, Tensor]) -> None:
    from art.defences.trainer import AdversarialTrainer
    from art.estimators.classification import PyTorchClassifier

    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    before = network[1].weight.clone()
    optimizer = torch.optim.SGD(network.parameters(), 0.1)
    learner = PyTorchClassifier(network, nn.CrossEntropyLoss(), (1, 8, 8), 10, optimizer=optimizer, clip_values=(0, 1))
    trainer = AdversarialTrainer(learner, as_evasion_attack(PGD(threat=LINF, steps=2, mode="last"), learner), ratio=1)
    trainer.fit(digits[0].numpy(), np.eye(10, dtype=np.float32)[digits[1]], nb_epochs=1, batch_size=3)
    assert not torch.equal(before, network[1].weight)


@pytest.mark.parametrize(
    ("attack", "arguments", "message"),
    [
        (PGD(threat=LINF, objective=Misclassify(targeted=True)), {}, "needs y"),
        (PGD(threat=LINF), {"mask": np.ones(1)}, "x and y only"),
    ],
)
def test_calls_that_mean_nothing(estimator: Any, attack: Attack, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        as_evasion_attack(attack, estimator).generate(np.zeros((1, 1, 8, 8), np.float32), **arguments)
    with pytest.raises(UsageError, match="PyTorchClassifier"):
        as_evasion_attack(attack, nn.Linear(2, 2))  # type: ignore[arg-type]


def test_names_with_a_prefix_are_never_ours() -> None:
    assert not any(name.startswith(build.PREFIX) for name in build.ATTACKS)
