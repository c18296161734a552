"""Auto-PGD: ascent that chooses its own step sizes, on cross-entropy, on DLR, or towards one wrong class after another.

Croce, Hein 2020, "Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free attacks",
section 3 and algorithm 1; in L1: Croce, Hein 2021, "Mind the box: L1-APGD for sparse adversarial attacks on image
classifiers".
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, final

import torch
from torch import Tensor

from robustgen.attacks.apgd_l1 import FEWEST_STEPS, Look, Sparse, each, radii
from robustgen.attacks.ascend import Play, ascend
from robustgen.attacks.base import Attack, Found, Mode, Progress, check_counts
from robustgen.attacks.passes import Passes, Seen
from robustgen.errors import UsageError
from robustgen.objectives import Misclassify, Objective, Towards, dlr, dlr_towards
from robustgen.randomness import normal, sample_keys, uniform
from robustgen.threat import ThreatModel

MOMENTUM = 0.75


def checkpoints(steps: int) -> list[int]:
    """For each step, how many steps the window has that ends there; 0 where none ends.

    The first window is 22 % of the steps, each next one 3 % shorter, none below 6 % (section 3.1, rounded down).
    """
    window, shorter, shortest = (max(int(share * steps), 1) for share in (0.22, 0.03, 0.06))
    windows, end = [0] * (steps + 1), window
    while end <= steps:
        windows[end] = window
        window = max(window - shorter, shortest)
        end += window
    return windows


class Adaptive:
    """The steps of Auto-PGD in Linf and L2: 2 * eps long with momentum, halved where they stop paying.

    At a checkpoint a row halves its step and goes back to its best point if its value rose in at most a share `rho` of
    the window's steps, or if the last checkpoint changed nothing and no better point came since. Values are compared
    with the step before, the very first with 0, as the authors' program does. A state with `radius` (m,) gives each row
    a ball of its own instead of eps.
    """

    stride = 2.0
    """The first steps' length, in radii."""

    def __init__(self, threat: ThreatModel, steps: int, rho: float, seed: int | None, device: torch.device) -> None:
        self.threat, self.rho, self.seed = threat, rho, seed
        self.window = torch.tensor(checkpoints(steps), device=device)
        self.pull = torch.full((steps + 1,), MOMENTUM, device=device)
        self.pull[0] = 1  # there is no motion yet

    def begin(self, clean: Tensor, label: Tensor, restart: int) -> tuple[Tensor, dict[str, Tensor]]:
        start = clean if self.seed is None else self.scattered(clean, sample_keys(clean, self.seed), restart)
        return start, self.started(start, clean, torch.full_like(clean.flatten(1)[:, 0], self.stride * self.threat.eps))

    def started(self, start: Tensor, clean: Tensor, size: Tensor) -> dict[str, Tensor]:
        """The state of rows that begin at `start` with steps of `size` (m,)."""
        none = torch.full_like(size, -torch.inf)
        return {
            "before": start,
            "best": start,
            "best_gradient": torch.zeros_like(start),
            "best_value": none,
            "best_at_check": none,
            "value": -none,  # so that the first look is no rise
            "rises": torch.zeros_like(none),
            "size": size,
            "halved": torch.ones_like(none, dtype=torch.bool),
        }

    def move(self, play: Play, seen: Seen) -> Tensor:
        state, value, first = play.state, seen.value.to(play.state["value"].dtype), play.step == 0
        better = value > state["best_value"]
        state["best_value"] = torch.where(better, value, state["best_value"])
        state["best"] = torch.where(each(better, play.point), play.point, state["best"])
        state["best_gradient"] = torch.where(each(better, play.point), seen.gradient, state["best_gradient"])
        state["rises"] = state["rises"] + (value > state["value"])
        state["value"] = torch.where(first, 0, value)
        point, gradient, window = play.point, seen.gradient, self.window[play.step]
        if window.any():
            back = each(self._checked(state, window), point)
            point = torch.where(back, state["best"], point)
            gradient = torch.where(back, state["best_gradient"], gradient)
        moved = self._moved(play, point, gradient, each(state["size"], point), state["before"])
        state["before"] = point
        return moved

    def _checked(self, state: dict[str, Tensor], window: Tensor) -> Tensor:
        """Which rows halve their step and go back to their best point."""
        ends = window > 0
        stuck = ~state["halved"] & (state["best_at_check"] >= state["best_value"])
        halved = ends & ((state["rises"] <= self.rho * window) | stuck)
        state["size"] = torch.where(halved, state["size"] / 2, state["size"])
        state["halved"] = torch.where(ends, halved, state["halved"])
        state["best_at_check"] = torch.where(ends, state["best_value"], state["best_at_check"])
        state["rises"] = torch.where(ends, 0, state["rises"])
        return halved

    def _moved(self, play: Play, point: Tensor, gradient: Tensor, size: Tensor, before: Tensor) -> Tensor:
        """Equations 3 and 4: a projected step, then `pull` of it with the rest from the last motion, projected."""
        clean, radius = play.clean, play.state.get("radius")
        pull = each(self.pull[play.step], point).to(point.dtype)
        if self.threat.norm == "linf":
            eps = self.threat.eps if radius is None else each(radius, point)
            low, high = self.threat.low, self.threat.high
            lowest, highest = (clean - eps).clamp_(min=low), (clean + eps).clamp_(max=high)
            ahead = torch.clamp(gradient.sign().mul_(size).add_(point), lowest, highest)
            mixed = ahead.sub_(point).mul_(pull).add_(point).add_((point - before).mul_(1 - pull))
            return torch.clamp(mixed, lowest, highest)
        ahead = self._near(point + _unit(gradient).mul_(size), clean, radius)
        mixed = ahead.sub_(point).mul_(pull).add_(point).add_((point - before).mul_(1 - pull))
        return self.threat.project(mixed, clean, radius)

    def _near(self, point: Tensor, clean: Tensor, radius: Tensor | None) -> Tensor:
        """Legal, and in L2 almost the nearest point: onto the ball and then onto the box, as the authors do throughout.

        That is enough on the way to the point that the exact projection gives, and takes a tenth of its time.
        """
        change = point - clean
        length = torch.linalg.vector_norm(change.flatten(1), dim=1).clamp(min=1e-30)
        share = (self.threat.eps if radius is None else radius) / length
        change.mul_(each(share.clamp(max=1), change))
        return change.add_(clean).clamp_(self.threat.low, self.threat.high)

    def scattered(self, clean: Tensor, keys: Tensor, restart: int, radius: Tensor | None = None) -> Tensor:
        """Random starts: a direction, as far as the ball allows."""
        shape = tuple(clean.shape[1:])
        if self.threat.norm == "linf":
            noise = 2 * uniform(keys, shape, restart) - 1
            size = torch.linalg.vector_norm(noise.flatten(1), torch.inf, dim=1)
        else:
            noise = normal(keys, shape, restart)
            size = torch.linalg.vector_norm(noise.flatten(1), dim=1)
        share = (self.threat.eps if radius is None else radius) / size.clamp(min=1e-12)
        noise = noise * each(share, noise)
        return self.threat.project(clean + noise.to(clean.dtype), clean, radius)


