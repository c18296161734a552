"""How little speaks for any class."""

from __future__ import annotations

from typing import final

from jaxtyping import Float
from torch import Tensor

from robustgen.detectors.outputs import OutputDetector, require_temperature


@final
class EnergyDetector(OutputDetector):
    """-T log sum_k exp(f_k / T), the free energy of the logits f at `temperature` T (Liu, Wang, Owens, Li 2020,
    "Energy-based out-of-distribution detection"): the lower, the likelier the input under the density that the
    classifier stands for.
    """

    def __init__(self, temperature: float = 1.0) -> None:
        super().__init__()
        self.temperature = require_temperature(temperature)

    def _of(self, logits: Float[Tensor, "n classes"]) -> Float[Tensor, " n"]:
        return -self.temperature * (logits / self.temperature).logsumexp(1)
