"""Whose neighbour an input is inside a classifier."""

from __future__ import annotations

from typing import final

from torch import Tensor

from robustgen.detectors.bank import BankDetector
from robustgen.detectors.neighbours import nearest
from robustgen.errors import UsageError


@final
class DeepKNNDetector(BankDetector):
    """The share of nearest training inputs whose label is not the predicted one (the score's condition), in layers of
    the classifier (Papernot, McDaniel 2018, "Deep k-nearest neighbors": their nonconformity), in a soft form with
    gradients.

    Per layer two readings: the log odds of the share of other labels, log sum exp(-d / t) over the `k` nearest of other
    labels less the same over the `k` nearest of the predicted label; and d to the nearest of the predicted label. A
    count would have no gradient, and a share none where it is 0 or 1. t is `temperature` times the median distance of
    an input to its nearest neighbour. `measure`: "euclidean", or "cosine" for features of length 1, as the paper's
    search compares them. Fewer than `k` if a class has fewer. The paper's p-values come with calibration.
    For the rest see `BankDetector`.
    """

    conditional = True
    _name = "deep-knn"

    def __init__(
        self,
        layers: str = "auto",
        k: int = 10,
        measure: str = "cosine",
        temperature: float = 1.0,
        most: int = 4000,
        seed: int = 0,
    ) -> None:
        super().__init__(layers, most, seed)
        if measure not in ("euclidean", "cosine"):
            raise UsageError(f"measure is euclidean or cosine, but {measure!r} came")
        if k < 1 or not 0 < temperature < float("inf"):
            raise UsageError(f"k is at least 1 and temperature above 0, but {k} and {temperature:g} came")
        self.k, self.measure, self.temperature = k, measure, temperature

    def _widths(self, held: Tensor, label: Tensor, number: int) -> Tensor:
        bank = self._measured(self.bank(number))
        # the second, for where the inputs are those of the bank
        near = nearest(self._measured(held), bank, 2)[0][:, -1]
        return self.temperature * near.median().clamp_min(1e-6)

    def _readings(self, h: Tensor, label: Tensor, number: int) -> list[Tensor]:
        h, bank = self._measured(h), self._measured(self.bank(number).to(h.dtype))
        own = self.labels == label[:, None]
        ours, theirs = nearest(h, bank, self.k, own)[0], nearest(h, bank, self.k, ~own)[0]
        t = self.width(number).to(h.dtype)
        return [(-theirs / t).logsumexp(1) - (-ours / t).logsumexp(1), ours[:, 0]]

    def _measured(self, h: Tensor) -> Tensor:
        if self.measure == "euclidean":
            return h
        return h / h.square().sum(1, keepdim=True).clamp_min(1e-12).sqrt()