@dataclass(frozen=True, kw_only=True)
class AutoPGD(Attack):
    """The options that all forms of Auto-PGD share; the forms differ in what they maximise.

    `steps` of a restart, `restarts`: as everywhere. `rho`: the share of rising steps that keeps the step size (Linf and
    L2). `large_radii`: search in the balls of 3 and 2 times eps first, 30 % of the steps in each (L1 alone; None = yes
    there, from 3 steps up), which costs two passes more. `mode`: "evaluate" stops a row at its first verified success,
    "max-loss" runs in full and returns the legal point of highest loss, a success before any failure.
    """

    norms: ClassVar = ("linf", "l2", "l1")

    steps: int = 100
    restarts: int = 1
    rho: float = 0.75
    random_start: bool = True
    large_radii: bool | None = None
    mode: Mode = "evaluate"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_counts(steps=self.steps, restarts=self.restarts)
        if not 0 <= self.rho <= 1:
            raise UsageError(f"rho is a share of steps, from 0 to 1, but {self.rho:g} came")
        if self.mode not in ("evaluate", "max-loss"):
            raise UsageError(f"Auto-PGD has the modes evaluate and max-loss, but {self.mode!r} came: pgd has last")
        if self.large_radii and (self.threat.norm != "l1" or self.steps < FEWEST_STEPS):
            raise UsageError(
                f"large_radii needs norm l1 and at least {FEWEST_STEPS} steps, but {self.threat.norm} and {self.steps} "
                "came: leave it out"
            )
        if self.restarts > 1 and not self.random_start:
            raise UsageError(f"{self.restarts} restarts need random starts: without them each would repeat the first")

    @final
    def _ascend(self, passes: Passes, x: Tensor, y: Tensor, progress: Progress, restarts: int) -> Found:
        seed, look, steps = self.seed if self.random_start else None, None, self.steps
        rule: Adaptive | Sparse
        if self.threat.norm == "l1":
            wide = self.steps >= FEWEST_STEPS if self.large_radii is None else self.large_radii
            stages = radii(self.threat.eps, self.steps, wide)
            look = Look(passes, len(x), stages) if wide else None
            rule = Sparse(self.threat, stages, seed, x.device, look)
            steps += len(stages) - 1
        else:
            rule = Adaptive(self.threat, self.steps, self.rho, seed, x.device)
        return ascend(
            passes,
            rule,
            self.threat,
            x,
            y,
            steps=steps,
            restarts=restarts,
            keep="success" if self.mode == "evaluate" else "best",
            look=look,
            progress=progress,
        )


