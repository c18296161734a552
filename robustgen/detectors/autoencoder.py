"""Reconstruction error of an autoencoder."""

from __future__ import annotations

import math
from typing import final

from jaxtyping import Float
from torch import Tensor, nn

from robustgen.data.rows import Rows
from robustgen.detectors.base import Detector
from robustgen.errors import UsageError
from robustgen.models.autoencoder import autoencoder
from robustgen.runtime import seeded
from robustgen.training.descent import Recipe, TrainingProgress
from robustgen.training.reconstruction import train_autoencoder


@final
class AutoencoderDetector(Detector):
    """||x - decode(encode(x))||^2 / d of an autoencoder trained on normal inputs (Sakurada, Yairi 2014).

    `network`: "dense", "convolutional", or "auto" (convolutional from 16 x 16 up). `code`: the width of the code.
    `epochs`: passes through the data; None = as many as make 2,000 steps of `batch_size`, at least 5 and at most 200.
    """

    autoencoder: nn.Module

    def __init__(
        self,
        network: str = "auto",
        code: int = 32,
        epochs: int | None = None,
        batch_size: int = 128,
        learning_rate: float = 2e-3,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if code < 1 or (epochs is not None and epochs < 1):
            raise UsageError(f"code and epochs must be at least 1, but code={code} and epochs={epochs} came")
        self.network, self.code, self.epochs = network, code, epochs
        self.batch_size, self.learning_rate, self.seed = batch_size, learning_rate, seed

    def _build(self, shape: tuple[int, ...]) -> None:
        device = self._device
        with seeded(self.seed):
            self.autoencoder = autoencoder(self.network, shape, self.code).to(device)

    def _fit(self, rows: Rows, progress: TrainingProgress | None) -> None:
        device = self._device
        epochs = self.epochs or min(200, max(5, math.ceil(2000 * self.batch_size / len(rows))))
        recipe = Recipe(
            epochs=epochs,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            weight_decay=0.0,
            seed=self.seed,
        )
        train_autoencoder(self.autoencoder, rows, recipe, device=device, progress=progress)
        self.to(device)

    def reconstruct(self, x: Float[Tensor, "n *shape"]) -> Float[Tensor, "n *shape"]:
        """What the autoencoder makes of each input."""
        out: Tensor = self.autoencoder(x)
        return out

    def _score(self, x: Tensor, condition: Tensor | None) -> Tensor:
        return (x - self.reconstruct(x)).square().flatten(1).mean(1)
