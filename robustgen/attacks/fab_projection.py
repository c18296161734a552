"""The nearest point of a hyperplane inside a box, exactly, in Linf, L2 and L1.

With the signs turned so that the hyperplane lies ahead, every coordinate moves towards it by min(t * v_i, room_i):
v_i = 1 (Linf) or |w_i| (L2), which is the optimality condition of each norm. What is gained, sum |w_i| min(t v_i,
room_i), rises with t in straight pieces whose slope only falls, so that Newton's method climbs to the root from below
without passing it and ends after finitely many steps. In L1 coordinates of larger |w_i| go first, each to its wall.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from robustgen.threat import Norm

_ENDLESS = 1e38


def to_hyperplane(
    x: Float[Tensor, "k n d"],
    w: Float[Tensor, "n d"],
    gap: Float[Tensor, "k n"],
    norm: Norm,
    low: float,
    high: float,
) -> Float[Tensor, "k n d"]:
    """The shortest change d with w.(x + d) = w.x + gap and x + d in [low, high], for k points of each row.

    Where the box does not reach the hyperplane: the change that comes nearest to it. Zero where `w` is.
    """
    largest = w.abs().amax(1, keepdim=True)
    largest = torch.where(largest > 0, largest, 1)
    w, gap = w / largest, torch.nan_to_num(gap / largest[:, 0]).clamp(-_ENDLESS, _ENDLESS)
    ahead = torch.where(gap < 0, -1.0, 1.0).to(x.dtype)[..., None] * w.sign()
    middle, half = (low + high) / 2, (high - low) / 2
    room = (half - ahead * (x - middle)).clamp(min=0) * ahead.abs()
    size = _fill(w.abs(), room, gap.abs()) if norm == "l1" else _climb(w.abs(), room, gap.abs(), norm)
    return ahead * size


def _climb(weight: Tensor, room: Tensor, gap: Tensor, norm: Norm) -> Tensor:
    speed = torch.ones_like(weight) if norm == "linf" else weight
    gain, end = weight * room, room / speed.clamp(min=1 / _ENDLESS)
    slope = weight * speed
    t = torch.zeros_like(gap)
    while True:
        free = (t[..., None] < end).to(room.dtype)
        pace = (slope * free).sum(2)
        ahead = (gap - (gain * (1 - free)).sum(2)) / pace.clamp(min=1 / _ENDLESS)
        further = torch.maximum(t, ahead.clamp(max=_ENDLESS))
        if not bool((further > t).any()):
            return torch.minimum(t[..., None] * speed, room)
        t = further


def _fill(weight: Tensor, room: Tensor, gap: Tensor) -> Tensor:
    ordered, order = weight.sort(1, descending=True)
    order = order.expand_as(room)
    room = room.gather(2, order)
    before = (ordered * room).cumsum(2).roll(1, 2)
    before[..., 0] = 0
    size = torch.minimum((gap[..., None] - before).clamp(min=0) / ordered.clamp(min=1 / _ENDLESS), room)
    return torch.zeros_like(room).scatter(2, order, size)
