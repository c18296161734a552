"""How unsure the classifier is of its prediction."""

from __future__ import annotations

from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from robustgen.detectors.outputs import OutputDetector, require_temperature


@final
class MaxSoftmaxDetector(OutputDetector):
    """log((1 - p) / p), with p the largest softmax probability of the logits over `temperature` (Hendrycks, Gimpel
    2017; temperatures above 1 after Liang, Li, Srikant 2018).

    It orders inputs as 1 - p does, but tells them apart, and has a gradient, where float32 rounds p to 1.
    """

    def __init__(self, temperature: float = 1.0) -> None:
        super().__init__()
        self.temperature = require_temperature(temperature)

    def _of(self, logits: Float[Tensor, "n classes"]) -> Float[Tensor, " n"]:
        scaled = logits / self.temperature
        best, which = scaled.max(1)
        return scaled.scatter(1, which[:, None], -torch.inf).logsumexp(1) - best
