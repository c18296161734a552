"""The attacks that adversarial training trains against, by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast

from torch import Tensor

from robustgen.attacks.pgd import PGD
from robustgen.data.source import DataSpec
from robustgen.errors import UsageError
from robustgen.objectives import Model
from robustgen.registry import suggestion
from robustgen.threat import Norm, ThreatModel
from robustgen.training.supervised import Adversary


def adversary(
    name: str, spec: DataSpec, *, norm: str = "linf", eps: float = 8 / 255, steps: int = 7
) -> tuple[Adversary, Mapping[str, Any]]:
    """The attack for adversarial training, and its description as plain values.

    `pgd`: `steps` steps from a random start (Madry 2018). `fast-fgsm`: one step of 1.25 eps from a random start (Wong,
    Rice, Kolter 2020). Both keep the last point, fooled or not. Raises `UsageError` for another name.
    """
    threat = ThreatModel(cast(Norm, norm), eps, spec.low, spec.high)
    if name == "pgd":
        attack = PGD(threat=threat, steps=steps, mode="last", batch_size=1 << 20)
    elif name == "fast-fgsm":
        attack = PGD(threat=threat, steps=1, step_size=1.25 * eps or None, mode="last", batch_size=1 << 20)
    else:
        raise UsageError(suggestion(name, ("pgd", "fast-fgsm"), "kind of adversarial training"))

    def against(model: Model, x: Tensor, y: Tensor, seed: int) -> Tensor:
        return replace(attack, seed=seed)(model, x, y)

    return against, {"attack": name, "norm": norm, "eps": eps, "steps": attack.steps, "step_size": attack.step_size}
