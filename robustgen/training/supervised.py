"""Classifiers: plain and adversarial training, and their accuracy."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor, nn

from robustgen.data.source import Batch, Source, Split
from robustgen.errors import DataError
from robustgen.metrics import Estimate, proportion
from robustgen.objectives import Model, cross_entropy
from robustgen.runtime import fitting_threads
from robustgen.training.descent import Recipe, TrainingProgress, descend

Adversary = Callable[[Model, Tensor, Tensor, int], Tensor]
"""(model, x, y, seed) -> x_adv: the attack that adversarial training trains against."""


def channel_statistics(source: Source, batches: int = 40) -> tuple[list[float], list[float]]:
    """Mean and standard deviation per channel (or column) over the first `batches` batches of 256 training inputs."""
    sums = squares = torch.zeros(1, dtype=torch.float64)
    count = 0
    for batch in islice(source.batches("train", 256), batches):
        x = batch.x.double().transpose(0, 1).flatten(1)
        sums, squares, count = sums + x.sum(1), squares + x.square().sum(1), count + x.shape[1]
    mean = sums / max(1, count)
    std = (squares / max(1, count) - mean.square()).clamp(min=0).sqrt()
    return mean.tolist(), torch.where(std > 1e-6, std, 1.0).tolist()


def check_labels(source: Source) -> None:
    """Raise `DataError` unless the source has labels of at least two classes."""
    name = source.spec.name
    if len(source.spec.classes) == 1:
        raise DataError(f"{name!r} has one class only ({source.spec.classes[0]!r}): a classifier needs at least two")
    if not source.spec.classes or next(iter(source.batches("train", 1))).y is None:
        raise DataError(f"{name!r} has no labels: use class folders, a key 'y', or a column named 'label'")


def train_classifier(
    network: nn.Module,
    source: Source,
    recipe: Recipe,
    *,
    device: torch.device,
    adversary: Adversary | None = None,
    checkpoint: Path | None = None,
    progress: TrainingProgress | None = None,
) -> list[float]:
    """Train on the source's training split by cross-entropy; returns each epoch's mean loss.

    With an `adversary`, on its adversarial inputs in place of the clean ones (Madry 2018, eq. 2.1). Raises `DataError`
    without labels or with one class only.
    """
    check_labels(source)

    def loss(model: nn.Module, batch: Batch, step: int) -> Tensor:
        assert batch.y is not None  # check_labels has seen to it
        x = batch.x if adversary is None else adversary(network, batch.x, batch.y, recipe.seed * 1_000_003 + step)
        return cross_entropy(model(x), batch.y)

    with fitting_threads(device, math.prod(source.spec.shape)):
        return descend(
            network,
            loss,
            lambda shuffle: source.batches("train", recipe.batch_size, shuffle),
            len(source.rows("train")),
            recipe,
            device=device,
            checkpoint=checkpoint,
            progress=progress,
        )


def accuracy(
    model: nn.Module, source: Source, split: Split = "test", *, device: torch.device, batch_size: int = 500
) -> Estimate:
    """The share of the split that the model, moved to `device`, classifies as labelled."""
    model.to(device)
    correct = total = 0
    with torch.no_grad():
        for batch in source.batches(split, batch_size):
            if batch.y is None:
                raise DataError(f"{source.spec.name!r} has no labels to compare predictions with")
            correct += int((model(batch.x.to(device)).argmax(1).cpu() == batch.y).sum())
            total += len(batch)
    return proportion(correct, total)
