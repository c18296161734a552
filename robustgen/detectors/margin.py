"""How narrowly the classifier's prediction won."""

from __future__ import annotations

from typing import final

from jaxtyping import Float
from torch import Tensor

from robustgen.detectors.outputs import OutputDetector


@final
class MarginDetector(OutputDetector):
    """Second largest logit minus the largest one, from minus infinity to 0: an attack that stops at the boundary, as
    those of least norm do, leaves a small margin (the loss f6 of Carlini, Wagner 2017, at the predicted class).
    """

    def _of(self, logits: Float[Tensor, "n classes"]) -> Float[Tensor, " n"]:
        best, second = logits.topk(2, dim=1).values.unbind(1)
        return second - best
