"""The radial basis function kernel, exp(-gamma ||x - b||^2)."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor


def usual_gamma(x: Float[Tensor, "n d"]) -> float:
    """1 / (d times the mean variance): a pair of training inputs is some 2 / gamma apart, squared."""
    return 1 / max(float(x.var(0, correction=0).sum()), 1e-12)


def kernel_exponents(
    x: Float[Tensor, "n d"], bank: Float[Tensor, "m d"], gamma: Float[Tensor, ""]
) -> Float[Tensor, "n m"]:
    """-gamma ||x - b||^2 of every pair.

    By the expansion around the bank's centre, which costs no (n, m, d) values; what rounding makes positive counts as
    0.
    """
    centre = bank.mean(0)
    x, bank = x - centre, bank - centre
    squares = x.square().sum(1, keepdim=True) + bank.square().sum(1) - 2 * x @ bank.T
    return -gamma * squares.clamp_min(0)
