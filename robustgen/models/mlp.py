"""A multi-layer perceptron."""

from __future__ import annotations

from math import prod
from typing import final

from jaxtyping import Float
from torch import Tensor, nn


@final
class MLP(nn.Module):
    """linear - ReLU - linear - ReLU - linear on the flattened input."""

    def __init__(self, shape: tuple[int, ...], classes: int, width: int = 128) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Flatten(),
            nn.Linear(prod(shape), width),
            nn.ReLU(),
            nn.Linear(width, width),
            nn.ReLU(),
            nn.Linear(width, classes),
        )

    def forward(self, x: Float[Tensor, "n *shape"]) -> Float[Tensor, "n classes"]:
        logits: Tensor = self.layers(x)
        return logits
