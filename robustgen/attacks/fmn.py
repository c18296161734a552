"""Fast minimum norm: gradient steps inside a ball whose radius follows the decision boundary."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, final

import torch
from torch import Tensor

from robustgen.attacks.ascend import Play
from robustgen.attacks.base import Attack, Found, Progress, check_counts
from robustgen.attacks.minimal import MinimalMode, annealed, check_above_zero, check_gamma, closest, direction, each
from robustgen.attacks.passes import Passes, Seen
from robustgen.objectives import Misclassify, Objective, margin
from robustgen.threat import Norm, ThreatModel

_DUAL = {"linf": 1.0, "l2": 2.0, "l1": torch.inf}


@dataclass(frozen=True)
class AlongBoundary:
    """A step of falling length along the gradient, projected onto the row's ball inside the box."""

    threat: ThreatModel
    steps: int
    alpha: float
    alpha_final: float
    gamma: float
    gamma_final: float

    def begin(self, clean: Tensor, label: Tensor, restart: int) -> tuple[Tensor, dict[str, Tensor]]:
        zero = torch.zeros_like(clean.flatten(1)[:, 0])
        return clean, {"radius": zero + torch.inf, "nearest": zero + torch.inf}

    def move(self, play: Play, seen: Seen) -> Tensor:
        state, threat = play.state, self.threat
        distance = threat.distance(play.point, play.clean)
        state["nearest"] = torch.where(seen.achieved, torch.minimum(state["nearest"], distance), state["nearest"])
        gamma = annealed(play.step, self.steps, self.gamma, self.gamma_final)
        slope = torch.linalg.vector_norm(seen.gradient.flatten(1), _DUAL[threat.norm], dim=1).clamp(min=1e-12)
        inside = torch.minimum(state["radius"] * (1 - gamma), state["nearest"])
        # more than predicted: on a linear model that would end just before the boundary, again and again
        predicted = distance + seen.value.abs() / slope
        beyond = torch.where(state["nearest"].isfinite(), state["radius"], predicted) * (1 + gamma)
        farthest = torch.maximum(play.clean - threat.low, threat.high - play.clean)
        most = threat.distance(play.clean + farthest, play.clean)
        state["radius"] = torch.minimum(torch.where(seen.achieved, inside, beyond).to(most.dtype), most)
        size = annealed(play.step, self.steps, self.alpha, self.alpha_final) * self._length(play.clean, state["radius"])
        ahead = direction(seen.gradient)
        return threat.project(play.point + ahead * each(size, ahead), play.clean, state["radius"])

    def _length(self, clean: Tensor, radius: Tensor) -> Tensor:
        """What a step of 1 is in Euclidean length: the farthest point of the ball, or in L1 half the box's width, since
        the ball's corners, which are few values' changes, would let a step of its size undo all that was found.
        """
        if self.threat.norm == "l1":
            return torch.full_like(radius, (self.threat.high - self.threat.low) / 2)
        return radius * (clean[0].numel() ** 0.5 if self.threat.norm == "linf" else 1)


@final
@dataclass(frozen=True, kw_only=True)
class FMN(Attack):
    """The smallest change that succeeds in Linf, L2 or L1, found by walking along the decision boundary.

    Pintor, Roli, Brendel, Biggio 2021, "Fast minimum-norm adversarial attacks through adaptive norm constraints",
    Algorithm 1. `alpha`: length of the first step, which falls to `alpha_final` along a cosine; not in input units, as
    in the paper, but measured by the row's ball (Linf, L2) or half the width of the box (L1), so that it suits small
    and large changes alike. `gamma`, which falls likewise: the share by which a row's radius shrinks after a success
    and grows after a failure. Until a row's first success the radius is the distance to the boundary as the gradient
    predicts it, which means most for an objective that is zero there, such as the default margin. `mode`: "minimal"
    takes all steps and returns the nearest success, "evaluate" stops a row at its first success within eps.
    """

    minimal: ClassVar[bool] = True
    bounded: ClassVar[tuple[Norm, ...]] = ("l1",)

    objective: Objective = field(default_factory=lambda: Misclassify(margin))
    steps: int = 300
    alpha: float = 2.0
    alpha_final: float = 0.02
    gamma: float = 0.05
    gamma_final: float = 0.001
    mode: MinimalMode = "minimal"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_counts(steps=self.steps)
        check_gamma(self.gamma, self.gamma_final)
        check_above_zero(alpha=self.alpha, alpha_final=self.alpha_final)

    def _run(self, passes: Passes, x: Tensor, y: Tensor, progress: Progress, verify: bool) -> Found:
        rule = AlongBoundary(self.threat, self.steps, self.alpha, self.alpha_final, self.gamma, self.gamma_final)
        return closest(passes, rule, self.threat, x, y, steps=self.steps, mode=self.mode, progress=progress)
