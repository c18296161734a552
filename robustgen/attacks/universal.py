"""One perturbation for all inputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from robustgen.attacks.base import Attack, Found, Progress, check_counts
from robustgen.attacks.passes import Passes
from robustgen.attacks.pgd import check_size
from robustgen.errors import UsageError
from robustgen.randomness import sample_keys
from robustgen.threat import Norm

_GROUP = 128  # rows whose gradients a step averages: part of the method, not of how many fit on the device


@final
@dataclass(frozen=True, kw_only=True)
class Universal(Attack):
    """One perturbation that, added to any of the inputs, makes the model fail on as many as possible.

    Moosavi-Dezfooli, Fawzi, Fawzi, Frossard 2017, "Universal adversarial perturbations", for what it is; Shafahi,
    Najibi, Xu, Dickerson, Davis, Goldstein 2020, "Universal adversarial training", for how: stochastic gradient ascent
    (algorithm 2) on the loss, where an input whose loss exceeds `clip` adds nothing (eq. 4; 9 there, for 1,000
    classes), so that inputs already fooled do not drown the others. `steps` passes over all rows, in groups of 128 in
    an order that belongs to the samples; the step of a group has length `step_size` in the norm, None = eps / 5, and
    shrinks to 0 over the run. The perturbation of the pass that fooled most rows is kept, and x_adv = project(x +
    perturbation).

    By its nature a row's result depends on the rows it is run with, on their set but not on their order: many rows at
    once make it universal, one row alone gets a perturbation of its own.
    """

    norms: ClassVar[tuple[Norm, ...]] = ("linf", "l2")
    whole: ClassVar[bool] = True

    steps: int = 20
    step_size: float | None = None
    clip: float = 3.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_counts(steps=self.steps)
        check_size(self.step_size)
        if not self.clip > 0:
            raise UsageError(f"clip, the loss beyond which an input adds nothing, must be above 0: {self.clip:g} came")
        if self.precision == "bfloat16":
            raise UsageError("universal needs float32: what bfloat16 misses would get another perturbation")

    def _run(self, passes: Passes, x: Tensor, y: Tensor, progress: Progress, verify: bool) -> Found:
        found = Found.nothing(x)
        if not len(x):
            return found
        length = self.threat.eps / 5 if self.step_size is None else self.step_size
        origin = torch.zeros_like(x[:1])
        delta, total = origin, self.steps * -(-len(x) // _GROUP)
        most, taken = -1, 0
        for epoch in range(self.steps):
            for group in sample_keys(x, self.seed + epoch).argsort().split(_GROUP):
                gradient = self._gradient(passes, group, x, y, delta)
                delta = self.threat.step(delta, gradient, length * (1 - taken / total))
                delta = self._shrunk(delta)
                taken += 1
            x_adv = self.threat.project(x + delta, x)
            achieved = self._judged(passes, x_adv, y)
            if int(achieved.sum()) > most:
                most = int(achieved.sum())
                found.x_adv, found.success, found.steps = x_adv, achieved, torch.full_like(y, epoch + 1)
            found.first_success[achieved & (found.first_success < 0)] = epoch + 1
        progress(len(x))
        return found

    def _gradient(self, passes: Passes, group: Tensor, x: Tensor, y: Tensor, delta: Tensor) -> Tensor:
        """(1, *shape): the sum over the group's rows that are not yet beyond the clip."""
        total = torch.zeros_like(delta)
        for row in group.split(passes.rows_at_once):
            seen = passes.ascent(row, self.threat.project(x[row] + delta, x[row]), y[row])
            total += seen.gradient[seen.value < self.clip].sum(0, keepdim=True)
        return total

    def _judged(self, passes: Passes, x_adv: Tensor, y: Tensor) -> Tensor:
        rows = torch.arange(len(y), device=y.device)
        parts = [passes.judge(row, x_adv[row], y[row]).achieved for row in rows.split(passes.rows_at_once)]
        return torch.cat(parts)

    def _shrunk(self, delta: Tensor) -> Tensor:
        """The nearest perturbation in the ball."""
        if self.threat.norm == "linf":
            return delta.clamp(-self.threat.eps, self.threat.eps)
        length = torch.linalg.vector_norm(delta)
        return delta * (self.threat.eps / length.clamp(min=self.threat.eps)) if self.threat.eps else delta * 0
