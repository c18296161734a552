"""Variational autoencoders: a code with a known distribution, and what each code says of an input."""

from __future__ import annotations

from math import prod
from typing import NamedTuple, final

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from robustgen.models.autoencoder import autoencoder
from robustgen.models.likelihoods import Likelihood

_MOST_LOG_VARIANCE = 10.0


class Posterior(NamedTuple):
    """q(z | x), a Gaussian with independent values: its means and log variances, (n, k) both."""

    mean: Tensor
    log_variance: Tensor

    def draw(self, noise: Float[Tensor, "*draws k"]) -> Float[Tensor, "*codes k"]:
        """Codes made of standard normal `noise`, differentiable in the posterior (Kingma, Welling 2014)."""
        return self.mean + (0.5 * self.log_variance).exp() * noise

    def divergence(self) -> Float[Tensor, " n"]:
        """KL(q(z | x) || N(0, I)) in nats."""
        return 0.5 * (self.mean.square() + self.log_variance.exp() - 1 - self.log_variance).sum(1)


@final
class VAE(nn.Module):
    """An encoder that gives q(z | x), a decoder that gives p(x | z), z from N(0, I) (Kingma, Welling 2014).

    `kind`: the networks, as for `autoencoder`. `classes`: both networks see a label too (Sohn, Lee, Yan 2015): the
    encoder as one more channel (or, of a table, as more columns), the decoder beside the code.
    """

    def __init__(self, kind: str, shape: tuple[int, ...], code: int, likelihood: Likelihood, classes: int = 0) -> None:
        super().__init__()
        beside = (1, *shape[1:]) if len(shape) == 3 else (min(8, classes),) if len(shape) == 1 else shape
        seen = (shape[0] + beside[0], *shape[1:]) if classes else shape
        self.encoder = autoencoder(kind, seen, 2 * code).get_submodule("encoder")
        self.decoder = autoencoder(kind, shape, code + classes).get_submodule("decoder")
        self.labels = nn.Embedding(classes, prod(beside)) if classes else None
        self.likelihood, self.code, self.classes, self._beside = likelihood, code, classes, beside

    def encode(self, x: Float[Tensor, "n *shape"], y: Int64[Tensor, " n"] | None = None) -> Posterior:
        """q(z | x), or q(z | x, y)."""
        if self.labels is not None:
            x = torch.cat([x, self.labels(y).reshape(-1, *self._beside).to(x.dtype)], 1)
        mean, raw = self.encoder(x).chunk(2, 1)
        # bounded, so that an input far from all known ones does not score infinity
        return Posterior(mean, _MOST_LOG_VARIANCE * (raw / _MOST_LOG_VARIANCE).tanh())

    def decode(self, code: Float[Tensor, "n k"], y: Int64[Tensor, " n"] | None = None) -> Float[Tensor, "n *shape"]:
        """What p(x | z) is made of."""
        if self.labels is not None and y is not None:
            code = torch.cat([code, nn.functional.one_hot(y, self.classes).to(code.dtype)], 1)
        out: Tensor = self.decoder(code)
        return out

    def forward(
        self, x: Float[Tensor, "n *shape"], noise: Float[Tensor, "n k"], y: Int64[Tensor, " n"] | None = None
    ) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
        """(log p(x | z) of one code z drawn from q(z | x), KL(q || prior)); the first minus the second estimates the
        evidence lower bound.
        """
        posterior = self.encode(x, y)
        return self.likelihood(x, self.decode(posterior.draw(noise), y)), posterior.divergence()
