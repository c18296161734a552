"""The one gradient loop, for every first-order attack: its cost follows the inputs that are still in play."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from robustgen.attacks.base import AttackResult, Progress
from robustgen.objectives import Model, Objective
from robustgen.threat import ThreatModel

Keep = Literal["success", "best", "last"]
"""`success`: a row stops at its first success. `best`: all steps, the best iterate. `last`: all steps, the last
iterate.
"""

Start = Callable[[Tensor, int], Tensor]
"""(clean rows (m, *shape), restart) -> legal starting points (m, *shape)."""


@dataclass
class _Active:
    """The rows now on the device: `row` = place in the inputs; compacted when rows settle, refilled from the queue."""

    row: Tensor
    clean: Tensor
    label: Tensor
    point: Tensor
    step: Tensor
    restart: Tensor

    def select(self, keep: Tensor) -> _Active:
        return _Active(*(value[keep] for value in vars(self).values()))

    def join(self, other: _Active) -> _Active:
        return _Active(*(torch.cat(pair) for pair in zip(vars(self).values(), vars(other).values(), strict=True)))


@dataclass
class _Record:
    """What is known of each row so far. An achieved point beats any that is not; among equals the higher value wins."""

    x_adv: Tensor
    keep: Keep
    value: Tensor = field(init=False)
    success: Tensor = field(init=False)
    steps: Tensor = field(init=False)
    forward: Tensor = field(init=False)
    backward: Tensor = field(init=False)
    zero_gradient: Tensor = field(init=False)

    def __post_init__(self) -> None:
        n, device = len(self.x_adv), self.x_adv.device
        self.value = torch.full((n,), -torch.inf, device=device, dtype=self.x_adv.dtype)
        self.success = torch.zeros(n, dtype=torch.bool, device=device)
        self.zero_gradient = self.success.clone()
        self.steps = torch.zeros(n, dtype=torch.int64, device=device)
        self.forward, self.backward = self.steps.clone(), self.steps.clone()

    def see(self, active: _Active, point: Tensor, value: Tensor, achieved: Tensor, final: bool) -> None:
        """Take note of `point` with its value and verdict, if it is the one to return."""
        row = active.row
        if self.keep == "last":
            better = torch.full_like(achieved, final)
        else:
            better = torch.where(achieved == self.success[row], value > self.value[row], achieved)
        chosen = row[better]
        self.x_adv[chosen] = point[better]
        self.value[chosen], self.success[chosen] = value[better].to(self.value.dtype), achieved[better]
        self.steps[chosen] = active.step[better]


def ascend(
    model: Model,
    objective: Objective,
    threat: ThreatModel,
    x: Tensor,
    y: Tensor,
    *,
    start: Start,
    steps: int,
    step_size: float,
    restarts: int = 1,
    keep: Keep = "success",
    batch_size: int = 256,
    channels_last: bool = True,
    progress: Progress,
    verify: bool = True,
) -> AttackResult:
    """Maximise `objective` over the legal points around each row of `x` (n, *shape), `steps` steps of `step_size` a
    restart.

    A row that achieves the objective leaves at once (`keep="success"`), one that has used its steps makes room for its
    next restart or for a row not begun yet, so that the model sees full batches to the end. Each row costs one forward
    and backward pass a step and one last forward pass, unless it is not to be verified and the last iterate is kept
    whatever it is. The result for a row does not depend on the rows beside it.
    """
    layout = torch.channels_last if channels_last and x.dim() == 4 else torch.contiguous_format
    record = _Record(x.clone(), keep)
    pending: deque[tuple[int, Tensor]] = deque([(0, torch.arange(len(x), device=x.device))] if len(x) else [])
    active: _Active | None = None
    while active is not None or pending:
        active = _refill(active, pending, x, y, start, batch_size)
        point = active.point.contiguous(memory_format=layout).requires_grad_()
        with torch.enable_grad():
            value, achieved = objective(model, point, active.label)
            gradient = _gradient(value, point)
        point, value = point.detach(), value.detach()
        record.see(active, point, value, achieved, final=False)
        record.forward[active.row] += 1
        record.backward[active.row] += 1
        record.zero_gradient[active.row] |= (active.step == 0) & (gradient == 0).flatten(1).all(1)

        active.point = threat.project(threat.step(point, gradient, step_size), active.clean)
        active.step += 1
        settled = achieved if keep == "success" else torch.zeros_like(achieved)
        finished = (active.step == steps) & ~settled
        if finished.any():
            last = active.select(finished)
            if verify or keep != "last":
                with torch.no_grad():
                    value, achieved = objective(model, last.point.contiguous(memory_format=layout), last.label)
                record.forward[last.row] += 1
            else:
                value, achieved = value[finished], achieved[finished]
            record.see(last, last.point, value, achieved, final=True)
            again = (last.restart + 1 < restarts) & ~(achieved & (keep == "success"))
            for restart in last.restart[again].unique().tolist():
                pending.append((restart + 1, last.row[again & (last.restart == restart)]))
            progress(int((~again).sum()))
        progress(int(settled.sum()))
        playing = ~(settled | finished)
        if not playing.all():
            active = active.select(playing) if playing.any() else None
    return AttackResult(
        record.x_adv, record.success, record.steps, record.forward, record.backward, record.zero_gradient
    )


def _refill(
    active: _Active | None, pending: deque[tuple[int, Tensor]], x: Tensor, y: Tensor, start: Start, batch_size: int
) -> _Active:
    """Fill the free places of the batch with waiting rows, oldest first."""
    while pending and (active is None or len(active.row) < batch_size):
        restart, waiting = pending.popleft()
        free = batch_size - (0 if active is None else len(active.row))
        row = waiting[:free]
        if len(waiting) > free:
            pending.appendleft((restart, waiting[free:]))
        fresh = _Active(
            row, x[row], y[row], start(x[row], restart), torch.zeros_like(row), torch.full_like(row, restart)
        )
        active = fresh if active is None else active.join(fresh)
    assert active is not None  # the caller loops only while a row is active or waiting
    return active


def _gradient(value: Tensor, point: Tensor) -> Tensor:
    """Of each row's value with respect to its point; zero where the model gives none (a detached step, a NaN)."""
    found = torch.autograd.grad(value.sum(), point, allow_unused=True)[0] if value.requires_grad else None
    return torch.zeros_like(point) if found is None else torch.nan_to_num(found, nan=0.0, posinf=0.0, neginf=0.0)
