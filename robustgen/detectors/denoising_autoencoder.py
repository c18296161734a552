"""An autoencoder that has learnt to take noise away."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import final

from torch import Tensor

from robustgen.detectors.reconstruction import ReconstructionDetector
from robustgen.errors import UsageError
from robustgen.registry import suggestion
from robustgen.training.terms import CORRUPTIONS, Corruption, Term, corruption


@final
class DenoisingAutoencoderDetector(ReconstructionDetector):
    """An autoencoder trained to give normal inputs back from corrupted ones (Vincent et al. 2010).

    `noise`: "gaussian" of standard deviation `amount`, "masking" or "salt-and-pepper" of a share `amount` of the
    values. Scores are those of the uncorrupted input. For the other options see `ReconstructionDetector`.
    """

    def __init__(
        self,
        noise: Corruption = "gaussian",
        amount: float = 0.1,
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
        if noise not in CORRUPTIONS:
            raise UsageError(suggestion(noise, CORRUPTIONS, "noise"))
        if not amount >= 0 or (noise != "gaussian" and amount > 1):
            raise UsageError(f"the amount of noise is a number from 0 up, or a share of values, but {amount:g} came")
        self.noise, self.amount = noise, amount

    def _terms(self) -> Sequence[Term]:
        return ()

    def _corruption(self) -> Callable[[Tensor], Tensor] | None:
        return corruption(self.noise, self.amount)
