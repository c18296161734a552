"""An input, what a variational autoencoder infers from it, and what follows from that."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import final

import torch
from torch import Tensor

from robustgen.detectors.parts import View
from robustgen.models.vae import VAE, Posterior


@final
class Inferred:
    """n inputs, their posterior, and what follows from it. What is not asked for is not computed.

    `noise` (draws, k) is standard normal and the same for every input, so that an input's score depends neither on its
    batch nor, but smoothly, on itself.
    """

    def __init__(self, network: VAE, x: Tensor, noise: Tensor, y: Tensor | None = None) -> None:
        self.network, self.x, self.noise, self.y = network, x, noise.to(x.dtype), y

    @cached_property
    def posterior(self) -> Posterior:
        return self.network.encode(self.x, self.y)

    @cached_property
    def divergence(self) -> Tensor:
        return self.posterior.divergence()

    @cached_property
    def out(self) -> Tensor:
        """What the decoder makes of the posterior's mean."""
        return self.network.decode(self.posterior.mean, self.y)

    @cached_property
    def error(self) -> Tensor:
        """-log p(x | z) at the posterior's mean."""
        known: Tensor = self.network.likelihood(self.x, self.out)
        return -known

    @cached_property
    def view(self) -> View:
        return View(self.x, self.network.likelihood.mean(self.out), self.posterior.mean)

    @cached_property
    def conditionals(self) -> Tensor:
        """(draws, n): log p(x | z) of each code drawn."""
        return self.log_likelihoods(self.posterior, self.noise)

    def log_likelihoods(self, posterior: Posterior, noise: Tensor) -> Tensor:
        """(draws, n): log p(x | z) of the codes that `noise` makes."""
        likelihood, decode = self.network.likelihood, self.network.decode
        return torch.stack([likelihood(self.x, decode(posterior.draw(row), self.y)) for row in noise])

    @cached_property
    def bound(self) -> Tensor:
        """The evidence lower bound: the mean of log p(x | z) over the draws, minus KL(q || prior)."""
        return self.conditionals.mean(0) - self.divergence

    @cached_property
    def evidence(self) -> Tensor:
        """log of the mean of p(x | z) p(z) / q(z | x) over the draws (Burda, Grosse, Salakhutdinov 2016, eq. 8)."""
        codes = self.posterior.draw(self.noise[:, None])
        prior = -0.5 * codes.square().sum(2)
        own = -0.5 * (self.noise.square().sum(1)[:, None] + self.posterior.log_variance.sum(1))
        weights = self.conditionals + prior - own
        return weights.logsumexp(0) - math.log(len(self.noise))


Inferences = Callable[[], Iterator[Inferred]]
"""Goes through normal inputs once, without gradients."""


def first(inferences: Inferences, n: int) -> Iterator[Inferred]:
    """The first ones, about `n` inputs in all."""
    seen = 0
    for inferred in inferences():
        yield inferred
        seen += len(inferred.x)
        if seen >= n:
            return
