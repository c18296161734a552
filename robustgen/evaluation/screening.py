"""Which inputs a classifier holds on its own, so that nobody has to be tried on them against its guard."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from robustgen.attacks.auto_attack import AutoAttack
from robustgen.threat import ThreatModel


@final
@dataclass(frozen=True)
class Alone:
    """What Auto-Attack (Croce, Hein 2020) made of n inputs against a classifier alone.

    `fooled`: it found a wrong label, at `x_adv`; elsewhere that is its best attempt. What gets past a guard needs a
    wrong label, so that the robust accuracy of a guard is at least that of its classifier: whoever trusts this attack
    for the one need not attack the other inputs for the other. `forward`, `backward`: the passes that each has cost in
    this ball and the larger ones; None where that is not known any more.
    """

    x_adv: Float[Tensor, "n *shape"]
    fooled: Bool[Tensor, " n"]
    forward: Int64[Tensor, " n"] | None = None
    backward: Int64[Tensor, " n"] | None = None


def alone(
    classifier: nn.Module,
    x: Float[Tensor, "n *shape"],
    y: Int64[Tensor, " n"],
    threats: Sequence[ThreatModel],
    *,
    seed: int = 0,
    progress: Callable[[float], None] | None = None,
) -> list[Alone]:
    """The same for each of `threats`, which are balls of one norm in one box, in any order. What holds in a ball holds
    in the smaller ones, and is not attacked there again. Where values have no bounds (a table's columns) Auto-Attack
    cannot be run, and every input counts as one that it might fool. `progress` takes the share done, in [0, 1].
    """
    done = progress or (lambda share: None)
    if any(not math.isfinite(threat.high - threat.low) for threat in threats):
        none = torch.zeros_like(y)
        return [Alone(x.clone(), torch.ones_like(y, dtype=torch.bool), none, none) for _ in threats]
    row, x_adv, nothing = torch.arange(len(x), device=x.device), x, torch.zeros_like(y)
    forward, backward = nothing, nothing
    found: dict[ThreatModel, Alone] = {}
    finished = 0.0
    for number, threat in enumerate(sorted(threats, key=lambda threat: -threat.eps), start=1):

        def told(inputs: float, of: int = max(1, len(row))) -> None:
            nonlocal finished
            finished += inputs / of / len(threats)
            done(finished)

        result = AutoAttack(threat=threat, seed=seed).run(classifier, x[row], y[row], told)
        finished = number / len(threats)
        done(finished)
        x_adv, fooled = threat.project(x_adv, x), torch.zeros(len(x), dtype=torch.bool, device=x.device)
        x_adv[row], fooled[row] = result.x_adv, result.success
        forward, backward = forward.index_add(0, row, result.forward), backward.index_add(0, row, result.backward)
        found[threat] = Alone(x_adv, fooled, forward, backward)
        row = row[result.success]
    return [found[threat] for threat in threats]
