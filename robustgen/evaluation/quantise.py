"""Adversarial inputs as they survive an image file: every value one of the 256 levels of the box."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from robustgen.errors import UsageError
from robustgen.threat import ThreatModel

LEVELS = 256


def check_box(threat: ThreatModel) -> None:
    """Raise `UsageError` where there is no box to divide into levels."""
    if not math.isfinite(threat.high - threat.low):
        raise UsageError("--quantise uint8 divides the legal range into 256 levels, but a table has no such range")


def quantise(
    threat: ThreatModel, x_adv: Float[Tensor, "n *shape"], x: Float[Tensor, "n *shape"], outward: bool = False
) -> Float[Tensor, "n *shape"]:
    """`x_adv`, each value at the nearest of the 256 levels between `low` and `high`, still inside the ball around `x`;
    with `outward`, at the next level away from `x`.

    Where that level would leave the ball, the next level towards `x` is taken: for linf value by value, for the
    other norms for as many values as it takes, those that gain most first. What was not changed stays as it is. With
    `x` itself on the levels (an image from a file) that is always legal; of other inputs a value for which the ball
    holds no level becomes that of `x`.
    """
    span = (threat.high - threat.low) / (LEVELS - 1)
    place = (x_adv.double() - threat.low) / span
    slack = 1.6e-5  # of a level: the rounding of a float32 near 1
    up, down = (place - slack).ceil(), (place + slack).floor()
    nearest = _level(threat, torch.where(x_adv > x, up, down) if outward else place.round(), x)
    inner = _level(threat, torch.where(x_adv > x, down, up), x)
    size, size_nearest, size_inner = ((value.double() - x).abs() for value in (x_adv, nearest, inner))
    inner = torch.where(size_inner <= size + 2 * slack * span, inner, x)
    nearest, inner = (torch.where(x_adv == x, x, value) for value in (nearest, inner))
    if threat.norm in ("linf", "l0"):
        reach = threat.eps * (1 + 1e-6) + 6e-8 if threat.norm == "linf" else math.inf
        return torch.where(size_nearest <= reach, nearest, inner)
    power = 2.0 if threat.norm == "l2" else 1.0
    cost, saved = ((value - x).double().abs().pow(power).flatten(1) for value in (nearest, inner))
    gain, order = (cost - saved).sort(1, descending=True)
    # the sum that is left when the values of largest gain, up to each place, are rounded inwards
    left = cost.sum(1, keepdim=True) - torch.cat([torch.zeros_like(gain[:, :1]), gain.cumsum(1)[:, :-1]], 1)
    inwards = torch.zeros_like(order, dtype=torch.bool).scatter(1, order, left > threat.eps**power)
    return torch.where(inwards.reshape(x.shape), inner, nearest)


def settled(
    threat: ThreatModel,
    x_adv: Float[Tensor, "n *shape"],
    x: Float[Tensor, "n *shape"],
    works: Callable[[Int64[Tensor, " k"], Float[Tensor, "k *shape"]], Bool[Tensor, " k"]],
    fooled: Bool[Tensor, " n"] | None = None,
) -> tuple[Float[Tensor, "n *shape"], Bool[Tensor, " n"]]:
    """`x_adv` on levels, and where (n,) that undid a success: to the nearest levels or, where those undo it, to the
    levels away from `x`, as an attacker would who has to hand in an image file.

    `works`: (numbers of rows (k,), points) -> which of these points are successes. `fooled`: which of `x_adv` are, if
    that is known.
    """
    every = torch.arange(len(x), device=x.device)
    fooled = works(every, x_adv) if fooled is None else fooled
    rounded = quantise(threat, x_adv, x)
    undone = fooled & ~works(every, rounded)
    row = undone.nonzero()[:, 0]
    if len(row):  # not every model takes an empty batch
        rounded[row] = quantise(threat, x_adv[row], x[row], outward=True)
        undone[row] = ~works(row, rounded[row])
    return rounded, undone


def _level(threat: ThreatModel, number: Tensor, like: Tensor) -> Tensor:
    """The value of a level, computed as image readers do: number / 255, so that clean pixels are met exactly."""
    share = number.clamp(0, LEVELS - 1) / (LEVELS - 1)
    return (threat.low + share * (threat.high - threat.low)).to(like.dtype)
