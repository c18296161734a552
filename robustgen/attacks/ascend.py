"""The one loop for every iterative attack: its cost follows the inputs that are still in play."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, Protocol

import torch
from torch import Tensor

from robustgen.attacks.base import Found, Progress
from robustgen.attacks.passes import Passes, Seen
from robustgen.threat import ThreatModel

Keep = Literal["success", "best", "last", "closest", "within"]
"""`success`: a row stops at its first success. `best`: all steps, the point of highest value. `last`: all steps, the
last point. `closest`: all steps, the success nearest to the clean input. `within`: likewise, but a row stops at its
first success within eps.
"""

Look = Callable[[Tensor, Tensor, Tensor], Seen]
"""(row, point, label) -> what is seen there; `Passes.ascent` unless an attack needs something else."""


@dataclass
class Play:
    """The m rows now on the device: compacted when rows settle, refilled from the queue."""

    row: Tensor
    """Places among the inputs."""
    clean: Tensor
    label: Tensor
    point: Tensor
    step: Tensor
    """Steps taken in this restart (m,); `restart` (m,) likewise counts from 0."""
    restart: Tensor
    state: dict[str, Tensor]
    """What the rule remembers, each (m, ...)."""

    def select(self, keep: Tensor) -> Play:
        """The rows where the mask `keep` holds."""
        state = {name: value[keep] for name, value in self.state.items()}
        return Play(**{name: value[keep] for name, value in self._rows().items()}, state=state)

    def join(self, other: Play) -> Play:
        """These rows and then those."""
        state = {name: torch.cat([value, other.state[name]]) for name, value in self.state.items()}
        rows = other._rows()
        return Play(**{name: torch.cat([value, rows[name]]) for name, value in self._rows().items()}, state=state)

    def _rows(self) -> dict[str, Tensor]:
        return {name: value for name, value in vars(self).items() if name != "state"}


class Rule(Protocol):
    """What tells one iterative attack from another. Nothing in it may depend on the other rows of the batch."""

    def begin(self, clean: Tensor, label: Tensor, restart: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Starting points (m, *shape) inside the box, and the state (each value (m, ...)) of rows that begin."""
        ...

    def move(self, play: Play, seen: Seen) -> Tensor:
        """The next points (m, *shape), from what was `seen` at `play.point`; `play.state` is replaced or changed."""
        ...


@dataclass
class _Record:
    """What is known of each row. An achieved point beats any that is not; among equals the higher rank wins."""

    found: Found
    keep: Keep
    threat: ThreatModel
    rank: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.rank = torch.full_like(self.found.x_adv.flatten(1)[:, :1].sum(1), -torch.inf)

    def see(self, play: Play, seen: Seen, total: Tensor, final: bool) -> Tensor:
        """Take note of the points just seen, where they are the ones to return; `total`: steps in all restarts.

        Returns which rows are settled.
        """
        row, achieved, rank = play.row, seen.achieved, seen.value.to(self.rank.dtype)
        counts, settled = achieved, torch.zeros_like(achieved)
        if self.keep in ("closest", "within"):
            distance = self.threat.distance(play.point, play.clean)
            rank = torch.where(achieved, -distance, rank)
            counts, settled = achieved & (distance <= self.threat.eps), achieved & (distance == 0)
        if self.keep == "last":
            better = torch.full_like(achieved, final)
        else:
            success = self.found.success[row]
            better = torch.where(achieved == success, rank > self.rank[row], achieved)
        found = self.found
        first = counts & (found.first_success[row] < 0)
        if first.any():
            found.first_success[row[first]] = total[first]
        if better.all():
            better = slice(None)  # type: ignore[assignment]  # the common case, without a copy
        chosen = row[better]
        found.x_adv[chosen] = play.point[better]
        found.success[chosen], self.rank[chosen] = achieved[better], rank[better]
        found.steps[chosen], found.restart[chosen] = play.step[better], play.restart[better]
        return counts if self.keep in ("success", "within") else settled


def ascend(
    passes: Passes,
    rule: Rule,
    threat: ThreatModel,
    x: Tensor,
    y: Tensor,
    *,
    steps: int,
    restarts: int = 1,
    keep: Keep = "success",
    look: Look | None = None,
    progress: Progress,
    verify: bool = True,
    starts: Tensor | None = None,
) -> Found:
    """Maximise the objective of `passes` from each row of `x` (n, *shape), `steps` steps a restart by `rule`.

    `y`: labels (n,), or (n, restarts, ...) where each restart has its own. A row that is settled leaves at once, one
    that has used its steps makes room for its next restart or for a row not begun yet, so that the model sees full
    batches to the end. Each row costs one look a step and one last judgement, unless it is not to be verified and the
    last point is kept whatever it is. The result for a row does not depend on the rows beside it. `starts` (n, *shape):
    legal points at which the first restart begins instead of where the rule has it.
    """
    look = look or passes.ascent
    record = _Record(Found.nothing(x), keep, threat)
    pending: deque[tuple[int, Tensor]] = deque([(0, torch.arange(len(x), device=x.device))] if len(x) else [])
    play: Play | None = None
    while play is not None or pending:
        play = _refill(play, pending, x, y, rule, passes.rows_at_once, starts)
        seen = look(play.row, play.point, play.label)
        settled = record.see(play, seen, play.step + steps * play.restart, final=False)
        playing = ~settled
        if not playing.all():
            progress(int(settled.sum()))
            if not playing.any():
                play = None
                continue
            play, seen = play.select(playing), Seen(*(value[playing] for value in seen))
        play.point = rule.move(play, seen)
        play.step = play.step + 1
        finished = play.step == steps
        if finished.any():
            last = play.select(finished)
            ended = Seen(*(value[finished] for value in seen))
            if verify or keep != "last":
                ended = passes.judge(last.row, last.point, last.label)
            settled = record.see(last, ended, last.step + steps * last.restart, final=True)
            again = (last.restart + 1 < restarts) & ~settled
            for restart in last.restart[again].unique().tolist():
                pending.append((restart + 1, last.row[again & (last.restart == restart)]))
            progress(int((~again).sum()))
            play = None if finished.all() else play.select(~finished)
    return record.found


def _refill(
    play: Play | None,
    pending: deque[tuple[int, Tensor]],
    x: Tensor,
    y: Tensor,
    rule: Rule,
    rows_at_once: int,
    starts: Tensor | None,
) -> Play:
    """Fill the free places of the batch with waiting rows, oldest first."""
    while pending and (play is None or len(play.row) < rows_at_once):
        restart, waiting = pending.popleft()
        free = rows_at_once - (0 if play is None else len(play.row))
        row = waiting[:free]
        if len(waiting) > free:
            pending.appendleft((restart, waiting[free:]))
        clean, label = x[row], y[row] if y.dim() == 1 else y[row, restart]
        point, state = rule.begin(clean, label, restart)
        if starts is not None and restart == 0:
            point = starts[row]
        fresh = Play(row, clean, label, point, torch.zeros_like(row), torch.full_like(row, restart), state)
        play = fresh if play is None else play.join(fresh)
    assert play is not None  # the caller loops only while a row is in play or waiting
    return play
