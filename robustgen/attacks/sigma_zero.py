"""Sigma-zero: the fewest changed values, by descending a smooth count of them and cutting small changes off."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, final

import torch
from torch import Tensor

from robustgen.attacks.ascend import Play
from robustgen.attacks.base import Attack, Found, Progress, check_counts
from robustgen.attacks.minimal import MinimalMode, adam, annealed, check_above_zero, closest, each
from robustgen.attacks.passes import Passes, Seen
from robustgen.errors import UsageError
from robustgen.objectives import Misclassify, Objective, margin
from robustgen.threat import Norm, ThreatModel

_TRIES, _RISE = 4, 0.3
"""While polishing: steps given to each smaller set of changes, and their length in box widths."""


@dataclass(frozen=True)
class Thresholded:
    """Adam steps on objective and smooth count, where changes below a row's threshold go back to zero; from step
    `polish_from` on, tries to do without single changes of the best success.

    Changes are measured in box widths.
    """

    threat: ThreatModel
    steps: int
    step_size: float
    sigma: float
    threshold: float
    threshold_rate: float
    polish_from: int

    def begin(self, clean: Tensor, label: Tensor, restart: int) -> tuple[Tensor, dict[str, Tensor]]:
        zero, none = torch.zeros_like(clean), torch.zeros_like(clean.flatten(1)[:, 0])
        return clean, {
            "mean": zero,
            "square": zero.clone(),
            "threshold": none + self.threshold,
            "best": clean.clone(),
            "worth": zero.clone(),
            "fewest": none + torch.inf,
            "tried": none.long(),
            "left": none.long(),
        }

    def move(self, play: Play, seen: Seen) -> Tensor:
        if self.polish_from >= self.steps:
            return self._descend(play, seen)
        better = self._remember(play, seen)
        polishing = (play.step >= self.polish_from) & play.state["fewest"].isfinite()
        if polishing.all():
            return self._polish(play, seen, better)
        descended = self._descend(play, seen)
        if not polishing.any():
            return descended
        return torch.where(each(polishing, descended), self._polish(play, seen, better), descended)

    def _descend(self, play: Play, seen: Seen) -> Tensor:
        """The paper's step."""
        state, width = play.state, self.threat.high - self.threat.low
        delta = (play.point - play.clean) / width
        # the slope of mean(delta^2 / (delta^2 + sigma)), eq. 5
        count = 2 * self.sigma * delta / (delta.square() + self.sigma).square() / delta[0].numel()
        ascent = torch.where(each(seen.achieved, delta), 0, seen.gradient * width) - count
        ascent = ascent / each(ascent.flatten(1).abs().amax(1).clamp(min=1e-12), ascent)
        size = annealed((play.step - 1).clamp(min=0), self.steps, self.step_size, self.step_size / 10)
        moved = play.point + width * adam(ascent, state, play.step) * each(size, delta)
        moved = moved.clamp(self.threat.low, self.threat.high)
        rate = self.threshold_rate * annealed(play.step, self.steps, self.step_size, self.step_size / 10)
        state["threshold"] = (state["threshold"] + torch.where(seen.achieved, rate, -rate)).clamp(0, 1)
        kept = (moved - play.clean).abs() >= each(state["threshold"], delta) * width
        return torch.where(kept, moved, play.clean)

    def _remember(self, play: Play, seen: Seen) -> Tensor:
        """Keep the success of fewest changes, with what each is worth to the objective; returns where it is new."""
        state, changed = play.state, play.point != play.clean
        number = changed.flatten(1).sum(1).to(state["fewest"].dtype)
        better = seen.achieved & (number < state["fewest"])
        state["fewest"] = torch.where(better, number, state["fewest"])
        new = each(better, play.point)
        state["best"] = torch.where(new, play.point, state["best"])
        worth = torch.where(changed, seen.gradient * (play.point - play.clean), torch.inf)
        state["worth"] = torch.where(new, worth, state["worth"])
        return better

    def _polish(self, play: Play, seen: Seen, better: Tensor) -> Tensor:
        """The best success without the change that is worth least, or, once that was tried, the next; then some steps
        that raise the objective with the remaining changes, whose sizes cost nothing.
        """
        state, low, high = play.state, self.threat.low, self.threat.high
        fresh = better | (state["left"] == 0)
        state["left"] = torch.where(fresh, _TRIES, state["left"] - 1)
        state["tried"] = torch.where(better, 0, state["tried"] + fresh)
        place = (state["tried"] % state["fewest"].clamp(min=1, max=1e9).long())[:, None]
        worst = state["worth"].flatten(1).argsort(dim=1, stable=True).gather(1, place)
        dropped = torch.zeros_like(state["worth"].flatten(1), dtype=torch.bool).scatter(1, worst, True)
        fewer = torch.where(dropped.reshape(play.point.shape), play.clean, state["best"])
        ahead = (play.point + _RISE * (high - low) * seen.gradient.sign()).clamp(low, high)
        raised = torch.where(play.point != play.clean, ahead, play.point)
        return torch.where(each(fresh, fewer), fewer, raised)


@final
@dataclass(frozen=True, kw_only=True)
class SigmaZero(Attack):
    """The fewest changed values (L0) that succeed.

    Cinà, Villani, Pintor, Schönherr, Biggio, Pelillo 2025, "Sigma-zero: gradient-based optimization of l0-norm
    adversarial examples", Algorithm 1. `step_size`: of Adam, in box widths, falling to a tenth along a cosine. `sigma`:
    a change d counts as d^2 / (d^2 + sigma). `threshold`: changes below it, in box widths, are undone; it rises after a
    success and falls after a failure by `threshold_rate` times the step size. `polish`: the share of the steps, at the
    end, that go into dropping changes from the best success one by one, which the paper does not do. `mode`: "minimal"
    takes all steps and returns the success with fewest changes, "evaluate" stops a row at its first success within eps.
    """

    norms: ClassVar[tuple[Norm, ...]] = ("l0",)
    minimal: ClassVar[bool] = True
    bounded: ClassVar[tuple[Norm, ...]] = ("l0",)

    objective: Objective = field(default_factory=lambda: Misclassify(margin))
    steps: int = 1000
    step_size: float = 1.0
    sigma: float = 1e-3
    threshold: float = 0.3
    threshold_rate: float = 0.01
    polish: float = 0.25
    mode: MinimalMode = "minimal"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_counts(steps=self.steps)
        check_above_zero(step_size=self.step_size, sigma=self.sigma, threshold_rate=self.threshold_rate)
        if not 0 <= self.threshold <= 1:
            raise UsageError(f"threshold must lie in [0, 1], in box widths, but {self.threshold:g} came")
        if not 0 <= self.polish < 1:
            raise UsageError(f"polish, a share of the steps, must lie in [0, 1), but {self.polish:g} came")

    def _run(self, passes: Passes, x: Tensor, y: Tensor, progress: Progress, verify: bool) -> Found:
        rule = Thresholded(
            self.threat,
            self.steps,
            self.step_size,
            self.sigma,
            self.threshold,
            self.threshold_rate,
            polish_from=self.steps - int(self.polish * self.steps),
        )
        return closest(passes, rule, self.threat, x, y, steps=self.steps, mode=self.mode, progress=progress)
