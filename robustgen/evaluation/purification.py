"""What a purifier is worth against an attacker who does not know of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from robustgen.attacks.base import Attack, Progress
from robustgen.data.source import Source
from robustgen.evaluation.attacked import Plan, Target, attack_rows, predict
from robustgen.guard.purified import Purified
from robustgen.metrics import Estimate, proportion

_AT_ONCE = 256


@dataclass(frozen=True)
class Oblivious:
    """An attack made on the bare classifier alone, and what the purified one says of its inputs.

    `clean`, `robust`: shares of all inputs that the bare classifier has right, and has right still under the attack.
    `purified_robust`: that the purified classifier has right, both before and after that attack; the accuracy of the
    purified classifier on clean inputs is `purified_clean`.
    """

    clean: Estimate
    robust: Estimate
    purified_clean: Estimate
    purified_robust: Estimate

    def to_json(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {name: value._asdict() for name, value in vars(self).items()}


def oblivious(
    attack: Attack,
    purified: Purified,
    source: Source,
    rows: npt.NDArray[np.int64],
    *,
    target: Target | None = None,
    rounded: bool = False,
    device: torch.device | None = None,
    progress: Progress | None = None,
) -> Oblivious:
    """Run `attack` on the classifier inside `purified`, for each of the `rows` of `source` that it has right, and judge
    what comes out by both. `target`, `rounded`: as in `evaluate_attack`.

    An attack that can stop at its first success goes on to the highest loss instead: an input just across the bare
    classifier's boundary would be no test of the purifier. Inputs that the bare classifier has wrong stay as they are.
    """
    device = device or torch.device("cpu")
    purified.to(device)
    if getattr(attack, "mode", None) == "evaluate" and not attack.minimal:
        attack = replace(attack, mode="max-loss")  # type: ignore[call-arg]
    plan = Plan(attack, (attack.threat.eps,), target, rounded)
    size = max(1, len(rows)) if attack.whole else _AT_ONCE
    counts: list[npt.NDArray[Any]] = []
    for start in range(0, len(rows), size):
        part = rows[start : start + size]
        found = attack_rows(plan, purified.classifier, source, part, device, progress)
        y, said = found["y"], _predicted(purified, torch.from_numpy(found["x_adv"]), device)
        bare, before = found["clean_prediction"] == y, _predicted(purified, source.read(part).x, device) == y
        after = (said == found["target"]) & (found["target"] != y) if "target" in found else said != y
        counts.append(np.stack([bare, bare & ~found["success"], before, before & ~after]).sum(1))
    total = np.sum(counts, 0) if counts else np.zeros(4, dtype=np.int64)
    return Oblivious(*(proportion(int(count), len(rows)) for count in total))


def masked_gradients(found: Oblivious, adaptive: Estimate) -> list[str]:
    """A warning if the attack that does not know the purifier leaves less robust accuracy than `adaptive`, the one that
    goes through it; else nothing.
    """
    if found.purified_robust.value >= adaptive.value:
        return []
    return [
        f"the attack on the bare classifier leaves {found.purified_robust.value:.1%} robust accuracy behind the "
        f"purifier, the one that goes through it {adaptive.value:.1%}: the purifier hides its gradients, so believe "
        "the lower of the two at most, and try square or more steps and restarts"
    ]


def _predicted(purified: Purified, x: torch.Tensor, device: torch.device) -> npt.NDArray[np.int64]:
    found: npt.NDArray[np.int64] = predict(purified, x.to(device), _AT_ONCE).argmax(1).cpu().numpy()
    return found
