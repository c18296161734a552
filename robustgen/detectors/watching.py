"""What detectors share that judge an input by what a classifier says of it, or by what it makes of it inside."""

from __future__ import annotations

from abc import ABC
from collections.abc import Callable
from typing import final

from jaxtyping import Float
from torch import Tensor

from robustgen.detectors.base import Detector
from robustgen.detectors.layers import Layers
from robustgen.detectors.standardise import Scale
from robustgen.errors import UsageError


class WatchingDetector(Detector, ABC):
    """A detector with a classifier beside it (`watch`), which takes inputs in the data's own range and is no part of
    the state: whoever stores the detector stores or names the classifier too. Nothing is standardised.
    """

    scale: Scale = "none"

    def __init__(self) -> None:
        super().__init__()
        self._watched: tuple[Callable[[Tensor], Tensor], ...] = ()  # in a tuple it is no part of the state

    @final
    def watch(self, classifier: Callable[[Tensor], Tensor]) -> None:
        """Judge inputs by `classifier` (inputs -> logits); before `fit` or `restore`."""
        self._watched = (classifier,)

    @property
    @final
    def classifier(self) -> Callable[[Tensor], Tensor]:
        """The classifier. Raises `UsageError` if there is none."""
        if not self._watched:
            raise UsageError(
                f"{type(self).__name__} judges inputs by what a classifier makes of them: give the classifier with "
                "--model (watch)"
            )
        return self._watched[0]

    @final
    def logits(self, x: Float[Tensor, "n *shape"]) -> Float[Tensor, "n classes"]:
        """What the classifier says. Raises `UsageError` unless that is a number for each of at least 2 classes."""
        found = self.classifier(x)
        if found.ndim != 2 or found.shape[:1] != x.shape[:1] or found.shape[1] < 2:
            raise UsageError(
                f"a classifier gives each of n inputs a number for each of at least 2 classes, but for {len(x)} inputs "
                f"it gave {tuple(found.shape)}"
            )
        return found


class LayeredDetector(WatchingDetector, ABC):
    """A detector that looks at layers of its classifier, named by `layers` (see `Layers`)."""

    layers: str

    def __init__(self) -> None:
        super().__init__()
        self._seen: Layers | None = None

    @property
    @final
    def _layers(self) -> Layers:
        """Those of the classifier that is watched now: a fitted detector is made to watch the one of its guard, so that
        both take one pass.
        """
        if self._seen is None or self._seen.network is not self.classifier:
            self._seen = Layers(self.classifier, self.layers)
        return self._seen
