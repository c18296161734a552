"""Noise that belongs to a sample, not to its place in a batch.

Random starts are drawn from a key made of the sample's own values and a seed, through a counter-based generator
(SplitMix64: Steele, Lea, Flood 2014). The same sample gets the same noise whatever the batch size, the order, the
device or the number of processes, and the global random state is neither read nor changed.
"""

from __future__ import annotations

from math import prod

import torch
from jaxtyping import Float, Int64
from torch import Tensor

_GOLDEN = -0x61C8864680B583EB  # 2^64 / golden ratio, as a signed 64-bit number: the generator's increment
_MIX_1 = -0x40A7B892E31B1A47
_MIX_2 = -0x6B2FB644ECCEEE15


def _shift(z: Tensor, bits: int) -> Tensor:
    """Logical right shift: torch's own is arithmetic on signed integers."""
    return (z >> bits) & ((1 << (64 - bits)) - 1)


def _mix(z: Tensor) -> Tensor:
    z = (z ^ _shift(z, 30)) * _MIX_1
    z = (z ^ _shift(z, 27)) * _MIX_2
    return z ^ _shift(z, 31)


def sample_keys(x: Float[Tensor, "n *shape"], seed: int) -> Int64[Tensor, " n"]:
    """One 64-bit key per sample: a multilinear hash of its float32 values, mixed with `seed`."""
    bits = (x.detach().float() + 0.0).contiguous().flatten(1).view(torch.int32).to(torch.int64)
    weights = _mix(torch.arange(1, bits.shape[1] + 1, device=x.device) * _GOLDEN) | 1
    return _mix((bits * weights).sum(1) + _mix(torch.tensor(seed, device=x.device) + _GOLDEN))


def derive(keys: Int64[Tensor, " n"], number: Int64[Tensor, " n"]) -> Int64[Tensor, " n"]:
    """Another key for each key and its own `number` (n,), such as the step at which a row stands."""
    return _mix(keys ^ _mix(number * _GOLDEN + _GOLDEN))


def _uniform_24(keys: Int64[Tensor, " n"], shape: tuple[int, ...], stream: int) -> Int64[Tensor, "n *shape"]:
    counters = torch.arange(1, prod(shape) + 1, device=keys.device) * _GOLDEN
    bits = _mix(_mix(keys + stream * 2 + 1)[:, None] + counters)
    return _shift(bits, 40).reshape(len(keys), *shape)


def uniform(keys: Int64[Tensor, " n"], shape: tuple[int, ...], stream: int = 0) -> Float[Tensor, "n *shape"]:
    """Uniform float32 in [0, 1), `shape` values for each key; another `stream` gives independent values."""
    return _uniform_24(keys, shape, stream).float() * 2.0**-24


def normal(keys: Int64[Tensor, " n"], shape: tuple[int, ...], stream: int = 0) -> Float[Tensor, "n *shape"]:
    """Standard normal float32, by inversion: one bit is the sign, 23 bits give the half-normal's tail."""
    bits = _uniform_24(keys, shape, stream)
    tail = ((bits >> 1) + 1).float() * 2.0**-24  # in (0, 1/2], where the inverse keeps its precision
    noise: Tensor = torch.special.ndtri(tail) * (1 - 2 * (bits & 1))
    return noise
