"""What the detectors around a variational autoencoder share: training, scores, codes and new inputs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from typing import ClassVar, final

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from robustgen.data.hold_out import hold_out
from robustgen.data.rows import Rows
from robustgen.detectors.base import Detector
from robustgen.detectors.inferred import Inferences, Inferred
from robustgen.detectors.panel import Panel
from robustgen.errors import UsageError
from robustgen.models.likelihoods import LIKELIHOODS, likelihood
from robustgen.models.vae import VAE
from robustgen.registry import suggestion
from robustgen.runtime import seeded
from robustgen.training.descent import Recipe, TrainingProgress
from robustgen.training.plan import recipe
from robustgen.training.variational import train_vae, usage

Labels = Int64[Tensor, " n"] | None


class VariationalDetector(Detector, ABC):
    """A variational autoencoder trained on normal inputs. Subclasses say what it sees beside the input.

    `likelihood`: "bernoulli", "gaussian" (learnt scale), "fixed-gaussian" (scale 0.1), "logistic" (discretised, 256
    levels), or "auto": logistic for images from 16 x 16 up, else gaussian. `network`: "dense", "convolutional",
    "residual", or "auto" (convolutional from 16 x 16 up). `code`: the width of the code. `scores`: readings joined by
    "+" (see `panel`), or "auto". `draws`: how many codes are drawn for "elbo" and "iwae". `preset`, `epochs` and the
    inputs held out: as in `ReconstructionDetector`.
    """

    vae: VAE
    combination: Panel
    noise: Tensor
    used: Tensor
    by_default: ClassVar[str] = "density+knn"

    def __init__(
        self,
        likelihood: str = "auto",
        network: str = "auto",
        code: int = 16,
        scores: str = "auto",
        draws: int = 8,
        preset: str = "default",
        epochs: int | None = None,
        batch_size: int = 128,
        learning_rate: float = 2e-3,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if code < 1 or draws < 1:
            raise UsageError(f"code and draws must be at least 1, but code={code} and draws={draws} came")
        if likelihood not in (*LIKELIHOODS, "auto"):
            raise UsageError(suggestion(likelihood, (*LIKELIHOODS, "auto"), "likelihood"))
        self.likelihood, self.network, self.code, self.scores, self.draws = likelihood, network, code, scores, draws
        self.preset, self.epochs, self.batch_size = preset, epochs, batch_size
        self.learning_rate, self.seed = learning_rate, seed
        self._recipe(1)  # what is out of range is said now
        if likelihood in ("bernoulli", "logistic"):
            self.scale = "none"  # they are likelihoods of values in [0, 1]
        self.register_buffer("noise", torch.empty(0, code))
        self.register_buffer("used", torch.zeros(2))

    @abstractmethod
    def _labels(self) -> int | None:
        """How many labels the networks see; 0 for none, None while that is not known."""

    @abstractmethod
    def _packed(self, rows: Rows) -> Rows:
        """The rows with all that the networks see."""

    @abstractmethod
    def _unpacked(self, packed: Tensor) -> tuple[Tensor, Labels]:
        """Inputs and labels of packed rows."""

    @abstractmethod
    def _condition(self, x: Tensor, condition: Tensor | None) -> Labels:
        """The labels that inputs are judged against. Raises `UsageError` if they are needed and missing."""

    @final
    def _build(self, shape: tuple[int, ...]) -> None:
        device, image, classes = self._device, len(shape) == 3 and min(shape[1:]) >= 16, self._labels()
        if classes is None:
            return
        chosen = ("logistic" if image else "gaussian") if self.likelihood == "auto" else self.likelihood
        with seeded(self.seed):
            self.vae = VAE(self.network, shape, self.code, likelihood(chosen, shape), classes).to(device)
        names = self.by_default if self.scores == "auto" else self.scores
        self.combination = Panel(names, shape, labelled=classes > 0).to(device)
        half = torch.randn((self.draws + 1) // 2, self.code, generator=torch.Generator().manual_seed(self.seed))
        self.noise = torch.stack([half, -half], 1).flatten(0, 1)[: self.draws].to(device)

    @final
    def _fit(self, rows: Rows, progress: TrainingProgress | None) -> None:
        device, packed = self._device, self._packed(rows)
        if self._labels() is not None and self.shape is not None:
            self._build(self.shape)
        kept, held = hold_out(packed, seed=self.seed, device=device)
        train_vae(
            self.vae,
            kept,
            self._recipe(len(kept)),
            self._unpacked,
            device=device,
            held_out=held,
            checkpoint=self._checkpoint,
            progress=progress,
        )
        self.to(device).eval()
        with torch.no_grad():
            self.combination.prepare(self._inferences(kept, shuffled=True), self._inferences(held), self.seed)
            self.used = usage(self.vae, [self._unpacked(part.to(device)) for part in held.batches(512)]).to(device)

    def _recipe(self, n: int) -> Recipe:
        return recipe(
            self.preset,
            n,
            epochs=self.epochs,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            seed=self.seed,
        )

    def _inferences(self, rows: Rows, *, shuffled: bool = False) -> Inferences:
        def inferences() -> Iterator[Inferred]:
            for packed in rows.batches(512, torch.Generator().manual_seed(self.seed) if shuffled else None):
                x, y = self._unpacked(packed.to(self._device))
                yield Inferred(self.vae, x, self.noise, y)

        return inferences

    @final
    def _score(self, x: Tensor, condition: Tensor | None) -> Tensor:
        found: Tensor = self.combination(Inferred(self.vae, x, self.noise, self._condition(x, condition)))
        return found

    @final
    def _counterpart(self, x: Tensor) -> Tensor:
        if self._labels():  # without a label there is no reconstruction
            return super()._counterpart(x)
        return self.vae.likelihood.mean(self.vae.decode(self.vae.encode(x).mean))

    @final
    def panel(
        self, x: Float[Tensor, "n *shape"], condition: Tensor | None = None, names: Iterable[str] | None = None
    ) -> dict[str, Float[Tensor, " n"]]:
        """Each score by itself and by name, chosen or not: all of them, or those in `names`. "elbo" is the raw
        likelihood.
        """
        seen = self.standardised(x)
        return self.combination.each(Inferred(self.vae, seen, self.noise, self._condition(x, condition)), names)

    @final
    def encode(self, x: Float[Tensor, "n *shape"], condition: Tensor | None = None) -> Float[Tensor, "n k"]:
        """The mean of each input's posterior."""
        return self.vae.encode(self.standardised(x), self._condition(x, condition)).mean

    @final
    def decode(self, code: Float[Tensor, "n k"], condition: Tensor | None = None) -> Float[Tensor, "n *shape"]:
        """The input that is expected for each code."""
        return self.restored(self.vae.likelihood.mean(self.vae.decode(code, self._condition(code, condition))))

    @final
    def reconstruct(self, x: Float[Tensor, "n *shape"], condition: Tensor | None = None) -> Float[Tensor, "n *shape"]:
        """The input that is expected for each input's code."""
        return self.decode(self.encode(x, condition), condition)

    @final
    def sample(self, n: int, seed: int, condition: Tensor | None = None) -> Float[Tensor, "n *shape"]:
        """`n` new inputs: codes drawn from the prior by `seed`, through the decoder; of all classes in turn, where it
        has classes and no `condition` says which.
        """
        if n < 1:
            raise UsageError(f"at least 1 new input can be drawn, but n={n} came")
        code = torch.randn(n, self.code, generator=torch.Generator().manual_seed(seed)).to(self._device)
        if condition is None and self._labels():
            condition = torch.arange(n, device=code.device) % (self._labels() or 1)
        return self.decode(code.to(next(self.vae.parameters()).dtype), condition)
