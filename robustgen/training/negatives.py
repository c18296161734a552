"""Inputs that are nearly normal and meant to be called fake: what a discriminator is shown beside a generator's.

A discriminator that has seen only its generator's inputs knows nothing of what the generator never makes; corrupted
normal inputs fill the space between (Sinha et al. 2021, "Negative data augmentation"; for anomalies: Golan, El-Yaniv
2018; Li et al. 2021, "CutPaste"). A change of form keeps all that local statistics know and makes of one kind of object
nearly another: only what knows the form can call it fake.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, avg_pool2d, grid_sample, interpolate, max_pool2d, pad

from robustgen.errors import UsageError
from robustgen.models.gan import convolved

Corrupt = Callable[[Tensor, torch.Generator], Tensor]
"""(inputs (n, *shape), generator) -> as many spoilt inputs of the same shape."""


def _uniform(low: int, high: int, n: int, generator: torch.Generator) -> Tensor:
    return torch.randint(low, high, (n,), generator=generator)


def rotate(x: Tensor, generator: torch.Generator) -> Tensor:
    """A turn by 90, 180 or 270 degrees; by 180 where height and width differ."""
    half = x.flip(2, 3)
    if x.shape[2] != x.shape[3]:
        return half
    turned = torch.stack([x.transpose(2, 3).flip(2), half, x.transpose(2, 3).flip(3)])
    which = _uniform(0, 3, len(x), generator).to(x.device)
    return turned[which, torch.arange(len(x), device=x.device)]


def flip(x: Tensor, generator: torch.Generator) -> Tensor:
    """Upside down."""
    return x.flip(2)


def shift(x: Tensor, generator: torch.Generator) -> Tensor:
    """Moved, what leaves on one side coming in on the other, by an eighth to a half of a side."""
    height, width = x.shape[2:]
    down, right = (
        _uniform(max(1, side // 8), max(2, side // 2 + 1), len(x), generator)
        * (2 * _uniform(0, 2, len(x), generator) - 1)
        for side in (height, width)
    )
    kind = _uniform(0, 3, len(x), generator)  # down, right, both
    down, right = torch.where(kind == 1, 0, down), torch.where(kind == 0, 0, right)
    rows = (torch.arange(height)[None] - down[:, None]) % height
    columns = (torch.arange(width)[None] - right[:, None]) % width
    places = (rows[:, :, None] * width + columns[:, None, :]).flatten(1).to(x.device)
    return x.flatten(2).gather(2, places[:, None].expand(-1, x.shape[1], -1)).reshape(x.shape)


def shuffle(x: Tensor, generator: torch.Generator) -> Tensor:
    """The 2 x 2 quarters of an image in another order; a row or column that does not divide stays."""
    height, width = x.shape[2] // 2, x.shape[3] // 2
    order = torch.rand(len(x), 4, generator=generator).argsort(1)
    same = (order == torch.arange(4)).all(1)
    order[same] = torch.tensor([3, 2, 1, 0])
    inner = x[:, :, : 2 * height, : 2 * width].unflatten(2, (2, height)).unflatten(4, (2, width))
    patches = inner.permute(0, 2, 4, 1, 3, 5).flatten(1, 2)
    moved = patches[torch.arange(len(x))[:, None], order.to(x.device)]
    result = x.clone()
    back = moved.unflatten(1, (2, 2)).permute(0, 3, 1, 4, 2, 5)
    result[:, :, : 2 * height, : 2 * width] = back.flatten(4, 5).flatten(2, 3)
    return result


def paste(x: Tensor, generator: torch.Generator) -> Tensor:
    """A rectangle, a fifth to a half of each side, of another image of the batch (Li et al. 2021)."""
    n, _, height, width = x.shape
    tall, wide = (_uniform(max(1, side // 5), side // 2 + 1, n, generator) for side in (height, width))
    top, up = ((torch.rand(n, generator=generator) * (height - tall + 1)).long() for _ in range(2))
    left, along = ((torch.rand(n, generator=generator) * (width - wide + 1)).long() for _ in range(2))
    rows, columns = torch.arange(height)[None], torch.arange(width)[None]
    inside = ((rows >= top[:, None]) & (rows < (top + tall)[:, None]))[:, :, None] & (
        (columns >= left[:, None]) & (columns < (left + wide)[:, None])
    )[:, None]
    source = ((rows - top[:, None] + up[:, None]).clamp(0, height - 1) * width)[:, :, None] + (
        columns - left[:, None] + along[:, None]
    ).clamp(0, width - 1)[:, None]
    other = x.roll(1, 0).flatten(2)
    moved = other.gather(2, source.flatten(1).to(x.device)[:, None].expand(-1, x.shape[1], -1)).reshape(x.shape)
    return torch.where(inside[:, None].to(x.device), moved, x)


def noise(x: Tensor, generator: torch.Generator) -> Tensor:
    """Gaussian noise with a standard deviation from 0.05 to 0.3, each input its own, kept within the batch's range."""
    size = 0.05 + 0.25 * torch.rand(len(x), *[1] * (x.ndim - 1), generator=generator)
    spoilt = x + (size * torch.randn(x.shape, generator=generator)).to(x)
    return spoilt.clamp(x.amin(), x.amax())


