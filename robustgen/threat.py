"""What an attacker may do: a ball of a norm around each input, inside the box of legal values."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from robustgen.errors import UsageError
from robustgen.randomness import normal, uniform
from robustgen.registry import suggestion

Norm = Literal["linf", "l2", "l1", "l0"]
"""`l0` counts the values that are changed at all."""


def _each(values: Float[Tensor, " n"], like: Tensor) -> Tensor:
    """(n,) -> (n, 1, ..., 1), to be broadcast over `like`."""
    return values.reshape(-1, *[1] * (like.dim() - 1))


@dataclass(frozen=True)
class ThreatModel:
    """Perturbations of size at most `eps` in `norm`, with every value kept in [`low`, `high`]; all in input units.

    `still`: a value such as that of a constant background. Pixels (n, channels, height, width) whose channels all have
    it, of other inputs values that are it, must stay as they are. Attacks that do not project every point (Square,
    those for the smallest change) have what they moved there put back at the end, which may undo their success.

    Raises `UsageError` for an unknown norm, a negative or infinite `eps`, or an `eps` that exceeds the whole box.

    >>> import torch
    >>> threat = ThreatModel("linf", eps=0.25)
    >>> threat.project(torch.tensor([[0.9, -0.2]]), torch.tensor([[0.5, 0.0]]))
    tensor([[0.7500, 0.0000]])
    """

    norm: Norm
    eps: float
    low: float = 0.0
    high: float = 1.0
    still: float | None = None

    def __post_init__(self) -> None:
        if self.norm not in get_args(Norm):
            raise UsageError(suggestion(str(self.norm), get_args(Norm), "norm"))
        if not self.low < self.high:
            raise UsageError(f"the box needs low < high, but low={self.low:g} and high={self.high:g} came")
        if not (math.isfinite(self.eps) and self.eps >= 0):
            raise UsageError(f"eps must be a number from 0 up, but {self.eps:g} came")
        if self.norm == "linf" and self.eps > self.high - self.low:
            raise UsageError(
                f"eps={self.eps:g} is larger than the whole box [{self.low:g}, {self.high:g}]: give eps in input "
                "units, "
                f"for example 8/255 for images in [0, 1]"
            )

    def distance(self, x_adv: Float[Tensor, "n *shape"], x: Float[Tensor, "n *shape"]) -> Float[Tensor, " n"]:
        """The size of each perturbation in this norm."""
        order = {"linf": math.inf, "l2": 2.0, "l1": 1.0, "l0": 0.0}[self.norm]
        size: Tensor = torch.linalg.vector_norm((x_adv - x).flatten(1), order, dim=1)
        return size

    def allows(self, x_adv: Float[Tensor, "n *shape"], x: Float[Tensor, "n *shape"]) -> Tensor:
        """(n,) bool: inside the ball and the box, up to the rounding of one float32 addition per value."""
        inside = ((x_adv >= self.low) & (x_adv <= self.high)).flatten(1).all(1)
        values = x[0].numel() if len(x) else 1
        rounding = 6e-8 * max(1.0, x.abs().max().item() if x.numel() else 1.0)
        slack = rounding * {"linf": 1.0, "l2": math.sqrt(values), "l1": values, "l0": 0.0}[self.norm]
        if self.still is not None:
            inside &= ((x_adv == x) | self.free(x, self.still)).flatten(1).all(1)
        return inside & (self.distance(x_adv.double(), x.double()) <= self.eps * (1 + 1e-6) + slack)

    @staticmethod
    def free(x: Float[Tensor, "n *shape"], still: float) -> Bool[Tensor, "n *shape"]:
        """Which values of clean inputs may change where those that are `still` may not."""
        free: Tensor = x != still
        return free.any(1, keepdim=True).expand_as(x) if x.dim() == 4 else free

    def project(
        self, x_adv: Float[Tensor, "n *shape"], x: Float[Tensor, "n *shape"], radius: Float[Tensor, " n"] | None = None
    ) -> Float[Tensor, "n *shape"]:
        """The legal point nearest to `x_adv` (in Euclidean distance): ball and box together, not one after the
        other. `radius`: each row's own size of the ball instead of `eps` (not in L0).
        """
        if self.still is not None:
            x_adv = torch.where(self.free(x, self.still), x_adv, x)
        if self.norm == "linf":
            eps = self.eps if radius is None else _each(radius, x)
            lowest, highest = (x - eps).clamp(min=self.low), (x + eps).clamp(max=self.high)
            return torch.minimum(torch.maximum(x_adv, lowest), highest)
        delta = x_adv - x
        eps = self.eps if radius is None else radius[:, None]
        if self.norm == "l2":
            moved = _shrink_l2(delta.flatten(1), self.low - x.flatten(1), self.high - x.flatten(1), eps)
            return moved.reshape(x.shape).add_(x).clamp_(self.low, self.high)
        size = delta.abs().flatten(1)
        if self.norm == "l0":
            return torch.where(_largest(size, self.eps).reshape(x.shape), x_adv.clamp(self.low, self.high), x)
        room = torch.where(delta > 0, self.high - x, x - self.low).clamp(min=0).flatten(1)
        return (x + delta.sign() * _shrink_l1(size, room, eps).reshape(x.shape)).clamp(self.low, self.high)

    def step(
        self, x_adv: Float[Tensor, "n *shape"], gradient: Float[Tensor, "n *shape"], size: float | Float[Tensor, " n"]
    ) -> Float[Tensor, "n *shape"]:
        """Move by `size` in this norm, one for all or each row's own (not in L0), in the direction that gains most to
        first order.

        Linf: the gradient's sign. L2: the gradient, normalised. L1: the coordinates of largest gradient, each
        moved as far as the box lets it until `size` is used up (the exact first-order optimum inside the box; a step
        that ignores the box is wasted on coordinates already at its wall: Croce and Hein 2021, "Mind the box"). L0:
        the `size` coordinates that gain most, each moved to its wall.
        """
        if self.norm == "linf":
            return x_adv + gradient.sign() * (_each(size, x_adv) if isinstance(size, Tensor) else size)
        if self.norm == "l2":
            # scaled before squaring, so that very small gradients keep their direction instead of underflowing to 0
            largest = gradient.flatten(1).abs().amax(1)
            direction = gradient / _each(torch.where(largest > 0, largest, 1), gradient)
            length = torch.linalg.vector_norm(direction.flatten(1), dim=1)
            return x_adv + direction * _each(size / length.clamp(min=1), gradient)
        slope = gradient.flatten(1).abs()
        room = torch.where(gradient > 0, self.high - x_adv, x_adv - self.low).clamp(min=0).flatten(1)
        order = torch.where(slope > 0, slope, -1).argsort(1, descending=True)
        if self.norm == "l0":
            chosen = _largest(slope * room, float(size)).reshape(x_adv.shape)
            return torch.where(chosen, torch.where(gradient > 0, self.high, self.low).to(x_adv.dtype), x_adv)
        size = size[:, None] if isinstance(size, Tensor) else size
        available = torch.where(slope > 0, room, 0).gather(1, order)
        used_before = (
            available.cumsum(1).roll(1, 1).index_fill(1, torch.zeros(1, dtype=torch.int64, device=x_adv.device), 0)
        )
        taken = torch.minimum((size - used_before).clamp(min=0), available)
        move = torch.zeros_like(taken).scatter(1, order, taken).reshape(x_adv.shape)
        return x_adv + gradient.sign() * move

    def sample(
        self, x: Float[Tensor, "n *shape"], keys: Int64[Tensor, " n"], stream: int = 0
    ) -> Float[Tensor, "n *shape"]:
        """A random legal point: uniform in the ball, then projected. `keys` come from `randomness.sample_keys`."""
        shape = tuple(x.shape[1:])
        if self.norm == "linf":
            noise = (2 * uniform(keys, shape, 2 * stream) - 1) * self.eps
        elif self.norm == "l2":
            direction = normal(keys, shape, 2 * stream)
            radius = self.eps * uniform(keys, (1,), 2 * stream + 1)[:, 0] ** (1 / max(1, math.prod(shape)))
            noise = direction * _each(radius / torch.linalg.vector_norm(direction.flatten(1), dim=1), x)
        elif self.norm == "l0":
            values = self.low + (self.high - self.low) * uniform(keys, shape, 2 * stream)
            chosen = _largest(uniform(keys, shape, 2 * stream + 1).flatten(1) + 1, self.eps).reshape(x.shape)
            noise = torch.where(chosen, values.to(x.dtype) - x, 0)
        else:
            exponential = -torch.log1p(-uniform(keys, (math.prod(shape) + 1,), 2 * stream))
            size = exponential[:, :-1] / exponential.sum(1, keepdim=True)
            sign = torch.where(uniform(keys, shape, 2 * stream + 1) < 0.5, -1.0, 1.0)
            noise = sign * size.reshape(x.shape) * self.eps
        return self.project(x + noise.to(x.dtype), x)


def _largest(size: Float[Tensor, "n d"], count: float) -> Tensor:
    """(n, d) bool: the `count` largest of each row (rounded down) that are above 0, equals by their place."""
    rank = size.argsort(dim=1, descending=True, stable=True).argsort(1)
    chosen: Tensor = (rank < math.floor(count)) & (size > 0)
    return chosen


def _shrink_l2(
    delta: Float[Tensor, "n d"], lowest: Float[Tensor, "n d"], highest: Float[Tensor, "n d"], eps: float | Tensor
) -> Float[Tensor, "n d"]:
    """clamp(s * delta, lowest, highest) with the largest s <= 1 whose length is at most eps: the projection's
    optimality condition.

    s**2 solves a piecewise linear equation, concave in it. Newton's steps, each of which holds the set of clipped
    values fixed, climb to the root from below, so that stopping after a few is legal too; mostly three reach it.
    """
    squares = delta.square()
    scale = (eps**2 / squares.sum(1, keepdim=True).clamp(min=1e-30)).clamp(max=1)
    free, least = torch.empty_like(squares), 8 * torch.finfo(delta.dtype).eps
    for _ in range(6):
        scaled = delta * scale.sqrt()
        moved = torch.clamp(scaled, lowest, highest)
        torch.eq(moved, scaled, out=free)
        slope = free.mul_(squares).sum(1, keepdim=True).clamp(min=1e-30)
        gain = (eps**2 - moved.square_().sum(1, keepdim=True)) / slope
        climbs = (gain > least * scale) & (scale < 1)  # not by rounding, so that a row settles whatever others do
        if not climbs.any():
            break
        scale = torch.where(climbs, scale + gain, scale).clamp(max=1)
    return torch.clamp(delta * scale.sqrt(), lowest, highest)


def _shrink_l1(size: Float[Tensor, "n d"], room: Float[Tensor, "n d"], eps: float | Tensor) -> Float[Tensor, "n d"]:
    """min(max(size - t, 0), room) with the smallest t >= 0 whose sum is at most eps.

    The sum falls piecewise linearly in t. Newton's steps inside a shrinking bracket find the piece of the root, and
    then the root itself; a few passes over the values, where sorting the breakpoints would take five times as long.
    """
    kept = torch.minimum(size, room)
    total = kept.sum(1, keepdim=True)
    low, high = torch.zeros_like(total), size.amax(1, keepdim=True)
    threshold, near = low, 32 * torch.finfo(size.dtype).eps * eps
    settled = total <= eps
    for _ in range(64):
        if settled.all():
            break
        over = total - eps
        low, high = torch.where(over > 0, threshold, low), torch.where(over > 0, high, threshold)
        left = size - threshold
        newton = threshold + over / ((left > 0) & (left < room)).sum(1, keepdim=True)
        inside = (newton > low) & (newton < high)  # neither without a slope (infinite, NaN) nor beyond a bend
        threshold = torch.where(settled, threshold, torch.where(inside, newton, (low + high) / 2))
        kept = torch.minimum((size - threshold).clamp_(min=0), room)
        total = kept.sum(1, keepdim=True)
        settled = settled | ((total - eps).abs() <= near)
    return kept * (eps / total.clamp(min=1e-30)).clamp(max=1)  # what rounding left over
