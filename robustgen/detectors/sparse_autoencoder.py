"""An autoencoder whose code is mostly off."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import final

from torch import Tensor

from robustgen.detectors.reconstruction import ReconstructionDetector
from robustgen.errors import UsageError
from robustgen.registry import suggestion
from robustgen.training.terms import AbsoluteCode, RareCode, Term


@final
class SparseAutoencoderDetector(ReconstructionDetector):
    """An autoencoder with a sparse code (Ng 2011): `weight` times the code's mean size is added to the loss.

    `penalty`: "l1", the mean |code|, or "kl", the divergence of each unit's mean activity from a `rate`. For the other
    options see `ReconstructionDetector`.
    """

    def __init__(
        self,
        penalty: str = "l1",
        weight: float = 1e-3,
        rate: float = 0.05,
        network: str = "auto",
        code: int | None = None,
        scores: str = "auto",
        preset: str = "default",
        epochs: int | None = None,
        batch_size: int = 128,
        learning_rate: float = 2e-3,
        seed: int = 0,
    ) -> None:
        super().__init__(network, code, scores, preset, epochs, batch_size, learning_rate, seed)
        if penalty not in ("l1", "kl"):
            raise UsageError(suggestion(penalty, ("l1", "kl"), "penalty"))
        if weight < 0 or not 0 < rate < 1:
            raise UsageError(f"weight is from 0 up and rate between 0 and 1, but {weight:g} and {rate:g} came")
        self.penalty, self.weight, self.rate = penalty, weight, rate

    def _terms(self) -> Sequence[Term]:
        return (AbsoluteCode(self.weight) if self.penalty == "l1" else RareCode(self.weight, self.rate),)

    def _corruption(self) -> Callable[[Tensor], Tensor] | None:
        return None
