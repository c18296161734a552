"""Gradients for scores that have none: what an attacker puts in their place (BPDA), and attacks on a stand-in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from robustgen.evaluation.adaptive import DRAWS, Evasion, Guarded, evade, verdicts
from robustgen.objectives import Score
from robustgen.threat import ThreatModel


def straight_through(step: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """`step`, a preprocessing that keeps the shape, with the identity for its gradient (Athalye, Carlini, Wagner 2018,
    "Obfuscated gradients give a false sense of security", BPDA).
    """
    return lambda x: x + (step(x) - x).detach()


def soft_neighbours(references: Float[Tensor, "k *shape"], temperature: float) -> Score:
    """-t log mean exp(-d / t) over the distances d to clean inputs, t = `temperature` in units of distance: a smooth
    stand-in for scores that look up nearest neighbours.
    """

    def score(x: Tensor, label: Tensor) -> Tensor:
        distance = torch.cdist(x.flatten(1), references.flatten(1).to(x))
        return -temperature * (torch.logsumexp(-distance / temperature, 1) - torch.tensor(len(references)).log())

    return score


def transfer(surrogate: Any, guard: Guarded, x: Tensor, y: Tensor, threat: ThreatModel, **options: Any) -> Evasion:
    """Attack a guard of one's own, made without the weights of `guard`, and judge the results by `guard` (threat model
    T). `surrogate` is attacked at four times its false-alarm rate (at most a half), so that what passes it passes
    tighter thresholds than its own (Carlini, Wagner 2017, "MagNet and ... are not robust"). `options` as for `evade`.

    `lost`, `score` and `fooled` are those of `guard`; which member found a point is what the surrogate saw.
    """
    tighter = surrogate.at(min(0.5, 4 * surrogate.threshold.fpr))
    tried = evade(tighter, x, y, threat, **options)
    if not len(x):
        return tried
    wrong, accepted, score, _ = verdicts(guard, tried.x_adv, y, DRAWS if guard.random else 1)
    lost = wrong & accepted
    found = {name: lost & (tried.member == tried.members.index(name)) for name in tried.members}
    found["clean"] = found["clean"] | (lost & (tried.member < 0))
    return replace(tried, lost=lost, score=score, fooled=wrong, found=found)