@final
@dataclass(frozen=True, kw_only=True)
class APGD(AutoPGD):
    """Auto-PGD on cross-entropy, or on any other objective.

    >>> import torch
    >>> model = torch.nn.Linear(2, 2)
    >>> x, y = torch.rand(4, 2), torch.tensor([0, 1, 0, 1])
    >>> attack = APGD(threat=ThreatModel("linf", eps=0.1), steps=5)
    >>> bool(attack.threat.allows(attack(model, x, y), x).all())
    True
    """

    def _run(self, passes: Passes, x: Tensor, y: Tensor, progress: Progress, verify: bool) -> Found:
        return self._ascend(passes, x, y, progress, self.restarts)


@final
@dataclass(frozen=True, kw_only=True)
class APGDDLR(AutoPGD):
    """Auto-PGD on the difference of logits ratio, which no scale of the logits can flatten (section 4)."""

    objective: Objective = field(default_factory=lambda: Misclassify(dlr))

    def _run(self, passes: Passes, x: Tensor, y: Tensor, progress: Progress, verify: bool) -> Found:
        return self._ascend(passes, x, y, progress, self.restarts)


@final
@dataclass(frozen=True, kw_only=True)
class APGDT(AutoPGD):
    """Auto-PGD on the targeted DLR, towards the `targets` likeliest wrong classes of the clean input, one by one.

    Section 4, equation 7. Any misclassification is a success. A model of fewer classes has fewer targets. Each target
    gets `restarts` restarts; `AttackResult.restart` counts them all: target * restarts + restart.
    """

    targetable: ClassVar[bool] = False

    targets: int = 9

    def __post_init__(self) -> None:
        super().__post_init__()
        check_counts(targets=self.targets)
        if self.objective != Misclassify():
            raise UsageError("apgd-t maximises a loss of its own, towards each class: leave the objective out")

    def _run(self, passes: Passes, x: Tensor, y: Tensor, progress: Progress, verify: bool) -> Found:
        if not len(x):
            return Found.nothing(x)
        rows = torch.arange(len(x), device=x.device)
        targets = torch.cat([self._targets(passes, part, x[part], y[part]) for part in rows.split(passes.rows_at_once)])
        labels = torch.stack([y[:, None].expand_as(targets), targets], 2)
        towards = passes.part(rows, Towards(dlr_towards))
        found = self._ascend(towards, x, labels, progress, targets.shape[1])
        passes.absorb(rows, towards)
        return found

    def _targets(self, passes: Passes, row: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """(m, targets * restarts) classes; the label itself, which gives no gradient, where it is the only class."""
        wrong = passes.logits(row, x).scatter(1, y[:, None], -torch.inf)
        likeliest = wrong.topk(max(1, min(self.targets, wrong.shape[1] - 1)), dim=1).indices
        return likeliest.repeat_interleave(self.restarts, dim=1)


def _unit(gradient: Tensor) -> Tensor:
    """Each row at length 1, or 0 where it is 0; scaled before squaring, so that tiny gradients do not underflow."""
    largest = gradient.flatten(1).abs().amax(1)  # several times faster than the norm
    scaled = gradient / each(torch.where(largest > 0, largest, 1), gradient)
    length = torch.linalg.vector_norm(scaled.flatten(1), dim=1)
    return scaled.div_(each(length.clamp(min=1), gradient))
