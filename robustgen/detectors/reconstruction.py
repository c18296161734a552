"""What the detectors around an autoencoder share: training, and scores made of its error and its code."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from robustgen.data.hold_out import hold_out
from robustgen.data.rows import Rows
from robustgen.detectors.base import Detector
from robustgen.detectors.combination import Combination
from robustgen.detectors.parts import View, Views
from robustgen.errors import UsageError
from robustgen.models.autoencoder import autoencoder
from robustgen.runtime import seeded
from robustgen.training.descent import Recipe, TrainingProgress
from robustgen.training.plan import recipe
from robustgen.training.reconstruction import train_autoencoder
from robustgen.training.terms import Term


class ReconstructionDetector(Detector, ABC):
    """An autoencoder trained on normal inputs. Subclasses say what it is trained on beside the reconstruction error.

    `network`: "dense" (or with its hidden layers, "dense:128,64"), "convolutional", "residual", or "auto"
    (convolutional from 16 x 16 up). `code`: the width of the code, None = 16 for images from 16 x 16 up, else 32.
    `scores`: parts of the score joined by "+" (see `parts`), or "auto": "gms+knn+edges" for such images, else "l2".
    `preset`: how long to train, "fast", "default" or "best" (see
    `training.plan`); `epochs`: passes through the data instead, None = as the preset says. About a tenth of the
    training inputs, at most about 2,000, is held out: they choose the epoch whose weights are kept, end a training that
    no longer gets better, and measure the parts of the score.
    """

    autoencoder: nn.Module
    combination: Combination

    def __init__(
        self,
        network: str = "auto",
        code: int | None = None,
        scores: str = "auto",
        preset: str = "default",
        epochs: int | None = None,
        batch_size: int = 128,
        learning_rate: float = 2e-3,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if code is not None and code < 1:
            raise UsageError(f"code must be at least 1, but {code} came")
        self.network, self.code, self.scores = network, code, scores
        self.preset, self.epochs, self.batch_size = preset, epochs, batch_size
        self.learning_rate, self.seed = learning_rate, seed
        self._recipe(1)  # what is out of range is said now

    @abstractmethod
    def _terms(self) -> Sequence[Term]:
        """What is added to the reconstruction error in training."""

    @abstractmethod
    def _corruption(self) -> Callable[[Tensor], Tensor] | None:
        """What spoils the inputs in training."""

    @final
    def _build(self, shape: tuple[int, ...]) -> None:
        device, image = self._device, len(shape) == 3 and min(shape[1:]) >= 16
        with seeded(self.seed):
            self.autoencoder = autoencoder(self.network, shape, self.code or (16 if image else 32)).to(device)
        # on 8 x 8 digits the squared error alone catches more attacks than with either of the others
        names = ("gms+knn+edges" if image else "l2") if self.scores == "auto" else self.scores
        self.combination = Combination(names, shape).to(device)

    @final
    def _fit(self, rows: Rows, progress: TrainingProgress | None) -> None:
        device = self._device
        kept, held = hold_out(rows, seed=self.seed, device=device)
        train_autoencoder(
            self.autoencoder,
            kept,
            self._recipe(len(kept)),
            device=device,
            terms=self._terms(),
            corrupt=self._corruption(),
            held_out=held,
            checkpoint=self._checkpoint,
            progress=progress,
        )
        self.to(device).eval()
        with torch.no_grad():
            self.combination.prepare(self._views(kept), self._views(held), self.seed)

    def _recipe(self, n: int) -> Recipe:
        return recipe(
            self.preset,
            n,
            epochs=self.epochs,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            seed=self.seed,
        )

    def _views(self, rows: Rows) -> Views:
        def views() -> Iterator[View]:
            for x in rows.batches(512):
                yield self._view(x.to(self._device))

        return views

    def _view(self, x: Tensor) -> View:
        code = self.autoencoder.get_submodule("encoder")(x)
        return View(x, self.autoencoder.get_submodule("decoder")(code), code)

    @final
    def encode(self, x: Float[Tensor, "n *shape"]) -> Float[Tensor, "n k"]:
        """The code of each input."""
        code: Tensor = self.autoencoder.get_submodule("encoder")(self.standardised(x))
        return code

    @final
    def decode(self, code: Float[Tensor, "n k"]) -> Float[Tensor, "n *shape"]:
        """What the autoencoder takes each code for."""
        return self.restored(self.autoencoder.get_submodule("decoder")(code))

    @final
    def reconstruct(self, x: Float[Tensor, "n *shape"]) -> Float[Tensor, "n *shape"]:
        """What the autoencoder makes of each input."""
        return self.restored(self._view(self.standardised(x)).back)

    @final
    def _score(self, x: Tensor, condition: Tensor | None) -> Tensor:
        found: Tensor = self.combination(self._view(x))
        return found

    @final
    def _map(self, x: Tensor, condition: Tensor | None) -> Tensor:
        encoder = self.autoencoder.get_submodule("encoder")
        return self.combination.explain(self._view(x), lambda z: View(z, z, encoder(z)))