def blur(x: Tensor, generator: torch.Generator) -> Tensor:
    """Averages over 3 x 3 or 5 x 5 places, each input its own."""
    small, large = (avg_pool2d(pad(x, [side // 2] * 4, mode="replicate"), side, 1) for side in (3, 5))
    wide = (torch.rand(len(x), generator=generator) < 0.5).to(x.device)
    return torch.where(wide.reshape(-1, 1, 1, 1), large, small)


def stretch(x: Tensor, generator: torch.Generator) -> Tensor:
    """One side, the height or the width, shrunk to a half up to four fifths or grown to five quarters up to twofold."""
    n = len(x)
    short = torch.rand(n, generator=generator) < 0.5
    share = torch.rand(n, generator=generator)
    factor = torch.where(short, 1.25 + 0.75 * share, 0.5 + 0.3 * share)
    tall = torch.rand(n, generator=generator) < 0.5
    matrix = torch.zeros(n, 2, 3)
    matrix[:, 0, 0], matrix[:, 1, 1] = torch.where(tall, 1.0, factor), torch.where(tall, factor, 1.0)
    return _seen_at(x, affine_grid(matrix, list(x.shape), align_corners=False))


def warp(x: Tensor, generator: torch.Generator) -> Tensor:
    """Bent: places moved by a smooth random field, whose standard deviation at 5 x 5 knots is 0.15 to 0.35 of half a
    side (elastic distortion, Simard, Steinkraus, Platt 2003).
    """
    n = len(x)
    size = 0.15 + 0.2 * torch.rand(n, 1, 1, 1, generator=generator)
    knots = size * torch.randn(n, 2, 5, 5, generator=generator)
    field = interpolate(knots, size=x.shape[2:], mode="bicubic", align_corners=True)
    still = affine_grid(torch.eye(2, 3).expand(n, 2, 3), list(x.shape), align_corners=False)
    return _seen_at(x, still + field.permute(0, 2, 3, 1))


def thicken(x: Tensor, generator: torch.Generator) -> Tensor:
    """Thicker or thinner: each place gets the largest or the smallest value within a fourteenth of the shorter side
    (dilation and erosion, Serra 1982; Castro et al. 2019 change digits so).
    """
    reach = max(1, min(x.shape[2:]) // 14)
    sign = (2.0 * _uniform(0, 2, len(x), generator) - 1).to(x).reshape(-1, 1, 1, 1)
    return sign * max_pool2d(sign * x, 2 * reach + 1, 1, reach)


def _seen_at(x: Tensor, places: Tensor) -> Tensor:
    """The images at `places` (n, h, w, 2), sides from -1 to 1; beyond them, what their corners have in common."""
    corners = torch.stack([x[:, :, down, right] for down in (0, -1) for right in (0, -1)])
    ground = corners.median(0).values[:, :, None, None]
    return grid_sample(x - ground, places.to(x), align_corners=False) + ground


def permute(x: Tensor, generator: torch.Generator) -> Tensor:
    """Of a table's rows: each value with a chance of a half from another row of the batch (Breiman 2001)."""
    flat = x.flatten(1)
    orders = torch.rand(flat.shape, generator=generator).argsort(0).to(x.device)
    taken = (torch.rand(flat.shape, generator=generator) < 0.5).to(x.device)
    return torch.where(taken, flat.gather(0, orders), flat).reshape(x.shape)


def jitter(x: Tensor, generator: torch.Generator) -> Tensor:
    """Of a table's rows: Gaussian noise of 0.3 to 3 standard deviations of the batch's columns on one or more of
    them.
    """
    flat = x.flatten(1)
    size = 0.3 * 10 ** torch.rand(len(x), 1, generator=generator)
    drawn = torch.rand(flat.shape, generator=generator)
    hit = (drawn < torch.rand(len(x), 1, generator=generator)) | (drawn == drawn.amin(1, keepdim=True))
    moved = (size * hit * torch.randn(flat.shape, generator=generator)).to(x) * flat.std(0, unbiased=False)
    return (flat + moved).reshape(x.shape)


def wide(x: Tensor, generator: torch.Generator) -> Tensor:
    """Of a table's rows: uniform in a box half as large again as the batch's."""
    flat = x.flatten(1)
    low, high = flat.amin(0), flat.amax(0)
    spread = (high - low) * 1.5
    return ((low + high) / 2 + spread * (torch.rand(flat.shape, generator=generator).to(x) - 0.5)).reshape(x.shape)


IMAGES: dict[str, Corrupt] = {
    "rotate": rotate,
    "flip": flip,
    "shift": shift,
    "shuffle": shuffle,
    "paste": paste,
    "stretch": stretch,
    "warp": warp,
    "thicken": thicken,
    "noise": noise,
    "blur": blur,
}
ROWS: dict[str, Corrupt] = {"permute": permute, "jitter": jitter, "uniform": wide}


def negatives(names: str, shape: tuple[int, ...]) -> Corrupt | None:
    """Corruptions joined by "+", each input getting one of them by chance; None for "none".

    Of images (c, h, w) from 6 x 6 up: `IMAGES`; of other inputs: `ROWS`. Raises `UsageError` for others.
    """
    if names == "none":
        return None
    table, chosen = IMAGES if convolved(shape) else ROWS, names.split("+")
    for name in chosen:
        if name not in table:
            raise UsageError(
                f"negatives are made by {', '.join(table)}, joined by +, or none, but {name!r} came for inputs "
                f"of shape {shape}"
            )

    def corrupt(x: Tensor, generator: torch.Generator) -> Tensor:
        made = torch.empty_like(x)
        for part, name in zip(_parts(len(x), len(chosen), generator), chosen, strict=True):
            if len(part):
                made[part] = table[name](x[part], generator)
        return made

    return corrupt


def _parts(n: int, parts: int, generator: torch.Generator) -> tuple[Tensor, ...]:
    return torch.randperm(n, generator=generator).tensor_split(parts)


def by_default(shape: tuple[int, ...]) -> str:
    """The negatives for inputs of `shape`, where none are asked for."""
    if convolved(shape):
        return "rotate+shuffle+stretch+warp+thicken"
    return "permute+jitter+uniform"
