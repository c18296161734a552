"""Decoupled direction and norm: the gradient chooses where to go, the last verdict how far."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from robustgen.attacks.ascend import Play
from robustgen.attacks.base import Attack, Found, Progress, check_counts
from robustgen.attacks.minimal import MinimalMode, annealed, check_above_zero, check_gamma, closest, direction, each
from robustgen.attacks.passes import Passes, Seen
from robustgen.randomness import normal, sample_keys
from robustgen.threat import Norm, ThreatModel


@dataclass(frozen=True)
class OnSphere:
    """Steps of falling length along the gradient, each brought back to a sphere that shrinks after a success and grows
    after a failure.
    """

    threat: ThreatModel
    steps: int
    init_norm: float
    alpha: float
    alpha_final: float
    gamma: float
    gamma_final: float
    seed: int

    def begin(self, clean: Tensor, label: Tensor, restart: int) -> tuple[Tensor, dict[str, Tensor]]:
        width = self.threat.high - self.threat.low
        radius = torch.full_like(clean.flatten(1)[:, 0], self.init_norm * width)
        return clean, {"radius": radius, "inside": radius < 0, "beyond": radius < 0}

    def move(self, play: Play, seen: Seen) -> Tensor:
        ahead = direction(seen.gradient)
        flat = (ahead == 0).flatten(1).all(1)
        if flat.any():
            noise = normal(sample_keys(play.clean[flat], self.seed), tuple(play.clean.shape[1:]))
            ahead[flat] = direction(noise.to(ahead.dtype))
        radius = play.state["radius"] = self._radius(play, seen.achieved)
        size = annealed(play.step, self.steps, self.alpha, self.alpha_final) * radius
        delta = play.point - play.clean + ahead * each(size, ahead)
        length = torch.linalg.vector_norm(delta.flatten(1), dim=1).clamp(min=1e-12)
        # well beyond the sphere, from where the projection finds the point of full length that the walls leave
        far = play.clean + delta * each(4 * radius / length, delta)
        return self.threat.project(far, play.clean, radius)

    def _radius(self, play: Play, achieved: Tensor) -> Tensor:
        """Ten times as quick until the boundary lies between two spheres; the clean point says nothing about any."""
        state, started = play.state, play.step > 0
        state["beyond"] = state["beyond"] | achieved
        state["inside"] = state["inside"] | (started & ~achieved)
        gamma = annealed(play.step, self.steps, self.gamma, self.gamma_final)
        gamma = torch.where(state["inside"] & state["beyond"], gamma, min(10 * self.gamma, 0.5)) * started
        farthest = torch.maximum(play.clean - self.threat.low, self.threat.high - play.clean)
        radius = state["radius"] * torch.where(achieved, 1 - gamma, 1 + gamma)
        return torch.minimum(radius, self.threat.distance(play.clean + farthest, play.clean))


@final
@dataclass(frozen=True, kw_only=True)
class DDN(Attack):
    """The smallest L2 change that succeeds, by deciding direction and norm apart from each other.

    Rony, Hafemann, Oliveira, Ben Ayed, Sabourin, Granger 2019, "Decoupling direction and norm for efficient
    gradient-based L2 adversarial attacks and defenses", Algorithm 1, with four changes that bring it nearer in as many
    passes. `init_norm`: the first radius, as a share of the box's width. `gamma`: the share by which the radius changes
    at each step; ten times as much until a row has seen both outcomes, and falling to `gamma_final` along a cosine
    (a constant rate ends up to that share beyond the boundary). `alpha`: length of the first step, falling to
    `alpha_final`, in radii instead of input units. The point on the sphere is the one of full length within the walls,
    where the paper clips; nothing is rounded to 256 levels. `mode`: "minimal" takes all steps and returns the nearest
    success, "evaluate" stops a row at its first success within eps.
    """

    norms: ClassVar[tuple[Norm, ...]] = ("l2",)
    minimal: ClassVar[bool] = True
    bounded: ClassVar[tuple[Norm, ...]] = ("l2",)

    steps: int = 300
    init_norm: float = 1.0
    alpha: float = 2.0
    alpha_final: float = 0.02
    gamma: float = 0.05
    gamma_final: float = 0.001
    mode: MinimalMode = "minimal"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_counts(steps=self.steps)
        check_gamma(self.gamma, self.gamma_final)
        check_above_zero(init_norm=self.init_norm, alpha=self.alpha, alpha_final=self.alpha_final)

    def _run(self, passes: Passes, x: Tensor, y: Tensor, progress: Progress, verify: bool) -> Found:
        rule = OnSphere(
            self.threat,
            self.steps,
            self.init_norm,
            self.alpha,
            self.alpha_final,
            self.gamma,
            self.gamma_final,
            self.seed,
        )
        return closest(passes, rule, self.threat, x, y, steps=self.steps, mode=self.mode, progress=progress)
