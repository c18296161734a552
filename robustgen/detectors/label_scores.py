"""What a discriminator of inputs given labels says of an input and the label it came with: one number per input,
higher = more anomalous.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import final

import torch
from torch import Tensor, nn

from robustgen.bounds import Outputs
from robustgen.detectors.units import Units
from robustgen.models.gan import Discriminator

_MOST_FEATURES = 4000  # training inputs that the neighbours are looked for among
_ROUNDING = 1e-5  # by more than which float32 does not err in joining readings, relative to their deviations


@final
class Pairs:
    """n inputs and their labels, and what the discriminator makes of them. What is not asked for is not computed."""

    def __init__(self, network: Discriminator, x: Tensor, y: Tensor) -> None:
        self.network, self.x, self.y = network, x, y

    @cached_property
    def features(self) -> Tensor:
        return self.network.features(self.x)

    @cached_property
    def every(self) -> Tensor:
        """(n, classes)"""
        return self.network.judge_every(self.features)

    @property
    def own(self) -> Tensor:
        """(n,) with the labels they came with."""
        return self.every.gather(1, self.y[:, None])[:, 0]


PairBatches = Callable[[], Iterator[Pairs]]
"""Goes through labelled normal inputs once, without gradients."""


class Reading(nn.Module, ABC):
    """One way to score pairs."""

    def prepare(self, training: PairBatches) -> None:
        """Learn what normal pairs give, from shuffled training inputs."""

    @abstractmethod
    def forward(self, pairs: Pairs) -> Tensor:
        """(n,) scores."""

    @abstractmethod
    def least(self, found: Outputs) -> Tensor:
        """(n, classes) what the score with each label is at least, where the numbers D(x, k) keep to their bounds."""


@final
class Logit(Reading):
    """-D(x, y): how fake the pair looks."""

    def forward(self, pairs: Pairs) -> Tensor:
        return -pairs.own

    def least(self, found: Outputs) -> Tensor:
        return -found.upper


@final
class Contrast(Reading):
    """max over k != y of D(x, k), minus D(x, y): by how much more real the input looks with another label."""

    def forward(self, pairs: Pairs) -> Tensor:
        others = pairs.every.scatter(1, pairs.y[:, None], -torch.inf)
        return others.amax(1) - pairs.own

    def least(self, found: Outputs) -> Tensor:
        itself = torch.eye(found.lead.shape[1], dtype=torch.bool, device=found.lead.device)
        return found.lead.masked_fill(itself, -torch.inf).amax(1)


@final
class Neighbours(Reading):
    """Mean distance of the discriminator's features to the 5 nearest of at most 4,000 training inputs of the label's
    class (Ramaswamy, Rastogi, Shim 2000, within a class).
    """

    bank: Tensor
    labels: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("bank", torch.empty(0, 0))
        self.register_buffer("labels", torch.empty(0, dtype=torch.int64))

    def prepare(self, training: PairBatches) -> None:
        features, labels, n = list[Tensor](), list[Tensor](), 0
        for pairs in training():
            features.append(pairs.features)
            labels.append(pairs.y)
            n += len(pairs.y)
            if n >= _MOST_FEATURES:
                break
        self.bank, self.labels = torch.cat(features)[:_MOST_FEATURES], torch.cat(labels)[:_MOST_FEATURES]

    def forward(self, pairs: Pairs) -> Tensor:
        bank = self.bank.to(pairs.features.dtype)
        with torch.no_grad():  # which are nearest by the cheap expansion, their distances then without cancellation
            expanded = bank.square().sum(1) - 2 * pairs.features @ bank.T
            expanded = expanded.masked_fill(self.labels != pairs.y[:, None], torch.inf)
            nearest = expanded.topk(min(5, len(bank)), dim=1, largest=False)
            own = nearest.values.isfinite()  # a class may have fewer; one that has none is compared with all
            own = own | ~own.any(1, keepdim=True)
        squares = (pairs.features[:, None] - bank[nearest.indices]).square().sum(2)
        found: Tensor = ((squares + 1e-12).sqrt() * own).sum(1) / own.sum(1)
        return found

    def least(self, found: Outputs) -> Tensor:
        return torch.zeros_like(found.upper)  # a distance is no less


READINGS: dict[str, type[Reading]] = {
    "logit": Logit,
    "contrast": Contrast,
    "knn": Neighbours,
}


@final
class LabelScores(nn.Module):
    """Readings in robust deviations from their medians on held-out normal inputs: their sum for names joined by "+",
    the largest for names joined by "|" (an attacker then has to pass each of them), where those after the first count
    by half, so that they take few of the false alarms away from it. One alone keeps its own unit. Raises `UsageError`
    for names that do not exist.
    """

    def __init__(self, names: str) -> None:
        super().__init__()
        self.largest = "|" in names
        self.units = Units(names, READINGS, "|" if self.largest else "+")
        self.names = self.units.chosen
        self.readings = nn.ModuleDict({name: READINGS[name]() for name in self.names})

    def prepare(self, training: PairBatches, held_out: PairBatches) -> None:
        """Fit the readings to `training` pairs, and their units to `held_out` ones."""
        for reading in self._all():
            reading.prepare(training)
        self.units.prepare(torch.cat([self.apart(pairs) for pairs in held_out()], 1))

    def apart(self, pairs: Pairs) -> Tensor:
        """(readings, n) each by itself."""
        return torch.stack([reading(pairs) for reading in self.readings.values()])

    def forward(self, pairs: Pairs) -> Tensor:
        return self._joined(self.units.deviations(self.apart(pairs)))

    def _joined(self, deviations: Tensor) -> Tensor:
        if self.largest and len(deviations) > 1:
            return torch.cat([deviations[:1], 0.5 * deviations[1:]]).amax(0)
        return deviations.sum(0)

    def least(self, found: Outputs) -> Tensor:
        """(n, classes) what the score with each label is at least: it grows with every reading."""
        apart = torch.stack([reading.least(found) for reading in self._all()])
        if len(apart) == 1:
            return apart[0]
        deviations = self.units.deviations(apart.flatten(1))
        joined = self._joined(deviations) - _ROUNDING * (1 + deviations.abs().sum(0))
        return joined.reshape(apart.shape[1:])

    def _all(self) -> list[Reading]:
        return [reading for reading in self.readings.values() if isinstance(reading, Reading)]
