"""Auto-PGD for the smallest change: a search over eps, row by row, in one run of the loop.

Auto-PGD (Croce, Hein 2020; in L1 Croce, Hein 2021) looks for a success within a given eps. A bisection over eps, as in
AttackBench (Cinà et al. 2025), spends as many steps on a size at which it succeeds at once as on one at which it fails,
and forgets what it found. Here a round ends at its success and the steps left over go into the next ones, and half of
the rounds begin at the nearest success known.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, final

import torch
from torch import Tensor

from robustgen.attacks.apgd import Adaptive, checkpoints
from robustgen.attacks.apgd_l1 import FEWEST_STEPS, Sparse, radii
from robustgen.attacks.ascend import Play
from robustgen.attacks.base import Attack, Found, Progress, check_counts
from robustgen.attacks.minimal import MinimalMode, closest, each
from robustgen.attacks.passes import Passes, Seen
from robustgen.randomness import derive, sample_keys
from robustgen.threat import ThreatModel

RHO = 0.75  # of Auto-PGD, as published
LARGEST_STEP_DOWN = 4.0  # a radius is tried at half the nearest success at the least: the root of this
CLOSED, REOPENED = 1.01, 1.1  # a bracket narrower than the one is widened to the other: failing proves nothing
SETTLED_STEPS = 8.0  # rounds from a known success begin with steps this many times shorter, as if halved before
LAST_SHARE = 0.2  # of all steps, in which no round begins at random any more


class Narrowing:
    """Rounds of Auto-PGD, each in a ball inside the nearest success of its row.

    A row remembers the nearest success, at the distance `high`, and a radius `low` that was given up. A round works in
    the ball of their geometric mean. It ends when a success comes at least half of the way (again by the geometric
    mean) from `high` to its radius, or when its steps are used up. It begins at the nearest success, drawn into the
    ball, with the short steps of the later part of a run; where that fails, the same ball is tried from a random start
    with all steps, and then given up. Once `low` is as good as `high` it is put back, for other starts may do better.
    The first round begins at the clean input and has all of the box to itself, or eps where the box has no walls.
    """

    def __init__(self, threat: ThreatModel, steps: int, total: int, seed: int, device: torch.device) -> None:
        self.threat, self.seed, self.random_until = threat, seed, (1 - LAST_SHARE) * total
        self.ascent: Adaptive | Sparse
        if threat.norm == "l1":
            stages = radii(1.0, steps, steps >= FEWEST_STEPS)
            self.ascent = Sparse(threat, stages, None, device, None)
            self.length, self.late = steps + len(stages) - 1, stages[-1].first
        else:
            self.ascent = Adaptive(threat, steps, RHO, None, device)
            ends = [step for step, window in enumerate(checkpoints(steps)) if window and step < steps]
            self.length, self.late = steps, ends[2] if len(ends) > 2 else 0

    def begin(self, clean: Tensor, label: Tensor, restart: int) -> tuple[Tensor, dict[str, Tensor]]:
        start, state = self.ascent.begin(clean, label, restart)
        farthest = torch.maximum(clean - self.threat.low, self.threat.high - clean)
        radius = self.threat.distance(clean + farthest, clean)
        radius = torch.where(radius.isfinite(), radius, self.threat.eps)
        none = torch.zeros_like(radius)
        return start, state | {
            "size": self.ascent.stride * radius,
            "radius": radius,
            "low": none,
            "high": none + torch.inf,
            "nearest": clean.clone(),
            "key": sample_keys(clean, self.seed),
            "clock": none.long(),
            "round": none.long(),
            "known": none.bool(),
        }

    def move(self, play: Play, seen: Seen) -> Tensor:
        state, distance = play.state, self.threat.distance(play.point, play.clean)
        nearer, most = seen.achieved & (distance < state["high"]), (state["radius"] * state["high"]).sqrt()
        state["nearest"] = torch.where(each(nearer, play.point), play.point, state["nearest"])
        state["high"] = torch.where(nearer, distance, state["high"])
        won, spent = nearer & (distance <= most), state["clock"] == self.length
        point = self.ascent.move(replace(play, step=torch.where(spent, 0, state["clock"])), seen)
        state["clock"] = state["clock"] + 1
        over = (won | spent).nonzero()[:, 0]
        if not len(over):
            return point
        ended = {name: value[over] for name, value in state.items()}
        start = self._next_round(play.clean[over], ended, won[over], play.step[over])
        for name, value in ended.items():
            state[name] = state[name].index_put((over,), value.to(state[name].dtype))
        return point.index_put((over,), start)

    def _next_round(self, clean: Tensor, state: dict[str, Tensor], won: Tensor, step: Tensor) -> Tensor:
        """The next start, in a ball that it chooses, of rows whose round is over; `state` is changed to theirs."""
        again = ~won & state["known"] & (step < self.random_until)  # the same ball, from a random start
        state["known"] = ~again & state["high"].isfinite()
        state["round"] = state["round"] + 1
        radius = torch.where(again, state["radius"], self._radius(state, ~won & ~again))
        state["radius"] = torch.minimum(radius, state["high"])
        state["clock"] = torch.where(state["known"], self.late, 0)
        start = self.ascent.scattered(clean, derive(state["key"], state["round"]), 0, state["radius"])
        near = self.threat.project(state["nearest"], clean, state["radius"])
        start = torch.where(each(state["known"], start), near, start)
        size = self.ascent.stride * state["radius"]
        state.update(self.ascent.started(start, clean, torch.where(state["known"], size / SETTLED_STEPS, size)))
        return start

    def _radius(self, state: dict[str, Tensor], given_up: Tensor) -> Tensor:
        """Between what was given up and the nearest success, where there is one; else as before."""
        high, found = state["high"], state["high"].isfinite()
        low = torch.where(given_up, torch.maximum(state["low"], state["radius"]), state["low"])
        low = torch.where(found & (high < low * CLOSED), high / REOPENED, low)
        state["low"] = torch.where(found, low, 0)
        middle = (torch.maximum(state["low"], high / LARGEST_STEP_DOWN) * high).sqrt()
        return torch.where(found, middle, state["radius"])


@final
@dataclass(frozen=True, kw_only=True)
class MinimalAPGD(Attack):
    """The smallest change that Auto-PGD finds in Linf, L2 or L1, each row with balls of its own.

    `rounds` * `steps` passes a row in all, no more than a bisection over eps in `rounds` rounds of `steps` steps takes;
    a round has `steps` at the most, so that rows have as many rounds as that leaves room for. `mode`: "minimal" takes
    all of them and returns the nearest success, "evaluate" stops a row at its first success within eps.

    >>> import torch
    >>> model = torch.nn.Linear(2, 2)
    >>> x, y = torch.rand(4, 2), torch.tensor([0, 1, 0, 1])
    >>> attack = MinimalAPGD(threat=ThreatModel("l2", eps=1.0), steps=5, rounds=2)
    >>> bool(attack.threat.allows(attack(model, x, y), x).all())
    True
    """

    minimal: ClassVar[bool] = True

    steps: int = 100
    rounds: int = 10
    mode: MinimalMode = "minimal"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_counts(steps=self.steps, rounds=self.rounds)

    def _run(self, passes: Passes, x: Tensor, y: Tensor, progress: Progress, verify: bool) -> Found:
        total = self.rounds * self.steps
        rule = Narrowing(self.threat, self.steps, total, self.seed, x.device)
        return closest(passes, rule, self.threat, x, y, steps=total, mode=self.mode, progress=progress)
