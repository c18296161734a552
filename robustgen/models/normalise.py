"""Normalisation as part of the model, so that inputs, eps and the box stay in the data's own units."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from robustgen.errors import UsageError


@final
class Normalised(nn.Module):
    """network((x - mean) / std), with one mean and one std for each channel (or column), or one for all.

    `channels`: how many channels the network takes; a grey input is repeated to three where it takes three. Raises
    `UsageError` if `std` is not positive or the two differ in length.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        network: nn.Module,
        mean: Sequence[float] = (0.0,),
        std: Sequence[float] = (1.0,),
        channels: int | None = None,
    ) -> None:
        super().__init__()
        if len(mean) != len(std) or not len(mean) or min(std) <= 0:
            raise UsageError(
                f"mean and std need one value a channel, std above 0, but mean={list(mean)} and std={list(std)} came"
            )
        self.network = network
        self.channels = channels
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32))

    def forward(self, x: Float[Tensor, "n *shape"]) -> Float[Tensor, "n classes"]:
        if len(self.mean) not in (1, x.shape[1]):
            raise UsageError(f"mean and std have {len(self.mean)} values, but the inputs have {x.shape[1]} channels")
        per_channel = [1, -1, *[1] * (x.dim() - 2)]
        scaled = (x - self.mean.to(x.dtype).reshape(per_channel)) / self.std.to(x.dtype).reshape(per_channel)
        if self.channels is not None and x.shape[1] == 1 and self.channels > 1:
            scaled = scaled.expand(-1, self.channels, *x.shape[2:])
        logits: Tensor = self.network(scaled)
        return logits
