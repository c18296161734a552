"""Calibrated detectors inside a guard, in one unit: how rare what they say is among normal inputs."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import cast, final

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from robustgen.detectors.calibrated import CalibratedDetector
from robustgen.detectors.evidence import Evidence
from robustgen.detectors.features import Features
from robustgen.detectors.through import Watcher
from robustgen.errors import UsageError
from robustgen.guard.combine import Combine
from robustgen.models.load import LoadedModel


@final
class Member(nn.Module):
    """A calibrated detector that judges inputs by the guard's own classifier."""

    def __init__(self, fitted: CalibratedDetector, classifier: LoadedModel) -> None:
        super().__init__()
        fitted = _through(fitted, classifier)
        self.detector, self.features = fitted.detector, fitted.features
        self._fitted = (fitted,)  # in a tuple, as it is no module

    @property
    def fitted(self) -> CalibratedDetector:
        return self._fitted[0]

    @property
    def name(self) -> str:
        """The detector's in the registry."""
        return self.fitted.name

    def forward(self, x: Float[Tensor, "n *shape"], label: Int64[Tensor, " n"]) -> Float[Tensor, " n"]:
        return self.fitted.score(x, label)


def _through(fitted: CalibratedDetector, classifier: LoadedModel) -> CalibratedDetector:
    """The detector looking through this very classifier, if it looks through one. Raises `UsageError` if it was fitted
    with another.
    """
    own = fitted.model
    if own is None or own.network is classifier.network:
        return fitted
    if own.sha256 != classifier.sha256:
        raise UsageError(
            f"{fitted.name} was fitted with the classifier {own.origin}, and the guard's is {classifier.origin}, which "
            "has other weights: fit it with the same one"
        )
    detector = copy.deepcopy(fitted.detector)
    if isinstance(detector, Watcher):
        detector.watch(classifier.network)
    features = fitted.features
    if isinstance(features, Features):
        features = Features(classifier.network, features.layer)
    return replace(fitted, detector=detector, features=features, model=classifier)


@final
class Channel(nn.Module):
    """Members that look for the same thing, and what they say together as -log p of one p-value.

    `how`: the way to combine them, see `Combine`.
    """

    def __init__(self, members: Sequence[Member], how: str) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self.evidence = nn.ModuleList(Evidence() for _ in members)
        self.combine = Combine(how, len(members))
        self.own = Evidence()

    @property
    def everyone(self) -> list[Member]:
        return cast(list[Member], list(self.members))

    def scores(self, x: Float[Tensor, "n *shape"], label: Int64[Tensor, " n"]) -> Float[Tensor, "k n"]:
        """The members' own scores."""
        return torch.stack([member(x, label) for member in self.everyone])

    def apart(self, scores: Float[Tensor, "k n"]) -> Float[Tensor, "k n"]:
        """-log p of each member."""
        known = cast(list[Evidence], list(self.evidence))
        return torch.stack([evidence(score) for evidence, score in zip(known, scores, strict=True)])

    def together(self, scores: Float[Tensor, "k n"]) -> Float[Tensor, " n"]:
        """-log p of all of them."""
        found: Tensor = self.own(self.combine(self.apart(scores)))
        return found

    def prepare(self, scores: Float[Tensor, "k m"]) -> None:
        """Learn what normal inputs give, from members' scores of some that no member was trained on."""
        for evidence, score in zip(cast(list[Evidence], list(self.evidence)), scores, strict=True):
            evidence.prepare(score)
        apart = self.apart(scores)
        self.combine.prepare(apart)
        self.own.prepare(self.combine(apart))
