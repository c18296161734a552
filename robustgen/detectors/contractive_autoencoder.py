"""An autoencoder whose code hardly moves with its input."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import final

from torch import Tensor

from robustgen.detectors.reconstruction import ReconstructionDetector
from robustgen.errors import UsageError
from robustgen.training.terms import Contraction, Term


@final
class ContractiveAutoencoderDetector(ReconstructionDetector):
    """An autoencoder with a penalty on how fast the code changes (Rifai et al. 2011), times `weight`.

    The squared Jacobian, exact for codes of up to 8 values, else estimated. For the other options see
    `ReconstructionDetector`.
    """

    def __init__(
        self,
        weight: float = 1e-3,
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
        if weight < 0:
            raise UsageError(f"weight is a number from 0 up, but {weight:g} came")
        self.weight = weight

    def _terms(self) -> Sequence[Term]:
        return (Contraction(self.weight),)

    def _corruption(self) -> Callable[[Tensor], Tensor] | None:
        return None
