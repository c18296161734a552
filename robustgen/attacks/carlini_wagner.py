"""Carlini and Wagner's attack: Adam on distance plus a hinge on the objective, in coordinates without walls."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, final

import torch
from torch import Tensor

from robustgen.attacks.base import Attack, Found, Progress, check_counts
from robustgen.attacks.hinged import Hinged
from robustgen.attacks.minimal import MinimalMode, check_above_zero, closest
from robustgen.attacks.passes import Passes
from robustgen.errors import UsageError
from robustgen.objectives import Misclassify, Model, Objective, margin
from robustgen.threat import Norm


@dataclass(frozen=True)
class Confident:
    """`objective` with `confidence` taken off its value, achieved where something is left."""

    objective: Objective
    confidence: float

    def __call__(self, model: Model, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        value, achieved = self.objective(model, x, y)
        return value - self.confidence, achieved & (value.detach() >= self.confidence)


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
