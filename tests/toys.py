"""Models whose answers are known in closed form."""

from __future__ import annotations

import math
from typing import final

import torch
from torch import Tensor, nn

from robustgen.data.rows import Rows
from robustgen.detectors import DETECTORS
from robustgen.detectors.base import Detector
from robustgen.detectors.watching import WatchingDetector
from robustgen.registry import resolve
from robustgen.training.descent import TrainingProgress

WATCHING = tuple(name for name in DETECTORS if issubclass(resolve(DETECTORS, name, "detector"), WatchingDetector))
"""Detectors that need a classifier beside them: test_watching tries them with one."""

APART = ("pair-gan", "cycle-gan", *WATCHING)
"""Detectors of pairs, of two domains, or with a classifier: test_pair_gan and test_cycle_gan try the first two."""


FUSED = {"members": "autoencoder epochs=8,gan scores=discriminator+knn steps=40 width=8", "combine": "deviations"}
"""What a fusion is of images by default, but for its second GAN, in seconds instead of minutes."""


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


class Bumps(nn.Module):
    """Four classes, the logit of each 8 exp(-d^2), d being the distance from a point of its own: sure of inputs near
    one of them, and of no other input. The points lie where `check_detector` has its normal inputs.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        basis = torch.rand(3, *shape, generator=torch.Generator().manual_seed(0)).flatten(1)
        mixed = torch.tensor([[0.2, 0.2, 0.8], [0.8, 0.2, 0.2], [0.2, 0.8, 0.2], [0.7, 0.7, 0.7]])
        self.points = nn.Parameter(mixed @ basis / 3)

    def forward(self, x: Tensor) -> Tensor:
        apart = (x.flatten(1)[:, None] - self.points).square().mean(2)
        return 8 * torch.exp(-40 * apart)


def small_mlp(shape: tuple[int, ...], classes: int = 4, seed: int = 0) -> nn.Sequential:
    """A random smooth classifier with layers that can be named."""
    with torch.random.fork_rng():
        torch.random.manual_seed(seed)
        return nn.Sequential(
            nn.Flatten(),
            nn.Linear(math.prod(shape), 24),
            nn.Tanh(),
            nn.Linear(24, 12),
            nn.Tanh(),
            nn.Linear(12, classes),
        ).eval()


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
