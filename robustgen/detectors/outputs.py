"""What the detectors share whose score is a function of the classifier's logits and nothing else."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from robustgen.data.rows import Rows
from robustgen.detectors.watching import WatchingDetector
from robustgen.errors import UsageError
from robustgen.training.descent import TrainingProgress


class OutputDetector(WatchingDetector, ABC):
    """A function of logits. It has nothing to learn: training inputs show whether the classifier takes them."""

    @abstractmethod
    def _of(self, logits: Float[Tensor, "n classes"]) -> Float[Tensor, " n"]:
        """The score."""

    @final
    def _fit(self, rows: Rows, progress: TrainingProgress | None) -> None:
        with torch.no_grad():
            self.logits(next(rows.batches(8)).to(self._device))

    @final
    def _score(self, x: Tensor, condition: Tensor | None) -> Tensor:
        return self._of(self.logits(x))


def require_temperature(temperature: float) -> float:
    """`temperature`, if it is above 0. Raises `UsageError` if not."""
    if not 0 < temperature < float("inf"):
        raise UsageError(f"a temperature is a number above 0, but {temperature:g} came")
    return temperature
