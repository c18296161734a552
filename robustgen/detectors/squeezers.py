"""Ways to squeeze what an attacker could use out of an image: fewer grey levels, medians, non-local means.

Each takes inputs (n, *shape) and treats rows apart; the images' values lie in [low, high].
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import avg_pool2d, unfold

from robustgen.errors import UsageError

Squeezer = Callable[[Tensor], Tensor]
KINDS = "bits:DEPTH, median:WIDTH or means:WINDOW:PATCH:STRENGTH"


def squeezer(words: str, low: float | Tensor, high: float | Tensor) -> Squeezer:
    """`bits:DEPTH` (see `reduce_depth`), `median:WIDTH` (`smooth_median`) or `means:WINDOW:PATCH:STRENGTH`
    (`smooth_means`, its strength in 255ths of the range). Raises `UsageError` for anything else.
    """
    kind, *numbers = words.split(":")
    known = {"bits": 1, "median": 1, "means": 3}
    if kind not in known or len(numbers) != known[kind] or not all(number.isdecimal() for number in numbers):
        raise UsageError(f"a squeezer is {KINDS}, in whole numbers, but {words!r} came")
    first, *rest = (int(number) for number in numbers)
    if kind == "bits":
        if not 1 <= first <= 16:
            raise UsageError(f"a depth is 1 to 16 bits, but {words!r} came")
        return lambda x: reduce_depth(x, first, low, high)
    if kind == "median":
        if first < 2:
            raise UsageError(f"a median is that of a square of at least 2 x 2, but {words!r} came")
        return lambda x: smooth_median(x, first)
    patch, strength = rest
    if first < 3 or first % 2 == 0 or patch % 2 == 0 or strength < 1:
        raise UsageError(f"window (from 3 up) and patch are odd, and the strength is at least 1, but {words!r} came")
    return lambda x: smooth_means(x, first, patch, strength * (high - low) / 255)


def reduce_depth(
    x: Float[Tensor, "n *shape"], bits: int, low: float | Tensor, high: float | Tensor
) -> Float[Tensor, "n *shape"]:
    """Each value at the nearest of 2^bits levels from low to high. Rounding has no gradient: here it has that of the
    identity (Athalye, Carlini, Wagner 2018, section 4.1, BPDA).
    """
    steps = float(2**bits - 1) / (high - low)
    return x + (((x - low) * steps).round() / steps + low - x).detach()


def smooth_median(x: Float[Tensor, "n c h w"], width: int) -> Float[Tensor, "n c h w"]:
    """The median of the width x width values around each, the upper one of the two middle values where the square has
    an even number; images go on beyond their borders as in a mirror (as in SciPy's `median_filter`).
    """
    n, channels, height, columns = x.shape
    before, after = width // 2, (width - 1) // 2
    padded = _mirrored(_mirrored(x, before, after, 2), before, after, 3)
    windows = unfold(padded.reshape(n * channels, 1, *padded.shape[2:]), width)
    return windows.sort(1).values[:, width * width // 2].reshape(n, channels, height, columns)


def smooth_means(
    x: Float[Tensor, "n c h w"], window: int, patch: int, strength: float | Tensor
) -> Float[Tensor, "n c h w"]:
    """Non-local means (Buades, Coll, Morel 2005): each value is the mean of those at most window // 2 away, weighted
    with exp(-d^2 / strength^2), d^2 being the mean squared difference of the patch x patch values around the two.
    """
    far, reach = window // 2, patch // 2
    height, width = x.shape[2:]
    border = far + reach
    padded = _mirrored(_mirrored(x, border, border, 2), border, border, 3)
    inner = padded[:, :, far : far + height + 2 * reach, far : far + width + 2 * reach]
    total, weights = torch.zeros_like(x), torch.zeros_like(x[:, :1])
    for down in range(window):
        for right in range(window):
            other = padded[:, :, down : down + height + 2 * reach, right : right + width + 2 * reach]
            apart = avg_pool2d((inner - other).square().mean(1, keepdim=True), patch, 1)
            weight = (-apart / strength**2).exp()
            total = total + weight * other[:, :, reach : reach + height, reach : reach + width]
            weights = weights + weight
    return total / weights


def _mirrored(x: Tensor, before: int, after: int, axis: int) -> Tensor:
    """With so many values more at either end: c b a | a b c d | d c."""
    size = x.shape[axis]
    place = torch.arange(-before, size + after, device=x.device) % (2 * size)
    return x.index_select(axis, torch.where(place < size, place, 2 * size - 1 - place))
