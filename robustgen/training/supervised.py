"""Classifiers: plain and adversarial training, and their accuracy."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor, nn

from robustgen.data.source import Batch, Source, Split
from robustgen.errors import DataError
from robustgen.metrics import Estimate, proportion
from robustgen.objectives import Model, cross_entropy, divergence
from robustgen.runtime import fitting_threads
from robustgen.training.descent import Recipe, TrainingProgress, descend


@dataclass(frozen=True)
class Adversary:
    """What adversarial training trains against: `attack`, (model, x, y, seed) -> x_adv.

    `beta`: None = the loss is the cross-entropy on the adversarial inputs alone (Madry 2018, eq. 2.1). A number from 0
    up = the cross-entropy on the clean inputs, plus beta times the divergence of what the model says of the adversarial
    ones from what it says of the clean ones (TRADES; Zhang et al. 2019, eq. 5): the higher, the more robust and the
    less accurate.
    """

    attack: Callable[[Model, Tensor, Tensor, int], Tensor]
    beta: float | None = None

    def loss(self, model: nn.Module, network: nn.Module, x: Tensor, y: Tensor, seed: int) -> Tensor:
        """(n,) losses. `model`: `network` as it is trained, which over several processes is wrapped."""
        if self.beta == 0:
            return cross_entropy(model(x), y)
        x_adv = self.attack(network, x, y, seed)
        if self.beta is None:
            return cross_entropy(model(x_adv), y)
        clean, attacked = model(torch.cat([x, x_adv])).chunk(2)  # one pass: batch norm sees both kinds at once
        return cross_entropy(clean, y) + self.beta * divergence(clean, attacked)


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

    With an `adversary`, by its loss in place of that. Raises `DataError` without labels or with one class only.
    """
    check_labels(source)

    def loss(model: nn.Module, batch: Batch, step: int) -> Tensor:
        assert batch.y is not None  # check_labels has seen to it
        if adversary is None:
            return cross_entropy(model(batch.x), batch.y)
        return adversary.loss(model, network, batch.x, batch.y, recipe.seed * 1_000_003 + step)

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
