"""Detectors that go on learning after their fit."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from robustgen.detectors import DETECTORS
from robustgen.detectors.base import Detector
from robustgen.errors import UsageError
from robustgen.registry import resolve


@runtime_checkable
class Streaming(Protocol):
    """What takes in further inputs without forgetting earlier ones, and says what it has taken in."""

    def partial_fit(self, x: Float[Tensor, "n *shape"]) -> Any: ...

    def facts(self) -> dict[str, float]: ...


def as_streaming(detector: Detector, name: str) -> Streaming:
    """The detector as one that takes in further inputs. Raises `UsageError` if it cannot."""
    if not isinstance(detector, Streaming):
        those = [other for other in DETECTORS if issubclass(resolve(DETECTORS, other, "detector"), Streaming)]
        raise UsageError(f"{name} takes in nothing after its fit: use {', '.join(those)}, or fit it again")
    return detector
