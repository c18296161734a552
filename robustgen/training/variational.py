"""Variational autoencoders trained on the evidence lower bound."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from robustgen.data.rows import Rows
from robustgen.models.vae import VAE
from robustgen.runtime import fitting_threads
from robustgen.training.descent import Recipe, TrainingProgress, descend

_WARM_UP = 0.1
_MOST = 1000  # inputs among which each is looked for by its code

Unpack = Callable[[Tensor], tuple[Tensor, Tensor | None]]
"""What a batch of rows holds: inputs (n, *shape) and labels (n,) or None."""


def train_vae(
    network: VAE,
    rows: Rows,
    recipe: Recipe,
    unpack: Unpack = lambda x: (x, None),
    *,
    device: torch.device,
    held_out: Rows | None = None,
    checkpoint: Path | None = None,
    progress: TrainingProgress | None = None,
) -> list[float]:
    """Maximise the evidence lower bound of `rows`; returns each epoch's mean loss in nats.

    `held_out`: rows whose bound, with one and the same draw, chooses the epoch, and stops training if the recipe has
    patience.

    Over the first tenth of the steps the divergence counts from 0 up to fully (Bowman et al. 2016): a code that costs
    from the first step on, before it says anything, may be given up.
    """
    warm = max(1.0, _WARM_UP * recipe.epochs * math.ceil(len(rows) / recipe.batch_size))

    def loss(model: nn.Module, packed: Any, step: int) -> Tensor:
        x, y = unpack(packed)
        evidence, divergence = model(x, torch.randn(len(x), network.code, device=x.device, dtype=x.dtype), y)
        losses: Tensor = min(1.0, step / warm) * divergence - evidence
        return losses

    def validate(model: nn.Module) -> float:
        assert held_out is not None
        generator, total = torch.Generator().manual_seed(recipe.seed), 0.0
        for packed in held_out.batches(512):
            x, y = unpack(packed.to(device))
            noise = torch.randn(len(x), network.code, generator=generator).to(x)
            evidence, divergence = model(x, noise, y)
            total += float((divergence - evidence).sum())
        return total / len(held_out)

    network.to(memory_format=torch.channels_last)  # a third off a step on the CPU
    with fitting_threads(device, math.prod(rows.shape)):
        history = descend(
            network,
            loss,
            lambda shuffle: rows.batches(recipe.batch_size, shuffle),
            len(rows),
            recipe,
            device=device,
            validate=None if held_out is None else validate,
            checkpoint=checkpoint,
            progress=progress,
        )
    network.to(memory_format=torch.contiguous_format)
    return history


def usage(network: VAE, batches: Sequence[tuple[Tensor, Tensor | None]]) -> Float[Tensor, "2"]:
    """How much the code is used: (nats by which the code tells the inputs apart, nats by which it betters the
    reconstruction of an input over the code 0), over at most about 1,000 inputs.

    The first is I(x; z), estimated with the inputs themselves as the marginal (Hoffman, Johnson 2016): at most their
    number's logarithm. Near 0 the code has collapsed, which the divergence alone need not show: it can be paid for a
    code that differs from the prior in the same way for every input.
    """
    means, log_variances, gains = list[Tensor](), list[Tensor](), list[Tensor]()
    for x, y in batches:
        posterior = network.encode(x, y)
        known = network.likelihood(x, network.decode(posterior.mean, y))
        gains.append(known - network.likelihood(x, network.decode(torch.zeros_like(posterior.mean), y)))
        means.append(posterior.mean)
        log_variances.append(posterior.log_variance)
        if sum(map(len, means)) >= _MOST:
            break
    mean, log_variance = torch.cat(means), torch.cat(log_variances)
    drawn = mean + (0.5 * log_variance).exp() * torch.randn(
        mean.shape, generator=torch.Generator().manual_seed(0), dtype=mean.dtype
    ).to(mean.device)
    # log q(z_i | x_j) up to a constant that cancels
    precision = (-log_variance).exp()
    squares = drawn.square() @ precision.T - 2 * drawn @ (mean * precision).T + (mean.square() * precision).sum(1)
    logs = -0.5 * (squares + log_variance.sum(1))
    information = logs.diagonal() - logs.logsumexp(1) + math.log(len(logs))
    return torch.stack([information.mean(), torch.cat(gains).mean()])
