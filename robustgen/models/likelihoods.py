"""What a decoder's output says of an input: log p(x | z), summed over the values of the input, never averaged.

A sum keeps the balance with the divergence of the code, which is a sum too: a mean would be a weight on one of them in
disguise.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import ClassVar, Literal, final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, logsigmoid

from robustgen.errors import UsageError

LEVELS = 256


class Likelihood(nn.Module, ABC):
    """p(x | z) with independent values, given the decoder's output of the input's own shape."""

    unit: ClassVar[Literal["level", "value", "none"]] = "value"
    """What `each` is a probability of: one of 256 levels, a density over values, or none that bits could measure."""

    @abstractmethod
    def each(self, x: Float[Tensor, "n *shape"], out: Float[Tensor, "n *shape"]) -> Float[Tensor, "n *shape"]:
        """log p of every value, in nats."""

    @abstractmethod
    def mean(self, out: Float[Tensor, "n *shape"]) -> Float[Tensor, "n *shape"]:
        """The expected input."""

    def forward(self, x: Float[Tensor, "n *shape"], out: Float[Tensor, "n *shape"]) -> Float[Tensor, " n"]:
        """log p(x | z), in nats."""
        return self.each(x, out).flatten(1).sum(1)


@final
class Bernoulli(Likelihood):
    """x log p + (1 - x) log(1 - p) with p = sigmoid(out) (Kingma, Welling 2014, appendix C.1).

    For values strictly between 0 and 1 this is no density: its numbers compare inputs, they are no bits per value.
    """

    unit = "none"

    def each(self, x: Tensor, out: Tensor) -> Tensor:
        return -binary_cross_entropy_with_logits(out, x, reduction="none")

    def mean(self, out: Tensor) -> Tensor:
        return out.sigmoid()


@final
class FixedGaussian(Likelihood):
    """N(x; out, scale^2), the same scale for every value."""

    def __init__(self, scale: float = 0.1) -> None:
        super().__init__()
        self.scale = scale

    def each(self, x: Tensor, out: Tensor) -> Tensor:
        return -0.5 * ((x - out) / self.scale).square() - math.log(self.scale) - 0.5 * math.log(2 * math.pi)

    def mean(self, out: Tensor) -> Tensor:
        return out


class _Scaled(Likelihood, ABC):
    """A scale learnt with the networks: one for each channel of an image, one for each column of a table."""

    def __init__(self, shape: tuple[int, ...], start: float, least: float) -> None:
        super().__init__()
        places = (shape[0], *(1 for _ in shape[1:])) if len(shape) == 3 else shape
        self.log_scale = nn.Parameter(torch.full(places, math.log(start)))
        self.least = math.log(least)

    @final
    def logarithm(self) -> Tensor:
        """log scale, bounded from below: on a constant column the likelihood would grow without end."""
        return self.log_scale.clamp(min=self.least)


@final
class Gaussian(_Scaled):
    """N(x; out, scale^2) with a learnt scale of at least 0.001 (Rybkin, Daniilidis, Levine 2021)."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__(shape, 0.3, 1e-3)

    def each(self, x: Tensor, out: Tensor) -> Tensor:
        log_scale = self.logarithm()
        return -0.5 * ((x - out) * (-log_scale).exp()).square() - log_scale - 0.5 * math.log(2 * math.pi)

    def mean(self, out: Tensor) -> Tensor:
        return out


@final
class DiscretisedLogistic(_Scaled):
    """The logistic distribution around `out`, cut into the 256 levels of a byte in [low, high] (Salimans, Karpathy,
    Chen, Kingma 2017, section 2.1), with a learnt scale; the outermost levels take the tails.
    """

    unit = "level"

    def __init__(self, shape: tuple[int, ...], low: float = 0.0, high: float = 1.0) -> None:
        super().__init__(shape, 0.1 * (high - low), 1e-3 * (high - low))
        self.low, self.high = low, high

    def each(self, x: Tensor, out: Tensor) -> Tensor:
        log_scale = self.logarithm()
        inverse = (-log_scale).exp()
        half = 0.5 * (self.high - self.low) / (LEVELS - 1)
        above, below = (x + half - out) * inverse, (x - half - out) * inverse
        # log(sigmoid(above) - sigmoid(below)) without cancellation; sigmoid is 1 at the upper end, 0 at the lower
        left = torch.where(x >= self.high - half, 0.0, logsigmoid(above))
        right = torch.where(x <= self.low + half, 0.0, logsigmoid(-below))
        inner = (x > self.low + half) & (x < self.high - half)
        width = (-torch.expm1(-2 * half * inverse)).log()
        return left + right + torch.where(inner, width, 0.0)

    def mean(self, out: Tensor) -> Tensor:
        return out.clamp(self.low, self.high)


LIKELIHOODS = ("bernoulli", "gaussian", "fixed-gaussian", "logistic")


def likelihood(name: str, shape: tuple[int, ...]) -> Likelihood:
    """One of `LIKELIHOODS` for inputs of `shape` in [0, 1]. Raises `UsageError` for another name."""
    if name not in LIKELIHOODS:
        raise UsageError(f"a likelihood is one of {', '.join(LIKELIHOODS)}, but {name!r} came")
    if name == "bernoulli":
        return Bernoulli()
    if name == "fixed-gaussian":
        return FixedGaussian()
    return Gaussian(shape) if name == "gaussian" else DiscretisedLogistic(shape)
