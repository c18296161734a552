"""How little speaks for the classifier's prediction."""

from __future__ import annotations

from typing import final

from jaxtyping import Float
from torch import Tensor

from robustgen.detectors.outputs import OutputDetector


@final
class MaxLogitDetector(OutputDetector):
    """Minus the largest logit (Hendrycks et al. 2022, "Scaling out-of-distribution detection for real-world
    settings").
    """

    def _of(self, logits: Float[Tensor, "n classes"]) -> Float[Tensor, " n"]:
        return -logits.amax(1)
