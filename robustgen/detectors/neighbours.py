"""Training inputs that are kept, and the nearest of them to others."""

from __future__ import annotations

from itertools import repeat
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from robustgen.data.rows import Rows

_AT_ONCE = 2**25  # distances held at a time (128 MiB as float32)


class _Moved(NamedTuple):
    """A bank around its mean: (d,), (m, d), the squared lengths (m,) there, and the `state` of its tensor."""

    centre: Tensor
    rows: Tensor
    squares: Tensor
    state: tuple[int, int]


_MOVED: Any = WeakTensorKeyDictionary()
"""By bank, as long as that lives: for few inputs it takes longer to make than they take to be compared with it."""


def _moved(bank: Tensor) -> _Moved:
    passing = torch.compiler.is_compiling() or torch.compiler.is_exporting() or bank.is_inference()
    state = (0, 0) if passing else (bank.data_ptr(), bank._version)
    known: _Moved | None = None if passing else _MOVED.get(bank)
    if known is None or known.state != state:
        centre = bank.mean(0)
        rows = bank - centre
        known = _Moved(centre, rows, rows.square().sum(1), state)
        if not passing:
            _MOVED[bank] = known
    return known


def kept_rows(rows: Rows, most: int, seed: int) -> Float[Tensor, "m d"]:
    """At most `most` of the rows, flattened, in their order; drawn by `seed` where there are more."""
    n = len(rows)
    if n <= most:
        return torch.cat([x.flatten(1) for x in rows.batches(4096)])
    chosen = torch.zeros(n, dtype=torch.bool)
    chosen[torch.randperm(n, generator=torch.Generator().manual_seed(seed))[:most]] = True
    parts, start = [], 0
    for x in rows.batches(4096):
        parts.append(x.flatten(1)[chosen[start : start + len(x)].to(x.device)])
        start += len(x)
    return torch.cat(parts)


def nearest(
    x: Float[Tensor, "n d"], bank: Float[Tensor, "m d"], k: int, allowed: Bool[Tensor, "n m"] | None = None
) -> tuple[Float[Tensor, "n k"], Int64[Tensor, "n k"]]:
    """Euclidean distances to the `k` nearest rows of `bank`, ascending and differentiable in `x`, and which they are.

    Fewer than `k` if the bank is smaller. `allowed`: which of the bank count for each row; the others are infinitely
    far.
    """
    k = min(k, len(bank))
    step = max(1, _AT_ONCE // len(bank))
    with torch.no_grad():
        # the expansion is cheap but loses digits: it proposes twice as many, and their own differences decide
        centre, moved, squares, _ = _moved(bank)
        found = []
        # a program has no loop whose length depends on its input
        parts = (x,) if torch.compiler.is_exporting() else x.split(step)
        masks = repeat(None) if allowed is None else (allowed,) if len(parts) == 1 else allowed.split(step)
        for part, here in zip(parts, masks, strict=False):
            expanded = squares - 2 * (part - centre) @ moved.T
            if here is not None:
                expanded = expanded.masked_fill(~here, torch.inf)
            proposed = expanded.topk(min(2 * k + 8, len(bank)), dim=1, largest=False).indices
            exact = _distances(part, bank[proposed])
            if here is not None:
                exact = exact.masked_fill(~here.gather(1, proposed), torch.inf)
            found.append(proposed.gather(1, exact.topk(k, dim=1, largest=False).indices))
        chosen = torch.cat(found) if found else torch.empty(0, k, dtype=torch.int64, device=x.device)
    near = _distances(x, bank[chosen])
    return near if allowed is None else near.masked_fill(~allowed.gather(1, chosen), torch.inf), chosen


def _distances(x: Tensor, others: Tensor) -> Tensor:
    """(n, k) from x (n, d) to others (n, k, d); the slope at 0 is 0."""
    squares: Tensor = (x[:, None] - others).square().sum(2)
    return squares.clamp_min(1e-30).sqrt()
