"""The labels that conditional detectors judge inputs against."""

from __future__ import annotations

import torch
from torch import Tensor

from robustgen.data.labelled import LabelledRows
from robustgen.errors import DataError, UsageError


def count_classes(packed: LabelledRows, asked: int | None) -> int:
    """How many classes the labels of `packed` rows belong to: as many as `asked`, or as the labels show, at least 2.

    Raises `DataError` for labels beyond those asked for.
    """
    found = 1 + max(int(batch[:, -1].max()) for batch in packed.batches(4096))
    if found > (asked or max(2, found)):
        raise DataError(f"there are labels up to {found - 1}, but classes={asked} was asked for")
    return asked or max(2, found)


def labels_for(x: Tensor, condition: Tensor | None, classes: int, name: str) -> Tensor:
    """The labels (n,) that the detector `name` judges inputs `x` (n, ...) against. Raises `UsageError` if they are
    missing, not whole numbers, or not below `classes`.
    """
    if condition is None:
        raise UsageError(f"{name} judges an input against a label: pass those that the classifier predicts")
    if condition.is_floating_point() or condition.shape != x.shape[:1]:
        raise UsageError(
            f"labels are whole numbers, one an input, but {condition.dtype} {tuple(condition.shape)} came with "
            f"{len(x)} "
            "inputs"
        )
    if torch.compiler.is_exporting():  # a program cannot stop for values
        return condition.long().to(x.device)
    if len(condition) and not 0 <= int(condition.min()) <= int(condition.max()) < classes:
        raise UsageError(
            f"labels are below {classes}, the number of classes, but {int(condition.min())} to {int(condition.max())} "
            "came"
        )
    return condition.long().to(x.device)
