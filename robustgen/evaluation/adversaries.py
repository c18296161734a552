"""The attacks that adversarial training trains against, by name."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor

from robustgen.attacks.passes import evaluated
from robustgen.attacks.pgd import PGD
from robustgen.data.source import DataSpec
from robustgen.errors import UsageError
from robustgen.objectives import Diverge, Model
from robustgen.registry import suggestion
from robustgen.threat import Norm, ThreatModel
from robustgen.training.supervised import Adversary

KINDS = ("pgd", "fast-fgsm", "trades")
_SHORT = {"fast": "fast-fgsm"}


def adversary(
    name: str, spec: DataSpec, *, norm: str = "linf", eps: float = 8 / 255, steps: int = 7, beta: float = 6.0
) -> tuple[Adversary, Mapping[str, Any]]:
    """What adversarial training of the kind `name` trains against, and its description as plain values.

    `pgd`: `steps` steps from a random start (Madry 2018). `fast-fgsm`, or `fast`: one step of 1.25 eps from a random
    start (Wong, Rice, Kolter 2020). `trades`: `steps` steps away from what the model says of the clean input, whatever
    its label, and a loss that weighs robustness by `beta` (Zhang, Yu, Jiao, Xing, El Ghaoui, Jordan 2019); the start is
    random in the ball, where theirs is a tiny step from the clean input. All keep the last point, fooled or not. Raises
    `UsageError` for another name, or a beta below 0.
    """
    name = _SHORT.get(name, name)
    if name not in KINDS:
        raise UsageError(suggestion(name, KINDS, "kind of adversarial training"))
    if not (math.isfinite(beta) and beta >= 0):
        raise UsageError(f"beta, the weight of robustness in trades, is a number from 0 up, but {beta:g} came")
    threat = ThreatModel(cast(Norm, norm), eps, spec.low, spec.high)
    if name == "fast-fgsm":
        attack = PGD(threat=threat, steps=1, step_size=1.25 * eps or None, mode="last", batch_size=1 << 20)
    else:
        attack = PGD(threat=threat, steps=steps, mode="last", batch_size=1 << 20)

    def against(model: Model, x: Tensor, y: Tensor, seed: int) -> Tensor:
        return replace(attack, seed=seed)(model, x, y)

    def away(model: Model, x: Tensor, y: Tensor, seed: int) -> Tensor:
        with evaluated(model), torch.no_grad():
            objective = Diverge(model(x))
        return replace(attack, seed=seed, objective=objective)(model, x, torch.arange(len(x), device=x.device))

    described = {"attack": name, "norm": norm, "eps": eps, "steps": attack.steps, "step_size": attack.step_size}
    if name == "trades":
        return Adversary(away, beta), described | {"beta": beta}
    return Adversary(against), described
