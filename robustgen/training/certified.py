"""Training a discriminator of inputs given labels on what can be proven of it: near an input of one class, nothing
fits another label as well.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from robustgen.bounds import Box, Outputs, pair_bounds
from robustgen.data.labelled import unpacked
from robustgen.data.rows import Rows
from robustgen.models.gan import Discriminator
from robustgen.runtime import fitting_threads
from robustgen.training.descent import Recipe, TrainingProgress, descend

Ball = Callable[[Tensor, float], Box]
"""(inputs (n, *shape), a share from 0 to 1 of the whole size) -> the boxes that they are to be held in."""

_CLEAN_FIRST, _GROWN = 0.02, 0.5  # shares of training after which the boxes begin to grow, and have their size


def train_certified(
    network: Discriminator,
    packed: Rows,
    shape: tuple[int, ...],
    recipe: Recipe,
    *,
    ball: Ball,
    clean: float,
    margin: float,
    device: torch.device,
    checkpoint: Path | None = None,
    progress: TrainingProgress | None = None,
) -> list[float]:
    """Minimise the cross-entropy over the labels of D(x, k), in the worst case that interval bounds allow within the
    box around each input, and as it comes (Gowal et al. 2018, equation 12); returns each epoch's mean loss.

    The worst case takes 0 for the label y, and for each other label the most that it can lead y by. The boxes grow
    from a point to `ball` over the first half of the training, and with them the weight of the worst case, to 1 -
    `clean` (section 3 there). `margin`: what other labels are ahead by in the worst case, since a label is accepted
    that trails by as much as the threshold. `packed`: `LabelledRows`.
    """
    total = recipe.epochs * max(1, math.ceil(len(packed) / recipe.batch_size))

    def loss(model: nn.Module, batch: Tensor, step: int) -> Tensor:
        x, y = unpacked(batch, shape)
        grown = min(1.0, max(0.0, (step / total - _CLEAN_FIRST) / (_GROWN - _CLEAN_FIRST)))
        normal = cross_entropy(network.every(x).float(), y, reduction="none")
        leads = worst_numbers(pair_bounds(network, ball(x, grown)), y).float()
        others = torch.ones_like(leads).scatter(1, y[:, None], 0)
        worst = cross_entropy(leads + margin * others, y, reduction="none")
        weight = (1 - clean) * grown
        return (1 - weight) * normal + weight * worst

    with fitting_threads(device, math.prod(shape)):
        return descend(
            network,
            loss,
            lambda shuffle: packed.batches(recipe.batch_size, shuffle),
            len(packed),
            recipe,
            device=device,
            checkpoint=checkpoint,
            progress=progress,
        )


def worst_numbers(found: Outputs, y: Int64[Tensor, " n"]) -> Float[Tensor, "n classes"]:
    """By how much each label can lead `y`, which leads itself by 0."""
    leads: Tensor = -found.lead[torch.arange(len(y), device=y.device), y]
    return leads


@torch.no_grad()
def start_for_bounds(network: Discriminator, random: torch.Generator) -> None:
    """Weights of variance 2 pi / n^2 for a layer of n inputs, with which boxes neither grow nor vanish from layer to
    layer (Shi et al. 2021, "Fast certified robust training with short warmup", section 3.1), and no biases.
    """
    for layer in network.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            n = layer.weight[0].numel()
            layer.weight.copy_(torch.randn(layer.weight.shape, generator=random) * math.sqrt(2 * math.pi) / n)
            if layer.bias is not None:
                layer.bias.zero_()
