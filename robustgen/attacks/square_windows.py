"""The windows of the Square attack: how large they are, where they fall, and the bumps that they carry."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
"""After each of these queries the share of the image that a window covers is halved."""

FULL_LENGTH = 10_000
"""Queries that these are meant for."""

Image = tuple[int, int, int]
"""Channels, height, width."""


def as_image(shape: Sequence[int]) -> Image:
    """What inputs of any shape are taken for: the last two axes are the image, the others its channels."""
    height, width = (1, *shape)[-2:]
    return math.prod(shape[:-2]), height, width


def window_sizes(image: Image, p_init: float, odd: bool) -> list[tuple[int, int]]:
    """(height, width) of a window after each number of halvings: the square that covers the share p of the image.

    Where the image is too narrow for the square, a rectangle of the same area. `odd`: odd sides of at least 3, where
    the image has room for them, so that a bump has a middle.
    """
    short, long = sorted(image[1:])
    sizes = []
    for halvings in range(len(HALVINGS) + 1):
        area = p_init * 0.5**halvings * short * long
        side = _side(math.sqrt(area), odd)
        near, far = (side, side) if side <= short else (short, min(max(short, _side(area / short, odd)), long))
        sizes.append((near, far) if image[1] == short else (far, near))
    return sizes


def _side(length: float, odd: bool) -> int:
    side = max(round(length), 3 if odd else 1)
    return side + 1 if odd and side % 2 == 0 else side


def bump(height: int, width: int, order: int) -> Float[Tensor, "height width"]:
    """Two opposite peaks, one above the other, of length 1 in the norm of this `order`.

    Andriushchenko et al. 2020, the update of the L2 attack; `order` 1: the sharper peaks of Croce and Hein 2021.
    """
    upper, lower = (_peak(rows, width, order) for rows in (height // 2, height - height // 2))
    both = torch.cat([upper, -lower])
    unit: Tensor = both / torch.linalg.vector_norm(both, order)
    return unit


def _peak(height: int, width: int, order: int) -> Tensor:
    """Length 1; the same on each square ring around the middle, growing inwards by 1 / k^2 (L2) or 1 / k^4 (L1)."""
    down, right = (torch.arange(side) - side // 2 for side in (height, width))
    ring = torch.maximum(down.abs()[:, None], right.abs()[None])
    terms = torch.arange(1.0, max(height, width) // 2 + 2, dtype=torch.float64) ** (-4 if order == 1 else -2)
    values = terms.flip(0).cumsum(0).flip(0)[ring]
    unit: Tensor = values / torch.linalg.vector_norm(values, order).clamp(min=1e-300)
    return unit.float()


def grid_of_bumps(image: Image, order: int) -> tuple[Float[Tensor, "2 height width"], Tensor]:
    """A grid of 5 x 5 bumps that covers the image but for its margins, upright and lying; and the number (height,
    width) of the bump to which each place belongs, -1 in the margins.
    """
    sides = [max(1, length // 5) for length in image[1:]]
    counts = [length // side for length, side in zip(image[1:], sides, strict=True)]
    margins = [(length - side * count) // 2 for length, side, count in zip(image[1:], sides, counts, strict=True)]
    corner = tuple(slice(m, m + s * c) for m, s, c in zip(margins, sides, counts, strict=True))
    pattern, number = torch.zeros(2, *image[1:]), torch.full(image[1:], -1)
    pattern[0][corner] = bump(sides[0], sides[1], order).repeat(*counts)
    pattern[1][corner] = bump(sides[1], sides[0], order).T.repeat(*counts)
    numbers = torch.arange(counts[0] * counts[1]).reshape(*counts)
    number[corner] = numbers.repeat_interleave(sides[0], 0).repeat_interleave(sides[1], 1)
    return pattern, number


@dataclass(frozen=True)
class Windows:
    """A window in each of m images, as places in the flattened plane.

    Windows of unequal size share one array (m, a, b): where a window is smaller its last row and column are repeated,
    so that what is written twice to a place is the same value.
    """

    down: Tensor
    """(m, a), rows counted from the top of the window; `right` (m, b) likewise."""
    right: Tensor
    corner: Tensor
    """(m, 2), row and column of the image where the window begins."""
    width: int
    """Of the image."""

    @property
    def place(self) -> Tensor:
        """(m, 1, a * b)"""
        down, right = self.corner[:, :1] + self.down, self.corner[:, 1:] + self.right
        return (down[:, :, None] * self.width + right[:, None]).flatten(1)[:, None]

    @property
    def inside(self) -> Tensor:
        """(m, a, b), false for repetitions."""
        rows, columns = (torch.arange(part.shape[1], device=part.device) for part in (self.down, self.right))
        return (self.down == rows)[:, :, None] & (self.right == columns)[:, None]

    def beyond(self, other: Windows) -> Tensor:
        """(m, a, b): inside, and not covered by `other`, of the same size."""
        down, right = self.corner[:, :1] + self.down, self.corner[:, 1:] + self.right
        down, right = down - other.corner[:, :1], right - other.corner[:, 1:]
        covered = ((down >= 0) & (down <= self.down[:, -1:]))[:, :, None]
        return self.inside & ~(covered & ((right >= 0) & (right <= self.right[:, -1:]))[:, None])


class Schedule:
    """Which window a query changes."""

    def __init__(self, image: Image, p_init: float, odd: bool, device: torch.device) -> None:
        self.image, self.device, self.sizes = image, device, window_sizes(image, p_init, odd)
        self._last = torch.tensor(self.sizes, device=device) - 1  # row and column of a window
        self._room = torch.tensor(image[1:], device=device) - self._last  # how many places for its corner
        self._halvings = torch.tensor(HALVINGS, device=device)
        self._count = torch.arange(max(image[1:]), device=device)

    def level(self, step: Tensor) -> Tensor:
        """How often the share has been halved (m,) before the query number `step` (m,), counted from 0."""
        return torch.bucketize(step, self._halvings)

    def windows(self, level: Tensor, *across: Tensor) -> list[Windows]:
        """Windows for each of `across` (m, 2) in [0, 1): from the first place to the last, down and to the right."""
        (height, width), last = self.sizes[int(level.min())], self._last[level]
        down = torch.minimum(self._count[:height], last[:, :1])
        right = torch.minimum(self._count[:width], last[:, 1:])
        room = self._room[level]
        return [Windows(down, right, (share * room).long(), self.image[2]) for share in across]
