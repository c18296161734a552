"""Rows set aside for checking: each row's own values decide, so that copies of a row end on the same side."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import final

import torch
from torch import Tensor

from robustgen.data.rows import Rows, TensorRows
from robustgen.randomness import sample_keys

_IN_MEMORY = 2**27  # values (512 MiB as float32); above, rows are read again each time


def hold_out(
    rows: Rows, *, every: int = 10, most: int = 2000, seed: int = 0, device: torch.device | None = None
) -> tuple[Rows, Rows]:
    """(the rest, about one row in `every` but at most about `most`), disjoint whatever the order in which rows come.

    Fewer than 8 held-out rows tell nothing: then all rows are on both sides. What fits into memory is read once and
    kept on `device`.
    """
    share = max(every, -(-len(rows) // most))
    if len(rows) * prod(rows.shape) > _IN_MEMORY:
        kept, held = _Side(rows, share, seed, held=False), _Side(rows, share, seed, held=True)
        return (rows, rows) if len(held) < 8 or not len(kept) else (kept, held)
    batches = list(rows.batches(4096))
    x, out = torch.cat(batches), torch.cat([_held(batch, share, seed) for batch in batches])
    if device is not None:
        x, out = x.to(device), out.to(device)
    return (TensorRows(x), TensorRows(x)) if out.sum() < 8 or out.all() else (TensorRows(x[~out]), TensorRows(x[out]))


def _held(x: Tensor, share: int, seed: int) -> Tensor:
    parts = x.cpu().split(256)  # small enough for the cache: a quarter of the time
    return torch.cat([sample_keys(part, seed) for part in parts]) % share == 0


@final
class _Side(Rows):
    """The held-out rows of `rows`, or the others."""

    def __init__(self, rows: Rows, share: int, seed: int, *, held: bool) -> None:
        super().__init__(rows.shape, None)
        self.rows, self.share, self.seed, self.held = rows, share, seed, held

    def _count(self) -> int:
        return sum(len(batch) for batch in self._batches(4096, None))

    def _batches(self, batch_size: int, generator: torch.Generator | None) -> Iterator[Tensor]:
        waiting = list[Tensor]()
        for batch in self.rows.batches(batch_size, generator):
            out = _held(batch, self.share, self.seed).to(batch.device)
            waiting.append(batch[out if self.held else ~out])
            if sum(len(part) for part in waiting) >= batch_size:
                x = torch.cat(waiting)
                yield x[:batch_size]
                waiting = [x[batch_size:]]
        x = torch.cat(waiting) if waiting else torch.empty(0, *self.shape)
        if len(x):
            yield x
