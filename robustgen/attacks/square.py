"""Square: random search with square windows, from the model's answers alone."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Protocol, final

import torch
from torch import Tensor

from robustgen.attacks.ascend import Play, ascend
from robustgen.attacks.base import Attack, Found, Progress, check_counts
from robustgen.attacks.passes import Passes, Seen
from robustgen.attacks.square_windows import FULL_LENGTH, Image, Schedule, as_image, bump, grid_of_bumps
from robustgen.errors import UsageError
from robustgen.objectives import Misclassify, Objective, margin
from robustgen.randomness import derive, sample_keys, uniform
from robustgen.threat import ThreatModel

_CHUNK = 32  # queries whose random numbers are drawn at once


@final
@dataclass(frozen=True, kw_only=True)
class Square(Attack):
    """At each query a window at a random place takes new values; they stay when the objective's value rises.

    Andriushchenko, Croce, Flammarion, Hein 2020, "Square Attack: a query-efficient black-box adversarial attack via
    random search", algorithms 1 to 3; L1 by Croce, Hein 2021, "Mind the box". Linf: vertical stripes to begin with,
    then windows of plus or minus `eps`, one sign a channel. L2 and L1: a grid of bumps to begin with, then a bump that
    takes over the size of what it replaces, of a second window, and what is left of `eps`. `p_init`: the share of the
    image that the first windows cover, halved as the queries go on (not fitted to their number, as in AutoAttack).
    Uses values and verdicts, no gradients: one look at the start of each of `restarts`, then `queries` changes.

    `drift`: a change also stays where it leaves the value as it was, without which a value of few levels, such as a
    verdict alone, would hold the search where it began.

    Inputs of any shape: the last two axes are the image, the others its channels; a vector is an image one row high.
    """

    objective: Objective = field(default_factory=lambda: Misclassify(margin))
    queries: int = 5000
    p_init: float = 0.8
    restarts: int = 1
    drift: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_counts(queries=self.queries, restarts=self.restarts)
        _check_share(self.p_init)

    def _run(self, passes: Passes, x: Tensor, y: Tensor, progress: Progress, verify: bool) -> Found:
        image, flat = as_image(x.shape[1:]), self.threat.norm == "linf"
        schedule = Schedule(image, self.p_init, odd=not flat, device=x.device)
        return ascend(
            passes,
            _Search(image, self.seed, (_Flat if flat else _Bumps)(self.threat, schedule), self.drift),
            self.threat,
            x,
            y,
            steps=self.queries,
            restarts=self.restarts,
            keep="success",
            look=passes.judge,
            progress=progress,
            verify=verify,
        )


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class SquareOnward(Attack):
    """Square that goes on from points which other attacks came to, and may take back what they changed.

    `starts` (n, *shape): legal points, one for each row that is attacked; None = the rows themselves. Of the windows a
    third, at random, take the clean values again, the others are those of `Square`; their sizes, from `p_init` of the
    image down, are fitted to the number of `queries`. A score that bends within a step of what follows its gradient,
    such as the code length of an image, comes down so for about twice as many inputs (benchmarks/README.md).
    """

    objective: Objective = field(default_factory=lambda: Misclassify(margin))
    starts: Tensor | None = None
    queries: int = 2500
    p_init: float = 0.8

    def __post_init__(self) -> None:
        super().__post_init__()
        check_counts(queries=self.queries)
        _check_share(self.p_init)

    def _run(self, passes: Passes, x: Tensor, y: Tensor, progress: Progress, verify: bool) -> Found:
        starts = x if self.starts is None else self.starts.to(x)
        if starts.shape != x.shape:
            raise UsageError(
                f"one start is needed for each input, of its shape: inputs of {tuple(x.shape)} came, and starts of "
                f"{tuple(starts.shape)}"
            )
        image, flat = as_image(x.shape[1:]), self.threat.norm == "linf"
        schedule = Schedule(image, self.p_init, odd=not flat, device=x.device)
        return ascend(
            passes,
            _Search(image, self.seed, _Undoing((_Flat if flat else _Bumps)(self.threat, schedule), self.queries)),
            self.threat,
            x,
            y,
            steps=self.queries,
            look=passes.judge,
            progress=progress,
            verify=verify,
            starts=starts,
        )


def _check_share(p_init: float) -> None:
    if not 0 < p_init <= 1:
        raise UsageError(f"p_init is a share of the image, above 0 and at most 1, but {p_init:g} came")


class _Proposal(Protocol):
    """What is tried, given as planes (m, channels, height * width)."""

    schedule: Schedule
    numbers: int
    """Random numbers that one change needs; the first two say where its window lies."""

    def start(self, clean: Tensor, keys: Tensor) -> Tensor: ...

    def change(self, clean: Tensor, best: Tensor, step: Tensor, noise: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class _Search:
    """Random search: a change is tried on the best point so far, which it replaces when its value is higher."""

    image: Image
    seed: int
    proposal: _Proposal
    drift: bool = False

    def begin(self, clean: Tensor, label: Tensor, restart: int) -> tuple[Tensor, dict[str, Tensor]]:
        keys = sample_keys(clean, self.seed)
        keys = derive(keys, torch.full_like(keys, restart))
        point = self.proposal.start(self._planes(clean), keys).reshape(clean.shape)
        value = torch.full_like(clean.flatten(1)[:, 0], -torch.inf)
        noise = torch.empty(len(clean), _CHUNK, self.proposal.numbers, device=clean.device)
        return point, {"best": point.clone(), "value": value, "key": keys, "noise": noise}

    def move(self, play: Play, seen: Seen) -> Tensor:
        best, value = play.state["best"], play.state["value"]
        higher = seen.value >= value if self.drift else seen.value > value
        better = (higher | seen.achieved).nonzero()[:, 0]
        best[better] = play.point[better]
        value[better] = seen.value[better].to(value.dtype)
        moved = self.proposal.change(self._planes(play.clean), self._planes(best), play.step, self._noise(play))
        return moved.reshape(best.shape)

    def _planes(self, points: Tensor) -> Tensor:
        return points.reshape(len(points), self.image[0], self.image[1] * self.image[2])

    def _noise(self, play: Play) -> Tensor:
        """(m, numbers) in [0, 1) for the step at which each row stands; drawn for many steps at once, being cheaper."""
        place, noise = play.step % _CHUNK, play.state["noise"]
        fresh = (place == 0).nonzero()[:, 0]
        if len(fresh):
            keys = derive(play.state["key"][fresh], play.step[fresh] // _CHUNK)
            noise[fresh] = uniform(keys, (_CHUNK, self.proposal.numbers))
        return noise[torch.arange(len(place), device=place.device), place]


class _Flat:
    """Linf: every value at one of the two ends that it may reach (algorithm 2)."""

    def __init__(self, threat: ThreatModel, schedule: Schedule) -> None:
        self.threat, self.schedule, self.numbers = threat, schedule, 2 + schedule.image[0]

    def start(self, clean: Tensor, keys: Tensor) -> Tensor:
        channels, height, width = self.schedule.image
        signs = _signs(uniform(keys, (channels, 1, width), stream=1)).expand(-1, -1, height, -1)
        return self._end(clean, signs.reshape(clean.shape))

    def change(self, clean: Tensor, best: Tensor, step: Tensor, noise: Tensor) -> Tensor:
        (window,) = self.schedule.windows(self.schedule.level(step), noise[:, :2])
        place = window.place.expand(-1, best.shape[1], -1)
        return best.scatter(2, place, self._end(clean.gather(2, place), _signs(noise[:, 2:, None])))

    def _end(self, clean: Tensor, signs: Tensor) -> Tensor:
        return (clean + signs.to(clean.dtype) * self.threat.eps).clamp(self.threat.low, self.threat.high)


class _Bumps:
    """L2 and L1: the size of the change moves from one window to another, as a bump (algorithm 3)."""

    def __init__(self, threat: ThreatModel, schedule: Schedule) -> None:
        self.threat, self.schedule, self.numbers = threat, schedule, 5 + schedule.image[0]
        self.order = 1 if threat.norm == "l1" else 2
        device = schedule.device
        pattern, number = grid_of_bumps(schedule.image, self.order)
        self._pattern, self._number = pattern.to(device), number.to(device)
        tallest, widest = (max(sides) for sides in zip(*schedule.sizes, strict=True))
        bumps = torch.zeros(len(schedule.sizes), 2, tallest, widest)
        for level, (height, width) in enumerate(schedule.sizes):
            bumps[level, 0, :height, :width] = bump(height, width, self.order)
            bumps[level, 1, :height, :width] = bump(width, height, self.order).T
        self._bumps = bumps.to(device)

    def start(self, clean: Tensor, keys: Tensor) -> Tensor:
        channels, number = self.schedule.image[0], self._number
        draws = uniform(keys, (1 + channels, int(number.max()) + 1), stream=1)[:, :, number.clamp(min=0)]
        bumps = torch.where(draws[:, :1] < 0.5, self._pattern[0], self._pattern[1]) * _signs(draws[:, 1:])
        delta = bumps.reshape(clean.shape).to(clean.dtype)
        # the paper's box has sides of length 1, and an L1 grid is drawn in its units
        side = self.threat.high - self.threat.low
        return self._legal(clean, delta * (side if math.isfinite(side) else self.threat.eps))

    def change(self, clean: Tensor, best: Tensor, step: Tensor, noise: Tensor) -> Tensor:
        level, channels = self.schedule.level(step), best.shape[1]
        window, other = self.schedule.windows(level, noise[:, :2], noise[:, 2:4])
        place, second = (w.place.expand(-1, channels, -1) for w in (window, other))
        inside, beyond = (mask.flatten(1)[:, None].to(best.dtype) for mask in (window.inside, other.beyond(window)))
        delta = best - clean
        old, taken = delta.gather(2, place) * inside, delta.gather(2, second) * beyond
        lying = (noise[:, 4] >= 0.5).long()[:, None, None]
        bumps = self._bumps[level[:, None, None], lying, window.down[:, :, None], window.right[:, None]]
        new = bumps.flatten(1)[:, None].to(best.dtype) * _signs(noise[:, 5:, None]).to(best.dtype)
        replaced = self._power(old)
        new = new + delta.gather(2, place) / (self._root(replaced) + 1e-12)
        left = (self.threat.eps**self.order - self._power(delta.flatten(1)[:, None])).clamp(min=0)
        size = self._root(left / channels + replaced + self._power(taken))
        size = size * (channels if self.order == 1 else 1)  # the projection takes back what is too much
        new = new * (size / (self._root(self._power(new * inside)) + 1e-12))
        return self._legal(clean, delta.scatter(2, second, 0.0).scatter(2, place, new))

    def _power(self, values: Tensor) -> Tensor:
        """Each row's norm to the power of the order."""
        return (values.abs() if self.order == 1 else values.square()).sum(2, keepdim=True)

    def _root(self, power: Tensor) -> Tensor:
        return power if self.order == 1 else power.sqrt()

    def _legal(self, clean: Tensor, delta: Tensor) -> Tensor:
        """L2: brought to length `eps`, then clipped. L1: projected, where clipping alone is not enough."""
        low, high = self.threat.low, self.threat.high
        if self.order == 2:
            length = self._root(self._power(delta.flatten(1)[:, None]))
            return (clean + delta * (self.threat.eps / (length + 1e-12))).clamp(low, high)
        point = clean + delta
        legal = point.clamp(low, high)
        over = (self.threat.distance(legal, clean) > self.threat.eps).nonzero()[:, 0]
        if len(over):
            legal[over] = self.threat.project(point[over], clean[over])
        return legal


class _Undoing:
    """Changes of another kind, a third of which give the window its clean values again, with sizes of windows fitted
    to a number of queries.
    """

    def __init__(self, proposal: _Flat | _Bumps, queries: int) -> None:
        self.proposal, self.schedule, self.queries = proposal, proposal.schedule, queries
        self.numbers = proposal.numbers + 1

    def start(self, clean: Tensor, keys: Tensor) -> Tensor:
        return clean

    def change(self, clean: Tensor, best: Tensor, step: Tensor, noise: Tensor) -> Tensor:
        fitted = step * FULL_LENGTH // self.queries
        made = self.proposal.change(clean, best, fitted, noise[:, :-1])
        (window,) = self.schedule.windows(self.schedule.level(fitted), noise[:, :2])
        place = window.place.expand(-1, best.shape[1], -1)
        undone = best.scatter(2, place, clean.gather(2, place))
        return torch.where(noise[:, -1:, None] < 1 / 3, undone, made)


def _signs(noise: Tensor) -> Tensor:
    return torch.where(noise < 0.5, -1.0, 1.0)
