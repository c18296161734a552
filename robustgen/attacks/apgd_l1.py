"""Auto-PGD in L1: sparse steps, as sparse as the best point so far suggests, in balls that shrink to eps.

Croce, Hein 2021, "Mind the box: L1-APGD for sparse adversarial attacks on image classifiers", section 3.3 and
algorithm 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from robustgen.attacks.ascend import Play
from robustgen.attacks.passes import Passes, Seen
from robustgen.randomness import normal, sample_keys
from robustgen.threat import ThreatModel

FEWEST_STEPS = 3  # of which each radius can have one
FIRST_SHARE = 0.2  # of the values, changed by the first steps where no start tells
SPARSER = 1.5  # the next steps change this many times fewer values than the best point does
SHRUNK = 0.95  # a best point with fewer of its values changed than this share, since the last check, is a new start
SHORTER, SHORTEST = 1.5, 0.1  # each other step is divided by this; the least, as a share of the radius


@dataclass(frozen=True)
class Stage:
    """`steps` steps in the ball of `radius`, from `first` on; one more look in between moves to the next stage."""

    radius: float
    steps: int
    first: int


def radii(eps: float, steps: int, wide: bool) -> list[Stage]:
    """The stages of an ascent of `steps` steps: one, or with `wide` 3, 2 and 1 times eps for 30, 30 and 40 %."""
    if not wide:
        return [Stage(eps, steps, 0)]
    early = min(math.ceil(0.3 * steps), (steps - 1) // 2)
    return [
        Stage(3 * eps, early, 0),
        Stage(2 * eps, early, early + 1),
        Stage(eps, steps - 2 * early, 2 * (early + 1)),
    ]


class Look:
    """A pass in which points of the wider balls never count as found; `value` keeps what was seen there, by row."""

    def __init__(self, passes: Passes, n: int, stages: list[Stage]) -> None:
        self.passes, self.begins, self.total = passes, stages[-1].first, stages[-1].first + stages[-1].steps
        self.looks = torch.zeros_like(passes.forward)
        self.value: Tensor | None = None

    def __call__(self, row: Tensor, point: Tensor, label: Tensor) -> Seen:
        seen = self.passes.ascent(row, point, label)
        if self.value is None:
            self.value = seen.value.new_zeros(len(self.looks))
        self.value[row] = seen.value
        wide = self.looks[row] % self.total < self.begins
        self.looks[row] += 1
        return Seen(torch.where(wide, -torch.inf, seen.value), seen.achieved & ~wide, seen.gradient)


class Sparse:
    """The steps of Auto-PGD in L1, through the balls of `stages`.

    A step of length `size` goes equally into the values of largest gradient, a share that follows from how many values
    the best point changes. Every 4 % of a stage's steps, a row whose best point has become sparser goes back to it at
    full length; any other shortens its steps. The best point of a stage, projected, begins the next. A state with
    `radius` (m,) gives each row a ball of its own, of which the radii of `stages` are multiples.
    """

    def __init__(
        self, threat: ThreatModel, stages: list[Stage], seed: int | None, device: torch.device, look: Look | None
    ) -> None:
        self.threat, self.stages, self.seed, self.look = threat, stages, seed, look
        number, checks, last = [], [], []
        for place, stage in enumerate(stages):
            window = max(int(0.04 * stage.steps), 1)
            number += [place] * (stage.steps + 1)
            checks += [step > 0 and step % window == 0 for step in range(stage.steps + 1)]
            last += [step == stage.steps for step in range(stage.steps + 1)]
        self.stage, self.checks = torch.tensor(number, device=device), torch.tensor(checks, device=device)
        self.last = torch.tensor(last, device=device)
        self.radius = torch.empty(0, device=device)  # of each stage, as precise as the points: see begin
        self.stride = stages[0].radius  # the first steps' length, where rows have radii of their own in these

    def begin(self, clean: Tensor, label: Tensor, restart: int) -> tuple[Tensor, dict[str, Tensor]]:
        start, values = clean, clean.flatten(1)
        self.radius = clean.new_tensor([stage.radius for stage in self.stages])
        longest = torch.full_like(values[:, 0], self.stages[0].radius)
        if self.seed is not None:
            start = self._scattered(clean, sample_keys(clean, self.seed), restart, longest)
        state = self.started(start, clean, longest)
        if self.seed is None or len(self.stages) == 1:
            state["share"] = torch.full_like(longest, FIRST_SHARE)
            state["changed"] = torch.ones_like(longest)
        return start, state

    def started(self, start: Tensor, clean: Tensor, size: Tensor) -> dict[str, Tensor]:
        """The state of rows that begin at `start` with steps of `size` (m,), as sparse as the start suggests."""
        share = self._share(start, clean)
        return {
            "best": start,
            "best_gradient": torch.zeros_like(start),
            "best_value": torch.full_like(size, -torch.inf),
            "size": size,
            "share": share / SPARSER,
            "changed": share,
        }

    def scattered(self, clean: Tensor, keys: Tensor, restart: int, radius: Tensor) -> Tensor:
        """Random starts in the first stage's ball, where rows have a `radius` (m,) of their own."""
        return self._scattered(clean, keys, restart, self.radius[0] * radius)

    def _scattered(self, clean: Tensor, keys: Tensor, restart: int, longest: Tensor) -> Tensor:
        noise = normal(keys, tuple(clean.shape[1:]), restart)
        return self._legal(clean + noise.to(clean.dtype), clean, longest)

    def move(self, play: Play, seen: Seen) -> Tensor:
        state, point, gradient = play.state, play.point, seen.gradient
        value = seen.value if self.look is None or self.look.value is None else self.look.value[play.row]
        better = value > state["best_value"]
        state["best_value"] = torch.where(better, value.to(state["best_value"].dtype), state["best_value"])
        state["best"] = torch.where(each(better, point), point, state["best"])
        state["best_gradient"] = torch.where(each(better, point), gradient, state["best_gradient"])
        stage, checks, last = self.stage[play.step], self.checks[play.step], self.last[play.step]
        if checks.any():
            back = each(self._checked(state, play.clean, checks, self._reach(state, stage)), point)
            point = torch.where(back, state["best"], point)
            gradient = torch.where(back, state["best_gradient"], gradient)
        moved = torch.where(each(last, point), state["best"], point + _spread(gradient, state["share"], state["size"]))
        radius = self._reach(state, stage + last)
        moved = self._legal(moved, play.clean, radius)
        if last.any():
            share = self._share(moved, play.clean)
            for name, fresh in (
                ("best_value", torch.full_like(share, -torch.inf)),
                ("size", radius),
                ("share", share / SPARSER),
                ("changed", share),
            ):
                state[name] = torch.where(last, fresh, state[name])
        return moved

    def _reach(self, state: dict[str, Tensor], stage: Tensor) -> Tensor:
        """(m,) how far each row may go in its stage."""
        reach = self.radius[stage]
        return reach * state["radius"] if "radius" in state else reach

    def _legal(self, point: Tensor, clean: Tensor, radius: Tensor) -> Tensor:
        """The projection, as what has to be added to the change.

        A value that is moved and moved back may so keep a change of one rounding. It is kept on purpose: the authors'
        program does the same and counts it as changed, which makes the steps less sparse. Without, the share that
        withstands cross-entropy in L1 was 51.0 instead of 49.2 % (theirs: 48.5 %) on an adversarially trained network.
        """
        change = point - clean
        correction = (self.threat.project(point, clean, radius) - clean) - change
        return (clean + change + correction).clamp_(self.threat.low, self.threat.high)

    def _share(self, point: Tensor, clean: Tensor) -> Tensor:
        """(m,) the share of values that are changed at all."""
        return (point != clean).flatten(1).to(clean.dtype).mean(1)

    def _checked(self, state: dict[str, Tensor], clean: Tensor, checks: Tensor, radius: Tensor) -> Tensor:
        """Which rows go back to their best point, which has become sparser."""
        share = self._share(state["best"], clean)
        sparser = share < SHRUNK * state["changed"]
        size = torch.where(sparser, radius, torch.maximum(state["size"] / SHORTER, SHORTEST * radius))
        for name, fresh in (("size", size), ("share", share / SPARSER), ("changed", share)):
            state[name] = torch.where(checks, fresh.to(share.dtype), state[name])
        return checks & sparser


def _spread(gradient: Tensor, share: Tensor, size: Tensor) -> Tensor:
    """A step of L1 length `size` (m,), equal in the `share` (m,) of values whose gradients are largest (at least one).

    Equal gradients count alike, zeros never.
    """
    slope = gradient.flatten(1).abs()
    values = slope.shape[1]
    count = values - ((1 - share) * values).clamp(0, values - 1).long()
    least = slope.topk(int(count.max()), dim=1).values.gather(1, count[:, None] - 1)
    sign = gradient.flatten(1).sign() * (slope >= least)
    length = size / sign.abs().sum(1).clamp(min=1)
    return (sign * length[:, None]).reshape(gradient.shape)


def each(values: Tensor, like: Tensor) -> Tensor:
    """(m,) -> (m, 1, ..., 1), to be broadcast over `like`."""
    return values.reshape(-1, *[1] * (like.dim() - 1))
