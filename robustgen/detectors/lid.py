"""Local intrinsic dimensionality inside a classifier."""

from __future__ import annotations

from typing import final

from torch import Tensor

from robustgen.detectors.bank import BankDetector
from robustgen.detectors.neighbours import nearest
from robustgen.errors import UsageError

_BLUR = 0.01  # the logarithm of the distance from an input to itself would be one of rounding
_LEAST = 1e-3  # of the mean log ratio: neighbours that are all equally far lie in at most a thousand dimensions


@final
class LIDDetector(BankDetector):
    """The local intrinsic dimensionality of the training inputs around an input, in layers of the classifier, by
    maximum likelihood (Ma et al. 2018, "Characterizing adversarial subspaces using local intrinsic dimensionality"): 1
    / mean over i of log(r_k / r_i), of the distances r_1 to r_k to the `k` nearest of the bank.

    The paper takes neighbours from the batch and learns weights of layers from attacks; here the bank is fixed, so that
    a score does not depend on a batch, and layers are summed. A bank is larger than a batch, hence the larger `k`. A
    hundredth of the median distance of an input to its nearest neighbour is added to each r in quadrature. For the rest
    see `BankDetector`.
    """

    _name = "lid"

    def __init__(self, layers: str = "auto", k: int = 100, most: int = 4000, seed: int = 0) -> None:
        super().__init__(layers, most, seed)
        if k < 2:
            raise UsageError(f"a dimensionality takes at least 2 neighbours, but k={k} came")
        self.k = k

    def _widths(self, held: Tensor, label: Tensor, number: int) -> Tensor:
        # the second, for where the inputs are those of the bank
        return nearest(held, self.bank(number), 2)[0][:, -1].median().clamp_min(1e-6)

    def _readings(self, h: Tensor, label: Tensor, number: int) -> list[Tensor]:
        near = nearest(h, self.bank(number).to(h.dtype), self.k)[0]
        near = (near.square() + (_BLUR * self.width(number).to(h.dtype)) ** 2).sqrt()
        return [1 / (near[:, -1:] / near).log().mean(1).clamp_min(_LEAST)]
