"""Networks trained to give back what they are given."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from robustgen.data.rows import Rows
from robustgen.runtime import fitting_threads
from robustgen.training.descent import Recipe, TrainingProgress, descend


def train_autoencoder(
    network: nn.Module, rows: Rows, recipe: Recipe, *, device: torch.device, progress: TrainingProgress | None = None
) -> list[float]:
    """Minimise the mean squared reconstruction error of `rows`; returns each epoch's mean loss."""

    def loss(model: nn.Module, x: Tensor, step: int) -> Tensor:
        error: Tensor = (model(x) - x).square().flatten(1).mean(1)
        return error

    with fitting_threads(device, math.prod(rows.shape)):
        return descend(
            network,
            loss,
            lambda shuffle: rows.batches(recipe.batch_size, shuffle),
            len(rows),
            recipe,
            device=device,
            progress=progress,
        )
