"""Columns of unlike units brought to one: what detectors of tables work on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, final, get_args

import torch
from torch import Tensor, nn

from robustgen.data.rows import Rows
from robustgen.errors import UsageError
from robustgen.registry import suggestion

Scale = Literal["auto", "standard", "none"]
SCALES: tuple[Scale, ...] = get_args(Scale)


def require_scale(scale: Scale) -> Scale:
    """`scale`, if there is such a one. Raises `UsageError` if not."""
    if scale not in SCALES:
        raise UsageError(suggestion(scale, SCALES, "scale"))
    return scale


@final
class Standardise(nn.Module):
    """(x - mean) / standard deviation, value by value, as fitted rows have them. A constant column is only centred."""

    centre: Tensor
    deviation: Tensor

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.register_buffer("centre", torch.zeros(shape))
        self.register_buffer("deviation", torch.ones(shape))

    def prepare(self, rows: Rows) -> None:
        """Take mean and deviation from `rows`, in two passes in float64: large offsets cost no digits."""
        centre = sum((x.cpu().double().sum(0) for x in rows.batches(4096)), torch.zeros(())) / len(rows)
        squares = sum(((x.cpu().double() - centre).square().sum(0) for x in rows.batches(4096)), torch.zeros(()))
        deviation = (squares / len(rows)).sqrt()
        constant = deviation <= 1e-7 * centre.abs()  # what is left is float32's rounding
        deviation = torch.where(constant, 1.0, deviation)
        self.centre, self.deviation = centre.to(self.centre), deviation.to(self.deviation)

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.centre.to(x.dtype)) / self.deviation.to(x.dtype)

    def back(self, z: Tensor) -> Tensor:
        """The input that `forward` makes into `z`."""
        return z * self.deviation.to(z.dtype) + self.centre.to(z.dtype)


@final
class StandardRows(Rows):
    """Rows seen through a fitted `Standardise`."""

    def __init__(self, rows: Rows, standardise: Standardise) -> None:
        super().__init__(rows.shape, None)
        self.rows, self.standardise = rows, standardise

    def _count(self) -> int:
        return len(self.rows)

    def _batches(self, batch_size: int, generator: torch.Generator | None) -> Iterator[Tensor]:
        for batch in self.rows.batches(batch_size, generator):
            yield self.standardise(batch.to(self.standardise.centre.device))

    def _pairs(self, batch_size: int, generator: torch.Generator | None) -> Iterator[tuple[Tensor, Tensor | None]]:
        for x, y in self.rows.pairs(batch_size, generator):
            yield self.standardise(x.to(self.standardise.centre.device)), y
