"""Attackers who know the detector: an input counts as lost when any of them gets a wrong label accepted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, final

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from robustgen.attacks.passes import evaluated
from robustgen.attacks.pgd import PGD
from robustgen.detectors.calibrated import CalibratedDetector
from robustgen.errors import UsageError
from robustgen.objectives import Evade, Model, Objective, Score
from robustgen.threat import ThreatModel

WAYS: dict[str, dict[str, Any]] = {
    "selective": {"way": "selective"},
    "orthogonal": {"way": "orthogonal"},
    "lagrangian 0.5": {"way": "lagrangian", "weight": 0.5},
    "lagrangian 2": {"way": "lagrangian", "weight": 2.0},
}
"""None of them is the strongest against every detector: the worst case over all is what counts."""


@final
@dataclass(frozen=True)
class Evasion:
    """What became of n inputs under several attacks on classifier and detector together.

    An input is lost when some attack found a legal point with a wrong label that the detector accepts: `x_adv` there,
    and elsewhere the point with a wrong label that scored lowest, if any was found. `found`: which rows each attack
    found such a point for, by the attack's name; attacks are tried on the rows that are left, so that a later one adds
    to the earlier ones.
    """

    lost: Bool[Tensor, " n"]
    x_adv: Float[Tensor, "n *shape"]
    found: dict[str, Tensor]

    @property
    def rate(self) -> float:
        """The share of inputs lost: the attackers' success rate."""
        return float(self.lost.double().mean())


def judged_against(detector: CalibratedDetector) -> Score:
    """The detector's score of inputs judged against given labels; labels do not matter to an unconditional one."""

    def score(x: Tensor, label: Tensor) -> Tensor:
        seen = x if detector.features is None else detector.features(x)
        return detector.detector.score(seen, label if detector.detector.conditional else None)

    return score


def adaptive(
    detector: CalibratedDetector, threat: ThreatModel, *, steps: int = 50, seed: int = 0, **options: Any
) -> dict[str, PGD]:
    """The attacks on a classifier and `detector` together, by name; `options` as for `PGD`. Raises `UsageError` for a
    detector without gradients, against which they would say nothing.
    """
    if not detector.detector.differentiable:
        raise UsageError(
            f"{detector.name} has scores without gradients: attacks that follow gradients would find nothing, and that "
            "would say nothing; use an attack by queries"
        )
    score, value = judged_against(detector), detector.threshold.value
    return {
        name: PGD(threat=threat, objective=Evade(score, value, **way), steps=steps, seed=seed, **options)
        for name, way in WAYS.items()
    }


def evade(
    attacks: Mapping[str, PGD],
    model: Model,
    x: Float[Tensor, "n *shape"],
    y: Int64[Tensor, " n"],
    *,
    targets: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Evasion:
    """Try each of `attacks`, made by `adaptive`, on the inputs that hold: first towards any wrong label, then towards
    each of the `targets` classes whose logits on the clean input come next to the label's (multi-targeted, which
    detectors that know classes call for: Tramèr et al. 2020).

    `progress`: called with attacks done and attacks in all.
    """
    with evaluated(model), torch.no_grad():
        logits = torch.cat([model(part) for part in x.split(500)])
    rivals = logits.scatter(1, y[:, None], -torch.inf).argsort(1, descending=True)[:, :-1]
    evasion = Evasion(torch.zeros_like(y, dtype=torch.bool), x.clone(), {})
    best = torch.full_like(logits[:, 0], -torch.inf)
    jobs = [(name, aim) for aim in (None, *range(min(targets, rivals.shape[1]))) for name in attacks]
    for done, (name, aim) in enumerate(jobs, start=1):
        row = (~evasion.lost).nonzero()[:, 0]
        if len(row):
            goal = y[row] if aim is None else rivals[row, aim]
            attack = attacks[name]
            aimed = replace(attack, objective=replace(attack.objective, targeted=aim is not None))  # type: ignore[type-var]
            x_adv = aimed(model, x[row], goal)
            value, won = _verdicts(attack.objective, model, x_adv, y[row])
            better = value > best[row]
            evasion.x_adv[row[better]], best[row[better]] = x_adv[better], value[better]
            evasion.lost[row] = won
            so_far = evasion.found.setdefault(name, torch.zeros_like(evasion.lost))
            so_far[row[won]] = True
        if progress is not None:
            progress(done, len(jobs))
    return evasion


def _verdicts(objective: Objective, model: Model, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """How good points are for the attacker, and whether they are what was wanted, whatever they were aimed at."""
    with evaluated(model), torch.no_grad():
        parts = [objective(model, *part) for part in zip(x.split(500), y.split(500), strict=True)]
    values, achieved = zip(*parts, strict=True)
    return torch.cat(values), torch.cat(achieved)
