"""A network in the place of a score without gradients, learnt from the score's answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor, nn

from robustgen.attacks.passes import evaluated
from robustgen.errors import DataError
from robustgen.objectives import Score
from robustgen.randomness import sample_keys
from robustgen.runtime import seeded
from robustgen.threat import ThreatModel

if TYPE_CHECKING:  # evade, beside Guarded, learns stand-ins itself
    from robustgen.evaluation.adaptive import Guarded

_BATCH = 250


def with_gradient_of(score: Score, surrogate: Score) -> Score:
    """The values of `score` with the gradients of `surrogate` (backward pass differentiable approximation)."""

    def joined(x: Tensor, label: Tensor) -> Tensor:
        with torch.no_grad():
            value = score(x, label)
        slope = surrogate(x, label)
        return value.to(slope.dtype) + (slope - slope.detach())

    return joined


class Imitation(nn.Module):
    """A small network for a score: (n, *shape) -> (n, classes), the score against each label in robust deviations."""

    def __init__(self, shape: tuple[int, ...], classes: int, seed: int) -> None:
        super().__init__()
        with seeded(seed):
            if len(shape) == 3 and min(shape[1:]) >= 8:
                self.body = nn.Sequential(
                    nn.Conv2d(shape[0], 16, 3, stride=2, padding=1),
                    nn.SiLU(),
                    nn.Conv2d(16, 32, 3, stride=2, padding=1),
                    nn.SiLU(),
                    nn.Flatten(),
                    nn.LazyLinear(64),
                    nn.SiLU(),
                    nn.Linear(64, classes),
                )
            else:
                self.body = nn.Sequential(
                    nn.Flatten(), nn.LazyLinear(64), nn.SiLU(), nn.Linear(64, 64), nn.SiLU(), nn.Linear(64, classes)
                )
            self.body(torch.zeros(2, *shape))

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.body(x)
        return found


def imitate(
    guard: Guarded,
    x: Float[Tensor, "n *shape"],
    threat: ThreatModel,
    *,
    queries: int = 4000,
    epochs: int = 20,
    seed: int = 0,
) -> Score:
    """A differentiable stand-in for the guard's score, learnt from `queries` answers: clean inputs and points of the
    ball around them, each judged against the label predicted. Works for any score. Raises `DataError` without inputs.
    """
    if not len(x):
        raise DataError("a stand-in for a score is learnt from clean inputs, and none came: give some")
    points, labels, scores = _asked(guard, x, threat, queries, seed)
    middle = scores.median()
    spread = (scores - middle).abs().median().clamp(min=1e-6)
    wanted = ((scores - middle) / spread).clamp(-20, 20)
    with evaluated(guard.classifier), torch.no_grad():
        classes = guard.classifier(x[:1]).shape[1]
    network = Imitation(tuple(x.shape[1:]), classes, seed).to(x.device)
    optimiser = torch.optim.Adam(network.parameters(), 2e-3)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(epochs):
        for part in torch.randperm(len(points), generator=generator).split(128):
            found = network(points[part]).gather(1, labels[part][:, None])[:, 0]
            loss = torch.nn.functional.smooth_l1_loss(found, wanted[part])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    network.eval().requires_grad_(False)
    return lambda x, label: network(x).gather(1, label[:, None])[:, 0] * spread + middle


def _asked(guard: Guarded, x: Tensor, threat: ThreatModel, queries: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Points, the labels predicted there, and their scores."""
    points = [x[:queries]]
    count, stream = len(points[0]), 0
    while count < queries:
        more = threat.sample(x, sample_keys(x, seed), stream)[: queries - count]
        away = more - x[: len(more)]
        if stream % 2:  # the ball's ends, where attacks go
            more = threat.project(x[: len(more)] + threat.eps * away.sign(), x[: len(more)])
        points.append(more)
        count, stream = count + len(more), stream + 1
    everything = torch.cat(points)
    labels, scores = [], []
    with evaluated(guard.classifier), torch.no_grad():
        for part in everything.split(_BATCH):
            label = guard.classifier(part).argmax(1)
            labels.append(label)
            scores.append(torch.nan_to_num(guard.score(part, label).float()))
    return everything, torch.cat(labels), torch.cat(scores)
