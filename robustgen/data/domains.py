"""Two domains as one labelled source: normal inputs, and others to learn from."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import final

import numpy as np
import torch

from robustgen.data.form import to_shape
from robustgen.data.source import Batch, Indices, Source
from robustgen.errors import DataError


@final
@dataclass
class DomainSource(Source):
    """The rows of `normal`, labelled 0, and after them `rows_of_other` of another source, labelled 1, in its form."""

    normal: Source
    other: Source
    rows_of_other: Indices
    start: int

    def _read(self, rows: Indices) -> Batch:
        inside = rows < self.start
        own = self.normal.read(rows[inside])
        foreign = self.other.read(self.rows_of_other[rows[~inside] - self.start])
        self.skipped |= self.normal.skipped | self.other.skipped
        x = torch.cat([own.x, to_shape(foreign.x, self.spec.shape)])
        back = {int(row): place for place, row in enumerate(self.rows_of_other)}
        index = own.index.tolist() + [self.start + back[row] for row in foreign.index.tolist()]
        place = {row: number for number, row in enumerate(index)}
        order = torch.tensor([place[row] for row in rows.tolist() if row in place], dtype=torch.int64)
        y = torch.cat([torch.zeros(len(own), dtype=torch.int64), torch.ones(len(foreign), dtype=torch.int64)])
        return Batch(x[order], y[order], torch.tensor(index, dtype=torch.int64)[order])

    def label(self, row: int) -> str:
        if row < self.start:
            return self.normal.label(row)
        return self.other.label(int(self.rows_of_other[row - self.start]))


def two_domains(normal: Source, other: Source) -> DomainSource:
    """Normal inputs and, in the training split alone, the training inputs of `other` brought to their form (all of
    its inputs if it has none for training): held-out and test inputs are normal ones. Labels say the domain, no more.
    Raises `DataError` unless both are images that can be brought to one form.
    """
    for spec in (normal.spec, other.spec):
        if spec.kind != "image":
            raise DataError(f"{spec.name!r} is a table: two domains are of images")
    rows = other.splits.get("train")
    rows = other.rows("all") if rows is None or not len(rows) else rows
    to_shape(other.read(rows[:1]).x, normal.spec.shape)  # what cannot be brought to this form is said now
    start = int(normal.rows("all").max()) + 1
    train = np.concatenate([normal.rows("train"), start + np.arange(len(rows), dtype=np.int64)])
    spec = replace(
        normal.spec,
        classes=(normal.spec.name, other.spec.name),
        sha256=hashlib.sha256(f"{normal.spec.sha256} {other.spec.sha256}".encode()).hexdigest(),
    )
    return DomainSource(spec, normal.splits | {"train": train}, normal, other, rows, start)
