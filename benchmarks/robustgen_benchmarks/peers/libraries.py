"""The same attack in robustgen and in other libraries: for each a function from inputs to adversarial inputs.

Each gets the victim as its users have it (evaluation mode, parameters with `requires_grad`) and the inputs in batches
of one size. A library that does not have an attack, or only under the same name, is left out of it, with the reason.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any, Literal

import torch
from torch import Tensor, nn

from robustgen.attacks.apgd import APGD
from robustgen.attacks.auto_attack import AutoAttack
from robustgen.attacks.base import Attack
from robustgen.attacks.fgsm import FGSM
from robustgen.attacks.pgd import PGD
from robustgen.threat import Norm, ThreatModel

REFERENCE = "ROBUSTGEN_AUTO_ATTACK"
"""Environment variable: the folder of a copy of github.com/fra31/auto-attack, which no package index has."""


@dataclass(frozen=True)
class Case:
    """One attack to compare; `step_size` means nothing to attacks that choose their own."""

    attack: Literal["pgd", "fgsm", "apgd-ce", "auto-attack"]
    norm: Norm
    eps: float
    steps: int
    step_size: float = 0.0

    @property
    def threat(self) -> ThreatModel:
        return ThreatModel(self.norm, self.eps)

    @property
    def title(self) -> str:
        return self.attack if self.attack in ("fgsm", "auto-attack") else f"{self.attack}-{self.steps}"


Run = Callable[[Tensor, Tensor], Tensor]
"""(x, y) -> x_adv"""


class NotOffered(Exception):
    """The library does not have this attack; the message says what it has instead."""


def ours(case: Case, size: int | None, mode: Literal["evaluate", "last"] = "evaluate") -> Attack:
    """robustgen's attack of a case, in batches of `size` (None = of its own choice)."""
    if case.attack == "fgsm":
        return FGSM(threat=case.threat, batch_size=size)
    if case.attack == "apgd-ce":
        return APGD(threat=case.threat, steps=case.steps, batch_size=size)
    if case.attack == "auto-attack":
        return AutoAttack(threat=case.threat, batch_size=size)
    return PGD(
        threat=case.threat,
        steps=case.steps,
        step_size=case.step_size,
        random_start=False,
        mode=mode,
        batch_size=size,
    )


def robustgen(case: Case, network: nn.Module, size: int) -> Run:
    """As `robustgen attack` runs it: a row leaves at its first verified success; the batch size is its own choice."""
    return lambda x, y: ours(case, None).run(network, x, y).x_adv


def robustgen_in_full(case: Case, network: nn.Module, size: int) -> Run:
    """Every row takes all steps, as with the peers: what is left is the cost of a step."""
    if case.attack not in ("pgd", "fgsm"):
        raise NotOffered("every row in full is measured for pgd and fgsm alone")
    return lambda x, y: ours(case, size, "last")(network, x, y)


def art(case: Case, network: nn.Module, size: int) -> Run:
    """ART, with the estimator that its examples build."""
    from art.attacks.evasion import AutoProjectedGradientDescent, FastGradientMethod, ProjectedGradientDescent
    from art.estimators.classification import PyTorchClassifier

    if case.attack == "auto-attack":
        raise NotOffered("its AutoAttack is another list (no apgd-t, no fab-t), measured 18 times slower")

    def run(x: Tensor, y: Tensor) -> Tensor:
        estimator = PyTorchClassifier(
            network,
            loss=nn.CrossEntropyLoss(),
            input_shape=tuple(x.shape[1:]),
            nb_classes=10,
            clip_values=(0.0, 1.0),
            device_type="gpu" if x.is_cuda else "cpu",
        )
        norm = "inf" if case.norm == "linf" else 2
        if case.attack == "fgsm":
            attack = FastGradientMethod(estimator, eps=case.eps, batch_size=size)
        elif case.attack == "apgd-ce":
            attack = AutoProjectedGradientDescent(
                estimator,
                norm=norm,
                eps=case.eps,
                eps_step=2 * case.eps,
                max_iter=case.steps,
                nb_random_init=1,
                batch_size=size,
                loss_type="cross_entropy",
                verbose=False,
            )
        else:
            attack = ProjectedGradientDescent(
                estimator,
                norm=norm,
                eps=case.eps,
                eps_step=case.step_size,
                max_iter=case.steps,
                num_random_init=0,
                batch_size=size,
                verbose=False,
            )
        return torch.from_numpy(attack.generate(x.cpu().numpy(), y.cpu().numpy()))

    return run


