"""An autoencoder's reconstruction error and code, without further constraint."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import final

from torch import Tensor

from robustgen.detectors.reconstruction import ReconstructionDetector
from robustgen.training.terms import Term


@final
class AutoencoderDetector(ReconstructionDetector):
    """An autoencoder trained on normal inputs (Sakurada, Yairi 2014): see `ReconstructionDetector` for the options."""

    def _terms(self) -> Sequence[Term]:
        return ()

    def _corruption(self) -> Callable[[Tensor], Tensor] | None:
        return None
