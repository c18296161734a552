"""Carlini and Wagner's attack: Adam on distance plus a hinge on the objective, in coordinates without walls."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, final

import torch
from torch import Tensor

from robustgen.attacks.ascend import Play
from robustgen.attacks.base import Attack, Found, Progress, check_counts
from robustgen.attacks.minimal import MinimalMode, adam, check_above_zero, closest, each
from robustgen.attacks.passes import Passes, Seen
from robustgen.errors import UsageError
from robustgen.objectives import Misclassify, Model, Objective, margin
from robustgen.threat import Norm, ThreatModel

_NEVER = 1e9
"""A constant beyond which the search has found no success yet."""


@dataclass(frozen=True)
class Confident:
    """`objective` with `confidence` taken off its value, achieved where something is left."""

    objective: Objective
    confidence: float

    def __call__(self, model: Model, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        value, achieved = self.objective(model, x, y)
        return value - self.confidence, achieved & (value.detach() >= self.confidence)


@dataclass(frozen=True)
class Hinged:
    """Adam on |x' - x|^2 + c * hinge with x' = (1 + tanh w) / 2, all in box widths; a new c every `steps` steps.

    The hinge is the objective's shortfall, which counts only where it is not achieved.
    """

    threat: ThreatModel
    steps: int
    searches: int
    step_size: float
    constant: float

    def begin(self, clean: Tensor, label: Tensor, restart: int) -> tuple[Tensor, dict[str, Tensor]]:
        zero, one = torch.zeros_like(clean), torch.ones_like(clean.flatten(1)[:, 0])
        return clean, {
            "w": self._free(clean),
            "mean": zero,
            "square": zero.clone(),
            "constant": one * self.constant,
            "low": one * 0,
            "high": one * 10 * _NEVER,
            "succeeded": one > 2,
        }

    def move(self, play: Play, seen: Seen) -> Tensor:
        state, width = play.state, self.threat.high - self.threat.low
        state["succeeded"] = state["succeeded"] | seen.achieved
        hinge = torch.where(each(seen.achieved, play.point), 0, seen.gradient * width)
        descent = 2 * (play.point - play.clean) / width - each(state["constant"], hinge) * hinge
        descent = descent * (1 - torch.tanh(state["w"]).square()) / 2
        inner = play.step % self.steps
        state["w"] = state["w"] - self.step_size * adam(descent, state, inner)
        ended = (inner == self.steps - 1) & (play.step < self.steps * self.searches - 1)
        if ended.any():
            self._search(state, ended, play.clean)
        point = self.threat.low + width * (torch.tanh(state["w"]) + 1) / 2
        return torch.where(each(ended, point), play.clean, point)

    def _search(self, state: dict[str, Tensor], ended: Tensor, clean: Tensor) -> None:
        """The next constant of rows whose steps with the last have `ended`: halfway, or ten times as much."""
        constant, found = state["constant"], state["succeeded"]
        state["low"] = torch.where(ended & ~found, torch.maximum(state["low"], constant), state["low"])
        state["high"] = torch.where(ended & found, torch.minimum(state["high"], constant), state["high"])
        halfway = (state["low"] + state["high"]) / 2
        state["constant"] = torch.where(ended, torch.where(state["high"] < _NEVER, halfway, 10 * constant), constant)
        state["succeeded"] = found & ~ended
        reset = each(ended, clean)
        state["w"] = torch.where(reset, self._free(clean), state["w"])
        state["mean"], state["square"] = (torch.where(reset, 0, state[name]) for name in ("mean", "square"))

    def _free(self, point: Tensor) -> Tensor:
        """w of a point; the walls, which no w reaches, are taken for what lies just inside."""
        centred = 2 * (point - self.threat.low) / (self.threat.high - self.threat.low) - 1
        return torch.atanh(centred.clamp(-1, 1) * (1 - 1e-6))


@final
@dataclass(frozen=True, kw_only=True)
class CarliniWagner(Attack):
    """The smallest L2 change that succeeds, as a weighted sum of distance and shortfall, with a search for the weight.

    Carlini, Wagner 2017, "Towards evaluating the robustness of neural networks", section VI.A: loss f6, the change of
    variables to tanh, Adam. `steps` for each of `searches` constants, the first being `constant`; `step_size`: Adam's
    in tanh coordinates. `confidence`: how far the objective's value must rise above 0; a result below it is no success,
    even if it is misclassified. `mode`: "minimal" takes all steps and returns the nearest success, "evaluate" stops a
    row at its first success within eps. DDN and FMN come as near with a tenth of the steps.
    """

    norms: ClassVar[tuple[Norm, ...]] = ("l2",)
    minimal: ClassVar[bool] = True
    bounded: ClassVar[tuple[Norm, ...]] = ("l2",)

    objective: Objective = field(default_factory=lambda: Misclassify(margin))
    steps: int = 1000
    searches: int = 9
    step_size: float = 0.01
    constant: float = 1e-3
    confidence: float = 0.0
    mode: MinimalMode = "minimal"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_counts(steps=self.steps, searches=self.searches)
        check_above_zero(step_size=self.step_size, constant=self.constant)
        if not self.confidence >= 0:
            raise UsageError(f"confidence must be 0 or more, in units of the objective, but {self.confidence:g} came")

    def _run(self, passes: Passes, x: Tensor, y: Tensor, progress: Progress, verify: bool) -> Found:
        row = torch.arange(len(x), device=x.device)
        objective = Confident(passes.objective, self.confidence) if self.confidence else passes.objective
        confident = passes.part(row, objective)
        rule = Hinged(self.threat, self.steps, self.searches, self.step_size, self.constant)
        total = self.steps * self.searches
        found = closest(confident, rule, self.threat, x, y, steps=total, mode=self.mode, progress=progress)
        passes.absorb(row, confident)
        return found
