"""How dense the predicted class is around an input in the last hidden layer of a classifier."""

from __future__ import annotations

import math
from typing import final

import torch
from torch import Tensor

from robustgen.detectors.bank import BankDetector
from robustgen.detectors.dropout import Thinned, spread
from robustgen.detectors.neighbours import nearest
from robustgen.errors import UsageError

_LEAST = 1e-12  # of a variance, so that its logarithm is finite where all passes agree


@final
class KernelDensityDetector(BankDetector):
    """The negative log density of the predicted class (the score's condition) at an input, by a Gaussian kernel on the
    training inputs of that class in the last hidden layer (Feinman, Curtin, Shintre, Gardner 2017, "Detecting
    adversarial samples from artifacts"): log n_c - log sum exp(-d^2 / 2 b^2), less the kernel's constant.

    `bandwidth`: b; 0 = of b_0 2^(j/2), j from -4 to 8, the one under which other training inputs are likeliest in their
    own classes (b_0 = their median distance to the nearest of the bank); the authors' are constants found by
    cross-validation. With several `layers` each has its bandwidth. For the rest see `BankDetector`.

    `passes`: 0 = the density alone. Otherwise the paper's other half too, Bayesian uncertainty: the log variance of
    what so many networks say that dropout makes of the classifier (`Thinned`; the authors have 50), each a pass of the
    classifier. Density and uncertainty are added in deviations from their medians on normal inputs. The paper weighs
    them by a logistic regression on attacked inputs instead, of the very attack that it then detects. Raises
    `UsageError` for a classifier without dropout layers.
    """

    conditional = True
    _name = "kernel-density"

    def __init__(
        self, layers: str = "last", bandwidth: float = 0.0, passes: int = 0, most: int = 4000, seed: int = 0
    ) -> None:
        super().__init__(layers, most, seed)
        if passes < 0 or passes == 1:
            raise UsageError(f"a variance needs at least 2 passes, and 0 is none, but passes={passes} came")
        self.passes = passes
        if not 0 <= bandwidth < float("inf"):
            raise UsageError(f"a bandwidth is above 0, or 0 for the likeliest, but {bandwidth:g} came")
        self.bandwidth = bandwidth

    def _widths(self, held: Tensor, label: Tensor, number: int) -> Tensor:
        if self.bandwidth:
            return torch.full((), self.bandwidth, device=held.device)
        bank = self.bank(number)
        # the second, for where the inputs are those of the bank
        start = nearest(held, bank, 2)[0][:, -1].median().clamp_min(1e-6)
        squares, found = self._squares(held, label, number), []
        widths = [start * 2 ** (j / 2) for j in range(-4, 9)]
        for width in widths:
            log_density = (-squares / (2 * width**2)).logsumexp(1) - held.shape[1] * width.log()
            found.append(float(log_density.mean()))
        return widths[max(range(len(found)), key=found.__getitem__)]

    def _readings(self, h: Tensor, label: Tensor, number: int) -> list[Tensor]:
        squares, b = self._squares(h, label, number), self.width(number).to(h.dtype)
        return [self.counts[label].to(h.dtype).log() - (-squares / (2 * b**2)).logsumexp(1)]

    def _beside(self, x: Tensor) -> list[Tensor]:
        if not self.passes:
            return []
        return [(spread(Thinned(self.classifier, self.passes, self.seed)(x)) + _LEAST).log()]

    def _squares(self, h: Tensor, label: Tensor, number: int) -> Tensor:
        """(n, m) squared distances to the bank, infinite to those of other labels."""
        bank = self.bank(number).to(h.dtype)
        centre = bank.mean(0)  # digits are lost for features that lie far from 0
        h, bank = h - centre, bank - centre
        squares = h.square().sum(1, keepdim=True) + bank.square().sum(1) - 2 * h @ bank.T
        return squares.masked_fill(self.labels != label[:, None], math.inf)
