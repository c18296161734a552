"""Rows: inputs that can be gone through again and again. Detectors are fitted on them, whatever they come from; most
without a look at labels."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from typing import Any, ClassVar, final

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset

from robustgen.data.source import Source, Split
from robustgen.errors import DataError, UsageError

Inputs = Tensor | Source | Dataset[Any] | Iterable[Any]


class Rows(ABC):
    """A finite set of inputs of one shape, floating and finite. Subclasses write `_batches` and `_count`."""

    shape: tuple[int, ...]
    known: ClassVar[bool] = False
    """Whether all inputs have been checked once and cannot have changed."""

    def __init__(self, shape: tuple[int, ...], limit: int | None) -> None:
        self.shape, self.limit = shape, limit
        self._n: int | None = None

    @final
    def __len__(self) -> int:
        if self._n is None:
            n = self._count()
            self._n = n if self.limit is None else min(n, self.limit)
        return self._n

    @final
    def batches(self, batch_size: int, generator: torch.Generator | None = None) -> Iterator[Float[Tensor, "n *shape"]]:
        """The inputs in batches, in order or shuffled by `generator`. Raises `DataError` on what is not finite or of
        another shape."""
        if batch_size < 1:
            raise UsageError(f"batch_size must be at least 1: got {batch_size}")
        for x in self._batches(batch_size, generator):
            yield x if self.known else checked(x, self.shape)

    @final
    def pairs(
        self, batch_size: int, generator: torch.Generator | None = None
    ) -> Iterator[tuple[Float[Tensor, "n *shape"], Int64[Tensor, " n"]]]:
        """The inputs in batches, with their labels: whole numbers from 0. Raises `DataError` where there are none."""
        for x, y in self._pairs(batch_size, generator):
            if y is None:
                raise DataError(
                    "these inputs carry no labels: pass a source with classes, a dataset of (input, label) pairs, or "
                    "batches of such pairs"
                )
            if y.is_floating_point() or y.ndim != 1 or len(y) != len(x) or (len(y) and int(y.min()) < 0):
                raise DataError(f"labels must be whole numbers from 0, one an input: got {y.dtype} {tuple(y.shape)}")
            yield checked(x, self.shape), y.long()

    def _pairs(self, batch_size: int, generator: torch.Generator | None) -> Iterator[tuple[Tensor, Tensor | None]]:
        """The same batches with their labels, for rows that can have them."""
        for x in self._batches(batch_size, generator):
            yield x, None

    @abstractmethod
    def _batches(self, batch_size: int, generator: torch.Generator | None) -> Iterator[Tensor]:
        """Batches of at most `batch_size`, `limit` rows at most."""

    @abstractmethod
    def _count(self) -> int:
        """How many rows there are, without the limit."""

    def _order(self, batch_size: int, generator: torch.Generator | None) -> Iterator[Tensor]:
        """Row numbers in batches."""
        order = torch.arange(len(self)) if generator is None else torch.randperm(len(self), generator=generator)
        for start in range(0, len(order), batch_size):
            yield order[start : start + batch_size]


def as_rows(data: Inputs, split: Split = "train", limit: int | None = None) -> Rows:
    """The inputs of `data`, the first `limit` if given: a tensor (n, *shape), a source (its `split`), a map-style
    dataset of tensors or tuples that begin with one, or batches of such that can be iterated again and again, as a
    DataLoader's.

    Such batches are cut to `batch_size` and come in their own order: shuffling is theirs. Of a source whose files turn
    out unreadable, `len` still counts these. Raises `DataError` on no rows, `UsageError` on other types and one-shot
    iterators.
    """
    if limit is not None and limit < 1:
        raise UsageError(f"limit must be at least 1: got {limit}")
    if isinstance(data, Tensor):
        return TensorRows(data, limit)
    if isinstance(data, Source):
        return SourceRows(data, split, limit)
    if isinstance(data, IterableDataset):
        raise UsageError(f"{type(data).__name__} yields single inputs without a number: pass a DataLoader over it")
    if isinstance(data, Dataset):
        return DatasetRows(data, limit)
    if isinstance(data, Iterator):
        raise UsageError(
            f"a {type(data).__name__} can be iterated once only, but training goes through the data again "
            "and again: pass a list, a DataLoader, a dataset or a tensor"
        )
    if isinstance(data, Iterable) and not hasattr(data, "__array__"):
        return IterableRows(data, limit)
    raise UsageError(
        f"data of type {type(data).__name__} cannot be gone through: pass a tensor (torch.from_numpy for "
        "an array), a source, a dataset, or batches such as a DataLoader's"
    )


def checked(x: Tensor, shape: tuple[int, ...] | None = None) -> Tensor:
    """The inputs, if they are floating, finite and of the shape. Raises `DataError` if not."""
    if not x.is_floating_point():
        raise DataError(f"inputs must be floating, in [0, 1]: got {x.dtype} (bytes are to be divided by 255)")
    if shape is not None and tuple(x.shape[1:]) != shape:
        raise DataError(
            f"inputs of shape {tuple(x.shape[1:])} came after inputs of shape {shape}: all must have one shape"
        )
    if x.numel() and not torch.stack(torch.aminmax(x)).isfinite().all():  # NaN is both; a tenth of the time
        bad = int((~torch.isfinite(x).flatten(1).all(1)).nonzero()[0])
        raise DataError(f"inputs must be finite: there are NaN or infinite values, the first in row {bad} of {len(x)}")
    return x


class TensorRows(Rows):
    """The rows of a tensor (n, ...)."""

    known = True

    def __init__(self, x: Tensor, limit: int | None = None) -> None:
        if x.ndim < 2 or not x.numel():
            raise DataError(f"inputs must be (n, ...) with at least one row: got shape {tuple(x.shape)}")
        super().__init__(tuple(x.shape[1:]), limit)
        self.x = checked(x)

    def _count(self) -> int:
        return len(self.x)

    def _batches(self, batch_size: int, generator: torch.Generator | None) -> Iterator[Tensor]:
        for rows in self._order(batch_size, generator):
            yield self.x.index_select(0, rows.to(self.x.device))  # several times as fast as indexing


class SourceRows(Rows):
    """A split of a source."""

    def __init__(self, source: Source, split: Split, limit: int | None = None) -> None:
        super().__init__(source.spec.shape, limit)
        self.source, self.split = source, split
        len(self)  # a split without rows is an error now, not later

    def _count(self) -> int:
        return len(self.source.rows(self.split))

    def _batches(self, batch_size: int, generator: torch.Generator | None) -> Iterator[Tensor]:
        for batch in self.source.batches(self.split, batch_size, generator, self.limit):
            yield batch.x

    def _pairs(self, batch_size: int, generator: torch.Generator | None) -> Iterator[tuple[Tensor, Tensor | None]]:
        for batch in self.source.batches(self.split, batch_size, generator, self.limit):
            yield batch.x, batch.y


class DatasetRows(Rows):
    """The items of a map-style dataset."""

    def __init__(self, dataset: Dataset[Any], limit: int | None = None) -> None:
        self.dataset: Any = dataset
        if not hasattr(dataset, "__len__") or not len(dataset):
            raise DataError(f"the dataset {type(dataset).__name__} has no rows")
        super().__init__(tuple(_input(self.dataset[0]).shape), limit)

    def _count(self) -> int:
        return len(self.dataset)

    def _batches(self, batch_size: int, generator: torch.Generator | None) -> Iterator[Tensor]:
        for rows in self._order(batch_size, generator):
            items = [_input(self.dataset[row]) for row in rows.tolist()]
            for item in items:
                if tuple(item.shape) != self.shape:
                    raise DataError(
                        f"the dataset has inputs of shape {self.shape} and {tuple(item.shape)}: all must have one shape"
                    )
            yield torch.stack(items)

    def _pairs(self, batch_size: int, generator: torch.Generator | None) -> Iterator[tuple[Tensor, Tensor | None]]:
        for rows in self._order(batch_size, generator):
            pairs = [self.dataset[row] for row in rows.tolist()]
            labels = [_label(pair) for pair in pairs]
            found = None if None in labels else torch.tensor([int(label) for label in labels if label is not None])
            yield torch.stack([_input(pair) for pair in pairs]), found


class IterableRows(Rows):
    """Batches that can be iterated again and again."""

    def __init__(self, data: Iterable[Any], limit: int | None = None) -> None:
        self.data = data
        first = next((_input(batch) for batch in data), None)
        if first is None or first.ndim < 2 or not len(first):
            raise DataError(
                f"the {type(data).__name__} yields no batches of inputs (n, ...)"
                f"{'' if first is None else f': the first has shape {tuple(first.shape)}'}"
            )
        super().__init__(tuple(checked(first).shape[1:]), limit)

    def _count(self) -> int:
        return sum(len(_input(batch)) for batch in self.data)

    def _batches(self, batch_size: int, generator: torch.Generator | None) -> Iterator[Tensor]:
        held, count, left, seen = list[Tensor](), 0, self.limit, False
        for item in self.data:
            x, seen = checked(_input(item), self.shape)[:left], True
            left = None if left is None else left - len(x)
            while len(x):
                take = x[: batch_size - count]
                held, count, x = [*held, take], count + len(take), x[len(take) :]
                if count == batch_size:
                    yield torch.cat(held)
                    held, count = [], 0
            if left == 0:
                break
        if held:
            yield torch.cat(held)
        if not seen:
            raise UsageError(
                f"the {type(self.data).__name__} could be iterated once only: pass something that starts anew each time"
            )

    def _pairs(self, batch_size: int, generator: torch.Generator | None) -> Iterator[tuple[Tensor, Tensor | None]]:
        left = len(self)
        for item in self.data:
            x, y = _input(item)[:left], _label(item)
            left -= len(x)
            if not isinstance(y, Tensor):
                yield x, None
            else:
                yield from zip(x.split(batch_size), y[: len(x)].split(batch_size), strict=True)


def _label(item: Any) -> Any:
    """The label of a dataset's item, or those of a batch: what comes second, if anything does."""
    return item[1] if isinstance(item, (tuple, list)) and len(item) > 1 else None


def _input(item: Any) -> Tensor:
    """The input of a dataset's item or of a batch: itself, or the first of a tuple."""
    x = item[0] if isinstance(item, (tuple, list)) and item else item
    if not isinstance(x, Tensor):
        raise DataError(
            f"inputs must be tensors: got {type(x).__name__} (torchvision.transforms.ToTensor makes tensors of images)"
        )
    return x