def foolbox(case: Case, network: nn.Module, size: int) -> Run:
    """Foolbox; its call returns raw and clipped points and a verdict, which costs one more forward pass."""
    library = import_module("foolbox")
    attacks = import_module("foolbox.attacks")
    if case.attack not in ("pgd", "fgsm"):
        raise NotOffered("has no apgd and no auto-attack")
    if case.attack == "fgsm":
        attack = attacks.LinfFastGradientAttack(random_start=False)
    else:
        kind = attacks.LinfPGD if case.norm == "linf" else attacks.L2PGD
        attack = kind(abs_stepsize=case.step_size, steps=case.steps, random_start=False)

    def run(x: Tensor, y: Tensor) -> Tensor:
        model = library.PyTorchModel(network, bounds=(0, 1), device=x.device)
        parts = zip(x.split(size), y.split(size), strict=True)
        return torch.cat([attack(model, *part, epsilons=case.eps)[1] for part in parts])  # [1] = clipped to eps

    return run


def torchattacks(case: Case, network: nn.Module, size: int) -> Run:
    """torchattacks; its AutoAttack takes 10 of 100 steps, so it is told the time and not the result of the others."""
    library = import_module("torchattacks")
    norm = {"linf": "Linf", "l2": "L2", "l1": "L1", "l0": "L0"}[case.norm]

    def run(x: Tensor, y: Tensor) -> Tensor:
        if case.attack == "fgsm":
            attack = library.FGSM(network, eps=case.eps)
        elif case.attack == "apgd-ce":
            attack = library.APGD(network, norm=norm, eps=case.eps, steps=case.steps, loss="ce")
        elif case.attack == "auto-attack":
            attack = library.AutoAttack(network, norm=norm, eps=case.eps, seed=0)
        else:
            kind = library.PGD if case.norm == "linf" else library.PGDL2
            attack = kind(network, eps=case.eps, alpha=case.step_size, steps=case.steps, random_start=False)
        with contextlib.redirect_stdout(io.StringIO()):
            return torch.cat([attack(*part) for part in zip(x.split(size), y.split(size), strict=True)])

    return run


def from_adv_lib(name: str) -> Callable[..., Any]:
    """A function of adv-lib. It imports visdom to draw with, which no longer installs everywhere and is not used."""
    if "visdom" not in sys.modules and find_spec("visdom") is None:
        sys.modules["visdom"] = ModuleType("visdom")
    found: Callable[..., Any] = getattr(import_module("adv_lib.attacks"), name)
    return found


def adv_lib(case: Case, network: nn.Module, size: int) -> Run:
    """adv-lib: plain functions."""
    order = {"linf": torch.inf, "l2": 2.0, "l1": 1.0, "l0": 0.0}[case.norm]
    if case.attack == "apgd-ce":
        attack = from_adv_lib("apgd")
        options = {"eps": case.eps, "norm": order, "n_iter": case.steps, "loss_function": "ce"}
    elif case.attack == "pgd" and case.norm == "linf":
        attack = from_adv_lib("pgd_linf")
        options = {"ε": case.eps, "steps": case.steps, "random_init": False, "absolute_step_size": case.step_size}
    else:
        raise NotOffered("has pgd in Linf and apgd, no fgsm, pgd in L2 or auto-attack")

    def one(x: Tensor, y: Tensor) -> Any:
        return attack(network, x, y, **options)

    return lambda x, y: torch.cat([one(*part) for part in zip(x.split(size), y.split(size), strict=True)]).detach()


def reference(case: Case, network: nn.Module, size: int) -> Run:
    """The authors' own program of Auto-PGD and AutoAttack, from the folder that `REFERENCE` names."""
    folder = os.environ.get(REFERENCE)
    if folder and folder not in sys.path:
        sys.path.append(folder)
    norm = {"linf": "Linf", "l2": "L2", "l1": "L1", "l0": "L0"}[case.norm]
    if case.attack not in ("apgd-ce", "auto-attack"):
        raise NotOffered("has apgd and auto-attack alone")
    library = import_module("autoattack")

    def run(x: Tensor, y: Tensor) -> Tensor:
        common = {"norm": norm, "eps": case.eps, "seed": 0, "device": str(x.device)}
        if case.attack == "auto-attack":
            attack = library.AutoAttack(network, version="standard", verbose=False, **common)
            found: Tensor = attack.run_standard_evaluation(x, y, bs=size)
            return found
        apgd = import_module("autoattack.autopgd_base").APGDAttack(network, n_iter=case.steps, n_restarts=1, **common)
        return torch.cat([apgd.perturb(*part) for part in zip(x.split(size), y.split(size), strict=True)])

    return run


PEERS: dict[str, Callable[[Case, nn.Module, int], Run]] = {  # the int is the batch size
    "robustgen": robustgen,
    "robustgen, all steps": robustgen_in_full,
    "auto-attack (reference)": reference,
    "adv-lib": adv_lib,
    "ART": art,
    "Foolbox": foolbox,
    "torchattacks": torchattacks,
}
