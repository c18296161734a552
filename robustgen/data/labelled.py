"""Inputs that keep their labels where rows of values are asked for."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import final

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from robustgen.data.rows import Rows


@final
class LabelledRows(Rows):
    """Each input flattened, its label the last value (exact up to 2^24): what holds rows out, shuffles or moves them
    need not know of labels. `unpacked` takes them apart. Raises `DataError` where inputs carry no labels.
    """

    def __init__(self, rows: Rows) -> None:
        super().__init__((prod(rows.shape) + 1,), None)
        self.rows = rows

    def _count(self) -> int:
        return len(self.rows)

    def _batches(self, batch_size: int, generator: torch.Generator | None) -> Iterator[Tensor]:
        for x, y in self.rows.pairs(batch_size, generator):
            yield torch.cat([x.flatten(1), y[:, None].to(x)], 1)


def unpacked(
    packed: Float[Tensor, "n values"], shape: tuple[int, ...]
) -> tuple[Float[Tensor, "n *shape"], Int64[Tensor, " n"]]:
    """Inputs of `shape` and their labels, of batches of `LabelledRows`."""
    return packed[:, :-1].reshape(-1, *shape), packed[:, -1].long()
