"""Sources over arrays that stay mapped into memory: only batches are read."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from robustgen.data.form import requested_shape, require_kind, to_shape
from robustgen.data.npy import Array
from robustgen.data.source import Batch, DataSpec, Indices, Source
from robustgen.errors import DataError

SCANNED_AT_ONCE = 1 << 24


@dataclass
class ArraySource(Source):
    """Rows of arrays: images (n, height, width) or (n, channels, height, width), or tables (n, columns).

    `x` are parts that follow one another, `y` one number a row. Bytes are divided by 255; tables are scaled by the
    spec.
    """

    x: Sequence[Array]
    y: npt.NDArray[np.int64] | None

    def _read(self, rows: Indices) -> Batch:
        values = _gather(self.x, rows)
        if self.spec.kind == "table":
            x = torch.from_numpy(_scale(values, self.spec))
        else:
            x = torch.from_numpy(values.astype(np.float32))
            x = x / 255 if values.dtype == np.uint8 else x.clamp(0, 1)
            x = to_shape(x[:, None] if x.ndim == 3 else x, self.spec.shape)
        y = None if self.y is None else torch.from_numpy(self.y[rows])
        return Batch(x, y, torch.from_numpy(rows.copy()))


def image_source(
    name: str,
    x: Sequence[Array],
    y: npt.NDArray[np.int64] | None,
    splits: dict[str, Indices],
    classes: tuple[str, ...],
    sha256: str,
) -> ArraySource:
    """Images that are known to be right (built-in sets), in their own form."""
    shape = x[0].shape[1:] if x[0].ndim == 4 else (1, *x[0].shape[1:])
    return ArraySource(DataSpec(name, "image", shape, classes, sha256=sha256), splits, x, y)


def reshaped(source: ArraySource, size: tuple[int, int] | None, like: DataSpec | None) -> ArraySource:
    """The images of a built-in source in another form."""
    shape = requested_shape(source.spec.name, source.spec.shape, size, like, convert=True)
    return dataclasses.replace(source, spec=dataclasses.replace(source.spec, shape=shape))


def table_source(
    spec: DataSpec,
    splits: dict[str, Indices],
    x: Sequence[Array],
    y: npt.NDArray[np.int64] | None,
    size: tuple[int, int] | None,
    like: DataSpec | None,
) -> ArraySource:
    """A table, scaled by the training rows' smallest and largest values, or by those of `like`. Raises `DataError`."""
    require_kind(spec.name, "table", like)
    if size is not None:
        raise DataError(f"{spec.name!r} is a table: a size can be asked for of images only")
    for part in x:
        for start, rows in pieces(part):
            if part.dtype.kind not in "biuf":
                raise DataError(f"{spec.name!r} has values of type {part.dtype}: only real numbers can be used")
            bad = np.argwhere(~np.isfinite(rows))
            if len(bad):
                row, column = bad[0]
                raise DataError(
                    f"{spec.name!r} has a NaN or infinite value in row {start + row}, column "
                    f"{spec.columns[column] if spec.columns else column}: drop or fill such rows first"
                )
    if like is not None:
        if spec.shape != like.shape:
            raise DataError(
                f"{spec.name!r} has {spec.shape[0]} columns, but {like.shape[0]} are needed, as in {like.name!r}"
            )
        scale = dataclasses.replace(spec, columns=like.columns, minimum=like.minimum, maximum=like.maximum)
    else:
        least, most = _extremes(x, splits["train"])
        scale = dataclasses.replace(spec, minimum=tuple(least.tolist()), maximum=tuple(most.tolist()))
    return ArraySource(scale, splits, x, y)


def _extremes(x: Sequence[Array], rows: Indices) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """The smallest and largest value of each column among the rows, or among all if there are none."""
    rows = rows if len(rows) else np.arange(sum(map(len, x)), dtype=np.int64)
    width = x[0].shape[1]
    least, most = np.full(width, np.inf), np.full(width, -np.inf)
    step = max(1, SCANNED_AT_ONCE // (8 * width))
    for start in range(0, len(rows), step):
        values = _gather(x, rows[start : start + step]).astype(np.float64)
        least, most = np.minimum(least, values.min(0)), np.maximum(most, values.max(0))
    return least, most


def _scale(values: Array, spec: DataSpec) -> npt.NDArray[np.float32]:
    least, most = np.array(spec.minimum), np.array(spec.maximum)
    width = np.where(most > least, most - least, np.inf)  # a constant column becomes 0
    return np.asarray((values.astype(np.float64) - least) / width, np.float32)


def pieces(x: Array) -> Iterator[tuple[int, Array]]:
    """A mapped array piece by piece, each with the number of its first row."""
    step = max(1, SCANNED_AT_ONCE // max(1, x[:1].nbytes))
    for start in range(0, len(x), step):
        yield start, x[start : start + step]


def _gather(parts: Sequence[Array], rows: Indices) -> Array:
    """The rows, in that order, of arrays that follow one another."""
    if len(parts) == 1:
        return np.asarray(parts[0][rows])
    out = np.empty((len(rows), *parts[0].shape[1:]), parts[0].dtype)
    start = 0
    for part in parts:
        here = (rows >= start) & (rows < start + len(part))
        out[here] = part[rows[here] - start]
        start += len(part)
    return out
