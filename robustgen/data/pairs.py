"""Pairs of pictures that belong together, as one image each: the first's channels, then the second's."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import final

import numpy as np
import torch

from robustgen.data.form import pool_splits
from robustgen.data.source import Batch, DataSpec, Indices, Source
from robustgen.errors import DataError


@final
@dataclass
class PairSource(Source):
    """Row i is row `of_conditions[i]` of one source above row `of_photos[i]` of another."""

    conditions: Source
    photos: Source
    of_conditions: Indices
    of_photos: Indices

    def _read(self, rows: Indices) -> Batch:
        first, second = self.conditions.read(self.of_conditions[rows]), self.photos.read(self.of_photos[rows])
        self.skipped |= self.conditions.skipped | self.photos.skipped
        a = {row: place for place, row in enumerate(first.index.tolist())}
        b = {row: place for place, row in enumerate(second.index.tolist())}
        both = [row for row in rows.tolist() if self.of_conditions[row] in a and self.of_photos[row] in b]
        here = [a[int(self.of_conditions[row])] for row in both]
        there = [b[int(self.of_photos[row])] for row in both]
        y = None if second.y is None else second.y[there]
        return Batch(torch.cat([first.x[here], second.x[there]], 1), y, torch.tensor(both, dtype=torch.int64))

    def label(self, row: int) -> str:
        return self.photos.label(int(self.of_photos[row]))


def paired(conditions: Source, photos: Source, like: DataSpec | None = None) -> PairSource:
    """Two sources of images of one size as one: folders are matched by the files' names without their endings, others
    row by row. Raises `DataError` where the two do not fit, or no file is in both.

    The splits are made anew; with `like` all rows are of the split "test".
    """
    for spec in (conditions.spec, photos.spec):
        if spec.kind != "image":
            raise DataError(f"{spec.name!r} is a table: a pair is of two images")
    if conditions.spec.shape[1:] != photos.spec.shape[1:]:
        raise DataError(
            f"the images of a pair need one size, but {conditions.spec.name!r} has {conditions.spec.shape[1:]} and "
            f"{photos.spec.name!r} {photos.spec.shape[1:]}: ask for a size"
        )
    here, there, skipped = _matched(conditions, photos)
    channels = conditions.spec.shape[0], photos.spec.shape[0]
    spec = replace(
        photos.spec,
        name=f"pairs:{conditions.spec.name},{photos.spec.name}",
        shape=(sum(channels), *photos.spec.shape[1:]),
        sha256=hashlib.sha256(f"{conditions.spec.sha256} {photos.spec.sha256}".encode()).hexdigest(),
        columns=("condition",) * channels[0] + ("photo",) * channels[1],
    )
    return PairSource(spec, pool_splits(len(here), like), conditions, photos, here, there, skipped=skipped)


def forms(like: DataSpec) -> tuple[DataSpec, DataSpec]:
    """The forms of the conditions and of the photos in `like`, that of a `PairSource`. Raises `DataError` for a form
    that does not say which channels are which.
    """
    first = like.columns.count("condition")
    if like.kind != "image" or not 0 < first < like.shape[0]:
        raise DataError(
            f"{like.name!r}, whose form is to be met, does not say which channels are the condition: pairs:A,B can be "
            "judged by what was fitted on pairs:A,B or edges:DATA; stack the pictures in a .npz file otherwise"
        )
    size = like.shape[1:]
    return (
        replace(like, shape=(first, *size), columns=()),
        replace(like, shape=(like.shape[0] - first, *size), columns=()),
    )


def _matched(conditions: Source, photos: Source) -> tuple[Indices, Indices, dict[str, str]]:
    """Row numbers in both, in the photos' order, and what has no partner."""
    a, b = ({_key(source, row): int(row) for row in source.rows("all")} for source in (conditions, photos))
    named = any(source.label(int(row)) != str(row) for source in (conditions, photos) for row in source.rows("all"))
    if not named and len(a) != len(b):
        raise DataError(
            f"pairs are matched row by row, but {conditions.spec.name!r} has {len(a)} and {photos.spec.name!r} "
            f"{len(b)} rows"
        )
    both = [key for key in b if key in a]
    if not both:
        raise DataError(
            f"no image of {conditions.spec.name!r} has the same name as one of {photos.spec.name!r}: the two of a pair "
            f"need one name, but there are for example {next(iter(a))!r} and {next(iter(b))!r}"
        )
    skipped = {
        source.label(row): f"it has no partner in {other.spec.name!r}"
        for source, other, own, others in ((conditions, photos, a, b), (photos, conditions, b, a))
        for key, row in own.items()
        if key not in others
    }
    return np.array([a[key] for key in both], np.int64), np.array([b[key] for key in both], np.int64), skipped


def _key(source: Source, row: int) -> str:
    """What the two images of a pair have in common: a file's place without its ending, or the row's number."""
    return str(PurePosixPath(source.label(int(row))).with_suffix(""))
