"""Networks trained to give back what they are given."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from robustgen.data.rows import Rows
from robustgen.runtime import fitting_threads
from robustgen.training.descent import Recipe, TrainingProgress, descend
from robustgen.training.terms import Term


class _Losses(nn.Module):
    """(n,) losses in one forward pass, so that several processes share them as they share any network."""

    def __init__(self, network: nn.Module, terms: Sequence[Term], corrupt: Callable[[Tensor], Tensor] | None) -> None:
        super().__init__()
        self.network: Any = network
        self.terms, self.corrupt = terms, corrupt

    def forward(self, x: Tensor) -> Tensor:
        given = x if self.corrupt is None else self.corrupt(x)
        code = self.network.encoder(given)
        losses: Tensor = (self.network.decoder(code) - x).square().flatten(1).mean(1)
        for term in self.terms:
            losses = losses + term(self.network.encoder, given, code)
        return losses


def train_autoencoder(
    network: nn.Module,
    rows: Rows,
    recipe: Recipe,
    *,
    device: torch.device,
    terms: Sequence[Term] = (),
    corrupt: Callable[[Tensor], Tensor] | None = None,
    held_out: Rows | None = None,
    checkpoint: Path | None = None,
    progress: TrainingProgress | None = None,
) -> list[float]:
    """Minimise the mean squared error between `rows` and what the autoencoder `network` (with `encoder` and `decoder`)
    makes of them, or of what `corrupt` makes of them, plus the `terms`; returns each epoch's mean loss.

    `held_out`: rows whose mean squared error chooses the epoch, and stops training if the recipe has patience.
    """

    def validate(model: Any) -> float:
        assert held_out is not None
        total = torch.zeros((), device=device)
        for x in held_out.batches(512):
            here = x.to(device)
            back = model.network.decoder(model.network.encoder(here))
            total += (back - here).square().flatten(1).mean(1).sum()
        return total.item() / len(held_out)

    def loss(model: nn.Module, x: Tensor, step: int) -> Tensor:
        losses: Tensor = model(x)
        return losses

    with fitting_threads(device, math.prod(rows.shape)):
        return descend(
            _Losses(network, terms, corrupt),
            loss,
            lambda shuffle: rows.batches(recipe.batch_size, shuffle),
            len(rows),
            recipe,
            device=device,
            validate=None if held_out is None else validate,
            checkpoint=checkpoint,
            progress=progress,
        )
