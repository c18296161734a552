"""Whether the classifier says the same once noise was added to an input and taken away again."""

from __future__ import annotations

from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from robustgen.data.hold_out import hold_out
from robustgen.data.rows import Rows
from robustgen.detectors.magnet import jeffreys
from robustgen.detectors.outputs import require_temperature
from robustgen.detectors.watching import WatchingDetector
from robustgen.errors import UsageError
from robustgen.models.image_to_image import ResNetGenerator, require_images
from robustgen.runtime import seeded
from robustgen.training.descent import Recipe, TrainingProgress
from robustgen.training.plan import recipe
from robustgen.training.reconstruction import train_autoencoder
from robustgen.training.terms import corruption


@final
class DenoiseConsistencyDetector(WatchingDetector):
    """J(f(x) / T, f(D(x + s e)) / T), averaged over `draws` of noise e ~ N(0, 1): a denoiser D, trained to give normal
    images in [0, 1] back from such noise, takes a step of purification (Nie et al. 2022, "Diffusion models for
    adversarial purification", in one step), and the two answers of the classifier f are compared by Jeffreys'
    divergence J, in nats (Meng, Chen 2017, have Jensen-Shannon's, which flattens).

    `noise`: s, the noise level; `draws`: of noise, the same ones for every input, drawn by `seed`, so that a score does
    not depend on its batch or on chance. `temperature`: T. `width`: channels of the denoiser's first level. `preset`
    and the rest: as for `autoencoder`.
    """

    denoiser: nn.Module
    drawn: Tensor

    def __init__(
        self,
        noise: float = 0.1,
        draws: int = 2,
        temperature: float = 1.0,
        width: int = 8,
        preset: str = "fast",
        epochs: int | None = None,
        batch_size: int = 128,
        learning_rate: float = 4e-3,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if min(draws, width) < 1 or not 0 < noise < float("inf"):
            raise UsageError(
                f"noise is above 0, draws and width are at least 1, but {noise:g}, {draws} and {width} came"
            )
        self.noise, self.draws, self.temperature, self.width = noise, draws, require_temperature(temperature), width
        self.preset, self.epochs, self.batch_size = preset, epochs, batch_size
        self.learning_rate, self.seed = learning_rate, seed
        self._recipe(1)  # what is out of range is said now

    def _recipe(self, n: int) -> Recipe:
        return recipe(
            self.preset,
            n,
            epochs=self.epochs,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            seed=self.seed,
        )

    def _build(self, shape: tuple[int, ...]) -> None:
        require_images(shape, "denoise-consistency")
        with seeded(self.seed):
            self.denoiser = _Denoiser(shape, self.width).to(self._device)
        noise = torch.randn(self.draws, *shape, generator=torch.Generator().manual_seed(self.seed))
        self.register_buffer("drawn", (self.noise * noise).to(self._device))

    def _fit(self, rows: Rows, progress: TrainingProgress | None) -> None:
        with torch.no_grad():
            self.logits(next(rows.batches(8)).to(self._device))
        kept, held = hold_out(rows, seed=self.seed, device=self._device)
        train_autoencoder(
            self.denoiser,
            kept,
            self._recipe(len(kept)),
            device=self._device,
            corrupt=corruption("gaussian", self.noise),
            held_out=held,
            checkpoint=self._checkpoint,
            progress=progress,
        )
        self.to(self._device)

    def denoised(self, x: Float[Tensor, "n c h w"], noise: Float[Tensor, "c h w"]) -> Float[Tensor, "n c h w"]:
        """What the denoiser makes of the inputs with `noise` on them."""
        made: Tensor = self.denoiser(x + noise.to(x.dtype))
        return made

    def _score(self, x: Tensor, condition: Tensor | None) -> Tensor:
        before = self.logits(x) / self.temperature
        found = [jeffreys(before, self.logits(self.denoised(x, noise)) / self.temperature) for noise in self.drawn]
        return torch.stack(found).mean(0)


@final
class _Denoiser(nn.Module):
    """A network of images in the form that `train_autoencoder` takes."""

    def __init__(self, shape: tuple[int, ...], width: int) -> None:
        super().__init__()
        self.encoder, self.decoder = nn.Identity(), ResNetGenerator(shape, width=width)

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.decoder(self.encoder(x))
        return made
