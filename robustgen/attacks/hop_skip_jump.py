"""HopSkipJump: the smallest change found by asking the model for nothing but its decisions."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar, Literal, final

import torch
from torch import Tensor

from robustgen.attacks.base import Attack, Found, Progress, check_counts
from robustgen.attacks.passes import Passes
from robustgen.randomness import normal, sample_keys, uniform
from robustgen.threat import Norm, ThreatModel

_BLOCK = 64  # probes drawn from one stream of noise: part of the result, so that it does not depend on the batch size
_STREAMS = 1 << 20  # those of the probes begin after those of the starts
_HALVINGS = 12  # of a segment: a point nearer to the boundary than 2^-12 of it would change sides with the rounding
_SHORTEST = 20  # halvings of a jump after which a row stays where it is


@dataclass
class _Search:
    """The m rows still in play: all in the same step, each at an adversarial `point` that was itself judged."""

    row: Tensor
    clean: Tensor
    label: Tensor
    key: Tensor
    point: Tensor

    def select(self, keep: Tensor) -> _Search:
        return _Search(**{name: value[keep] for name, value in vars(self).items()})


@final
@dataclass(frozen=True, kw_only=True)
class HopSkipJump(Attack):
    """A walk along the decision boundary that needs decisions only: no gradients, no scores.

    Chen, Jordan, Wainwright 2020, "HopSkipJumpAttack: a query-efficient decision-based attack", algorithm 2. Each step
    estimates the boundary's normal from the decisions at random points around a boundary point (eq. 9, with the
    baseline of eq. 16), jumps along it as far as the point stays adversarial, and returns to the boundary by bisection
    towards the clean input. `queries`: decisions a row may cost, never exceeded. `initial_probes`: probes of the first
    estimate; step t takes sqrt(t) times as many, at most `most_probes`. `starts`: random images tried for a point to
    begin at, or inputs drawn from `others` (k, *shape); in the targeted form of an attack these rarely hit a given
    class, and a row without a start fails. `mode`: "minimal" uses all queries, "evaluate" stops a row at its first
    success within eps. `steps` of the result counts queries.

    Two constants are not the paper's, whose own fall below float32 for large inputs: probes lie at 1 % of the change's
    Euclidean length (the paper: 1/d of its norm, for d values), and bisection ends at 2^-12 of the segment (d^-1.5, or
    d^-2 in Linf), so that a success is one in any batch.
    """

    norms: ClassVar[tuple[Norm, ...]] = ("linf", "l2")
    minimal: ClassVar[bool] = True
    bounded: ClassVar[tuple[Norm, ...]] = ("linf", "l2")

    queries: int = 10_000
    initial_probes: int = 100
    most_probes: int = 10_000
    starts: int = 100
    mode: Literal["minimal", "evaluate"] = "minimal"
    others: Tensor | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_counts(
            queries=self.queries,
            initial_probes=self.initial_probes,
            most_probes=self.most_probes,
            starts=self.starts,
        )

    def _run(self, passes: Passes, x: Tensor, y: Tensor, progress: Progress, verify: bool) -> Found:
        found = Found.nothing(x)
        for row in torch.arange(len(x), device=x.device).split(passes.rows_at_once):
            clean = x[row]
            walk = _Walk(self, passes, found)
            walk.run(_Search(row, clean, y[row], sample_keys(clean, self.seed), clean))
            progress(len(row))
        return found


class _Walk:
    """One chunk of rows on their way; `found` takes what they find."""

    def __init__(self, attack: HopSkipJump, passes: Passes, found: Found) -> None:
        self.attack, self.passes, self.found = attack, passes, found
        self.threat: ThreatModel = attack.threat
        self.nearest = torch.full(found.success.shape, torch.inf, device=found.x_adv.device)

    def run(self, search: _Search) -> None:
        search = self.start(search)
        search = self.settle(self.bisect(search))
        step = 0
        while len(search.row):
            step += 1
            probes = min(int(self.attack.initial_probes * math.sqrt(step)), self.attack.most_probes)
            search = search.select(self.left(search.row) > probes + _HALVINGS)
            if not len(search.row):
                return
            distance = self.distance(search.point, search.clean)
            reach = 0.01 * _length((search.point - search.clean).flatten(1))
            if step == 1:
                reach = torch.full_like(reach, 0.1 * (self.threat.high - self.threat.low))
            normals = self.estimate(search, probes, reach, step)
            search = self.settle(self.bisect(self.jump(search, normals, distance / math.sqrt(step))))

    def distance(self, point: Tensor, clean: Tensor) -> Tensor:
        return self.threat.distance(point.double(), clean.double()).to(clean.dtype)

    def left(self, row: Tensor) -> Tensor:
        return self.attack.queries - self.passes.forward[row] // self.passes.eot

    def achieved(self, row: Tensor, point: Tensor, label: Tensor) -> Tensor:
        """The decisions at points (m, *shape) of rows that may come several times, each counted."""
        verdicts = []
        for part in torch.arange(len(row), device=row.device).split(self.passes.rows_at_once):
            before = self.passes.forward.clone()
            verdicts.append(self.passes.judge(row[part], point[part], label[part]).achieved)
            each = torch.full_like(row[part], self.passes.eot)
            self.passes.forward = before.index_add(0, row[part], each)
        return torch.cat(verdicts) if verdicts else torch.zeros_like(row, dtype=torch.bool)

    def start(self, search: _Search) -> _Search:
        """Rows at an adversarial point: the clean one where it is one already, else an image from elsewhere."""
        low, high, others = self.threat.low, self.threat.high, self.attack.others
        shape = tuple(search.clean.shape[1:])
        started: list[_Search] = []
        for attempt in range(self.attack.starts + 1):
            search = search.select(self.left(search.row) > 0)
            if not len(search.row):
                break
            if attempt and others is not None and len(others):
                place = (uniform(search.key, (1,), attempt)[:, 0] * len(others)).long().clamp(max=len(others) - 1)
                search.point = others.to(search.clean)[place]
                self.found.x_adv[search.row] = search.point
            elif attempt:
                noise = uniform(search.key, shape, attempt).to(search.clean.dtype)
                search.point = low + (high - low) * noise
                self.found.x_adv[search.row] = search.point
            there = self.achieved(search.row, search.point, search.label)
            started.append(search.select(there))
            search = search.select(~there)
        parts = [vars(part) for part in (*started, search.select(torch.zeros_like(search.row, dtype=torch.bool)))]
        return _Search(**{name: torch.cat([part[name] for part in parts]) for name in parts[0]})

    def bisect(self, search: _Search) -> _Search:
        """Move each point towards its clean input to where the decision changes, staying on the adversarial side."""
        clean = search.clean
        near = torch.zeros(len(search.row), device=clean.device, dtype=clean.dtype)
        far = torch.ones_like(near)
        outer, point = search.point, search.point
        distance = self.distance(outer, clean)
        for _ in range(_HALVINGS):
            middle = (near + far) / 2
            if self.threat.norm == "linf":
                room = _each(middle * distance, clean)
                trial = torch.minimum(torch.maximum(outer, clean - room), clean + room)
            else:
                trial = clean + _each(middle, clean) * (outer - clean)
            there = self.bounded(search, trial)
            point = torch.where(_each(there, clean), trial, point)
            far, near = torch.where(there, middle, far), torch.where(there, near, middle)
        search.point = point
        return search

    def bounded(self, search: _Search, trial: Tensor) -> Tensor:
        """The decisions at `trial`; no more than a row's queries are asked, and what is not asked is not achieved."""
        there = torch.zeros_like(search.row, dtype=torch.bool)
        asked = self.left(search.row) > 0
        there[asked] = self.achieved(search.row[asked], trial[asked], search.label[asked])
        return there

    def settle(self, search: _Search) -> _Search:
        """Note the nearest point so far of each row; without those that need no more."""
        distance = self.distance(search.point, search.clean)
        nearer = distance < self.nearest[search.row]
        row, found = search.row[nearer], self.found
        used = self.passes.forward[search.row] // self.passes.eot
        self.nearest[row] = distance[nearer].to(self.nearest.dtype)
        found.x_adv[row], found.success[row], found.steps[row] = search.point[nearer], True, used[nearer]
        within = distance <= self.threat.eps
        first = within & (found.first_success[search.row] < 0)
        found.first_success[search.row[first]] = used[first]
        finished = distance == 0
        return search.select(~(finished | within) if self.attack.mode == "evaluate" else ~finished)

    def estimate(self, search: _Search, probes: int, reach: Tensor, step: int) -> Tensor:
        """The direction (m, *shape) of the boundary's normal into the adversarial region, of unit size in the norm.

        The mean over probes of (decision - its mean) times the probe's own direction.
        """
        together = max(1, self.passes.rows_at_once // min(_BLOCK, probes))
        parts = torch.arange(len(search.row), device=search.row.device).split(together)
        return torch.cat([self.normal(search.select(part), probes, reach[part], step) for part in parts])

    def normal(self, search: _Search, probes: int, reach: Tensor, step: int) -> Tensor:
        clean = search.clean
        total, plain = torch.zeros_like(clean, dtype=torch.float64), torch.zeros_like(clean, dtype=torch.float64)
        count = torch.zeros_like(reach)
        for number, size in _blocks(probes):
            shape = (size, *clean.shape[1:])
            stream = _STREAMS * step + number
            if self.threat.norm == "linf":
                noise = 2 * uniform(search.key, shape, stream) - 1
            else:
                noise = normal(search.key, shape, stream)
            length = _length(noise.flatten(2))
            noise = (noise / length.reshape(*length.shape, *[1] * (clean.dim() - 1))).to(clean.dtype)
            centre, span = search.point[:, None], reach.reshape(-1, *[1] * clean.dim())
            points = (centre + span * noise).clamp(self.threat.low, self.threat.high)
            noise = (points - centre) / span  # what the box left of it
            row, label = (value.repeat_interleave(size, 0) for value in (search.row, search.label))
            there = self.achieved(row, points.flatten(0, 1), label).reshape(-1, size).to(clean.dtype)
            total += (noise * there.reshape(*there.shape, *[1] * (clean.dim() - 1))).sum(1, dtype=torch.float64)
            plain += noise.sum(1, dtype=torch.float64)
            count += there.sum(1)
        mean = count / probes
        baseline = torch.where((count == 0) | (count == probes), torch.where(count == 0, 1.0, 0.0), mean)
        direction = total - _each(baseline, clean) * plain
        if self.threat.norm == "linf":
            return direction.sign().to(clean.dtype)
        return (direction / _each(_length(direction.flatten(1)).clamp(min=1e-30), clean)).to(clean.dtype)

    def jump(self, search: _Search, normals: Tensor, length: Tensor) -> _Search:
        """Go along `normals` by `length`, halved until the point is adversarial; stay where no length is."""
        waiting = torch.ones_like(search.row, dtype=torch.bool)
        point = search.point.clone()
        for _ in range(_SHORTEST):
            waiting &= self.left(search.row) > _HALVINGS
            if not waiting.any():
                break
            trial = search.point + _each(length, normals) * normals
            trial = trial.clamp(self.threat.low, self.threat.high)
            there = torch.zeros_like(waiting)
            there[waiting] = self.achieved(search.row[waiting], trial[waiting], search.label[waiting])
            point[there] = trial[there]
            waiting &= ~there
            length = length / 2
        search.point = point
        return search


def _blocks(probes: int) -> Iterator[tuple[int, int]]:
    """(number, probes in it) of each block."""
    for number, begin in enumerate(range(0, probes, _BLOCK)):
        yield number, min(_BLOCK, probes - begin)


def _length(values: Tensor) -> Tensor:
    """Euclidean, over the last axis; summed in float64, since float32 sums depend on how many rows are summed at once
    and a last bit can tip a decision.
    """
    length: Tensor = torch.linalg.vector_norm(values, dim=-1, dtype=torch.float64)
    return length.to(values.dtype)


def _each(values: Tensor, like: Tensor) -> Tensor:
    """(m,) -> (m, 1, ..., 1), to be broadcast over `like`."""
    return values.reshape(-1, *[1] * (like.dim() - 1))
