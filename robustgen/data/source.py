"""The contract of data: where inputs come from, what they look like, and which split each belongs to."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, final

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from robustgen.errors import DataError

Split = Literal["train", "calibration", "test", "all"]
Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class DataSpec:
    """What inputs look like; enough to read further inputs in the same way (stored with what was trained on them).

    `low` and `high` are the ends of the legal range, in the units in which `eps` is given. A table's columns are
    scaled to [0, 1] by `minimum` and `maximum`, one value a column, taken from the training split.
    """

    name: str
    kind: Literal["image", "table"]
    shape: tuple[int, ...]
    classes: tuple[str, ...] = ()
    low: float = 0.0
    high: float = 1.0
    sha256: str = ""
    columns: tuple[str, ...] = ()
    minimum: tuple[float, ...] = ()
    maximum: tuple[float, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """A dictionary of plain values; `from_json` gives the spec back."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> DataSpec:
        """The spec that `to_json` wrote. Raises `TypeError` on unknown keys."""
        plain: dict[str, Any] = {k: tuple(value) if isinstance(value, list) else value for k, value in values.items()}
        return cls(**plain)


@dataclass(frozen=True)
class Batch:
    """A few inputs: `x` (n, *shape) float32, `y` (n,) int64 or None, `index` (n,) = the rows' numbers in the source."""

    x: Float[Tensor, "n *shape"]
    y: Int64[Tensor, " n"] | None
    index: Int64[Tensor, " n"]

    def __len__(self) -> int:
        return len(self.x)

    def to(self, device: torch.device) -> Batch:
        """The same batch with inputs and labels on `device`; the row numbers stay on the CPU."""
        return Batch(self.x.to(device), None if self.y is None else self.y.to(device), self.index)


@dataclass
class Source(ABC):
    """Inputs with disjoint splits. Rows are read when asked for, so memory does not grow with the data.

    Subclasses fill `spec`, `splits` (pairwise disjoint row numbers; every row is in exactly one) and write `_read`.
    """

    spec: DataSpec
    splits: dict[str, Indices]
    skipped: dict[str, str] = field(default_factory=dict, kw_only=True)
    """Inputs left out, and why: filled while reading."""

    @abstractmethod
    def _read(self, rows: Indices) -> Batch:
        """The rows, in that order, as a batch in [low, high]; unreadable ones are left out and noted in `skipped`."""

    @final
    def rows(self, split: Split) -> Indices:
        """The row numbers of a split, ascending; `"all"` is every row. Raises `DataError` if there are none."""
        rows = np.sort(np.concatenate(list(self.splits.values()))) if split == "all" else self.splits.get(split)
        if rows is None or not len(rows):
            sizes = {name: len(part) for name, part in self.splits.items()}
            raise DataError(f"{self.spec.name!r} has no {split} inputs: its splits are {sizes}")
        return rows

    @final
    def spread(self, split: Split, limit: int | None = None) -> Indices:
        """At most `limit` rows of a split, evenly spread over it: the first rows of a folder would be of one class."""
        rows = self.rows(split)
        if limit is None or limit >= len(rows):
            return rows
        return rows[np.linspace(0, len(rows) - 1, limit).round().astype(np.int64)]

    @final
    def read(self, rows: Indices) -> Batch:
        """The rows by number, as one batch. Raises `DataError` on values that are not finite."""
        batch = self._read(rows)
        if not torch.isfinite(batch.x).all():
            bad = batch.index[~torch.isfinite(batch.x.flatten(1)).all(1)].tolist()
            raise DataError(
                f"{self.spec.name!r} has NaN or infinite values in row {bad[0]} ({len(bad)} such rows in a "
                f"batch of {len(batch)}): drop or fill them first"
            )
        return batch

    @final
    def batches(
        self, split: Split, batch_size: int, generator: torch.Generator | None = None, limit: int | None = None
    ) -> Iterator[Batch]:
        """The split in batches: in the rows' order, or shuffled by `generator`; the first `limit` rows if given."""
        rows = self.rows(split)[:limit]
        if generator is not None:
            rows = rows[torch.randperm(len(rows), generator=generator).numpy()]
        for start in range(0, len(rows), batch_size):
            batch = self.read(rows[start : start + batch_size])
            if len(batch):
                yield batch

    def label(self, row: int) -> str:
        """How a person finds the row again: a file's path where there is one, else the row's number."""
        return str(row)


def split_rows(n: int, fractions: dict[str, float], seed: int = 0) -> dict[str, Indices]:
    """Cut `range(n)` at random into disjoint parts of the given fractions (which sum to 1); the last takes the rest.

    The cut depends on `n`, `fractions` and `seed` alone, so that every command sees the same splits of the same data.
    """
    order = np.random.Generator(np.random.PCG64(seed)).permutation(n).astype(np.int64)
    parts, start = {}, 0
    names = list(fractions)
    for name in names:
        end = n if name == names[-1] else start + round(n * fractions[name])
        parts[name] = np.sort(order[start:end])
        start = end
    return parts
