"""Models whose answers are known in closed form."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn

from robustgen.data.rows import Rows
from robustgen.detectors.base import Detector
from robustgen.training.descent import TrainingProgress

APART = ("pair-gan", "cycle-gan")
"""Detectors of pairs or of two domains: test_pair_gan and test_cycle_gan try them on such."""


class Linear2(nn.Module):
    """Two classes, logits (0, w.x + b): class 1 where w.x + b > 0.

    The smallest change that crosses the boundary has length |w.x + b| / ||w||_q, q dual to the norm of the change
    (Hoelder), as long as the box does not get in the way.
    """

    def __init__(self, weight: Tensor, bias: float) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(weight.clone()), nn.Parameter(torch.tensor(bias))

    def forward(self, x: Tensor) -> Tensor:
        z = x.flatten(1) @ self.weight + self.bias
        return torch.stack([torch.zeros_like(z), z], 1)

    def distance(self, x: Tensor, norm: str) -> Tensor:
        dual = {"linf": 1.0, "l2": 2.0, "l1": torch.inf}[norm]
        with torch.no_grad():
            margin = (x.flatten(1) @ self.weight + self.bias).abs()
            return margin / torch.linalg.vector_norm(self.weight, dual)


class Counting(nn.Module):
    """Counts the rows that go through `network`, forwards and (by a hook on the input's gradient) backwards."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network, self.forward_rows, self.backward_rows = network, 0, 0

    def forward(self, x: Tensor) -> Tensor:
        self.forward_rows += len(x)
        if x.requires_grad:
            x.register_hook(self._count)
        logits: Tensor = self.network(x)
        return logits

    def _count(self, gradient: Tensor) -> None:
        self.backward_rows += len(gradient)


def small_cnn(seed: int = 0) -> nn.Module:
    """A random convolutional classifier of (n, 1, 8, 8) with batch norm and dropout, which show a wrong mode."""
    with torch.random.fork_rng():
        torch.random.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Dropout(0.5),
            nn.Flatten(),
            nn.Linear(512, 10),
        )


@final
class GaussianDetector(Detector):
    """Independent normal values of the training inputs' mean and deviation: a generative model in closed form."""

    mean: Tensor
    deviation: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.empty(0))
        self.register_buffer("deviation", torch.empty(0))

    def _fit(self, rows: Rows, progress: TrainingProgress | None) -> None:
        x = torch.cat(list(rows.batches(512)))
        self.mean, self.deviation = x.mean(0), x.std(0) + 1e-3

    def sample(self, n: int, seed: int) -> Tensor:
        noise = torch.randn(n, *self.mean.shape, generator=torch.Generator().manual_seed(seed))
        return self.restored(self.mean + self.deviation * noise)

    def _score(self, x: Tensor, condition: Tensor | None) -> Tensor:
        return ((x - self.mean) / self.deviation).square().flatten(1).mean(1)
