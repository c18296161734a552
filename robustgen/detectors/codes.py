"""Detectors that hold a code of their inputs, and detectors that look at inputs through such a code."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, final, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from robustgen.data.source import DataSpec
from robustgen.detectors import DETECTORS
from robustgen.detectors.base import Detector
from robustgen.errors import RobustgenError, UsageError
from robustgen.registry import resolve


@runtime_checkable
class Codec(Protocol):
    """What turns inputs into short codes and codes into inputs: an autoencoder, or the principal components."""

    def encode(self, x: Float[Tensor, "n *shape"]) -> Float[Tensor, "n k"]: ...

    def decode(self, code: Float[Tensor, "n k"]) -> Float[Tensor, "n *shape"]: ...

    def reconstruct(self, x: Float[Tensor, "n *shape"]) -> Float[Tensor, "n *shape"]: ...


@runtime_checkable
class Sampler(Protocol):
    """What can draw new inputs, the same ones for the same seed."""

    def sample(self, n: int, seed: int) -> Float[Tensor, "n *shape"]: ...


@runtime_checkable
class TruncatingSampler(Protocol):
    """What can draw inputs nearer to the usual ones: `truncation` from 0, the most usual, to 1, as `Sampler` draws."""

    def sample_truncated(self, n: int, seed: int, truncation: float) -> Float[Tensor, "n *shape"]: ...


@runtime_checkable
class Mixer(Protocol):
    """What can draw n inputs and mix every two of them: (n, n, *shape), the samples themselves on the diagonal."""

    def mixed(self, n: int, seed: int) -> Float[Tensor, "n n *shape"]: ...


def as_codec(detector: Detector, name: str) -> Codec:
    """The detector as a codec. Raises `UsageError` if it has no code, `RobustgenError` if it is not fitted."""
    if not isinstance(detector, Codec):
        raise UsageError(f"{name} has no code of its inputs: use one of {', '.join(_those_that(Codec))}")
    if detector.shape is None:
        raise RobustgenError(f"{name} is not fitted: call fit(data) before using its code")
    return detector


def as_sampler(detector: Detector, name: str) -> Sampler:
    """The detector as a sampler. Raises `UsageError` if it cannot draw, `RobustgenError` if it is not fitted."""
    if not isinstance(detector, Sampler):
        those = _those_that(Sampler)
        hint = f"use one of {', '.join(those)}" if those else "none of the detectors here can"
        raise UsageError(f"{name} cannot draw new inputs: {hint}")
    if detector.shape is None:
        raise RobustgenError(f"{name} is not fitted: call fit(data) before sample(n, seed)")
    return detector


def _those_that(protocol: type) -> list[str]:
    return [name for name in DETECTORS if issubclass(resolve(DETECTORS, name, "detector"), protocol)]


@final
class Codes(nn.Module):
    """The code of a fitted detector, as what another detector looks at: (n, *shape) -> (n, k).

    `name` is the detector's in the registry. Raises `UsageError` if it has no code.
    """

    def __init__(self, name: str, detector: Detector) -> None:
        super().__init__()
        as_codec(detector, name)  # says so now if there is no code
        self.name, self.detector = name, detector

    def forward(self, x: Float[Tensor, "n *shape"]) -> Float[Tensor, "n k"]:
        return as_codec(self.detector, self.name).encode(x)

    @property
    def width(self) -> int:
        """k, of the detector as it is fitted."""
        shape = self.detector.shape or ()
        with torch.no_grad():
            return int(self(torch.zeros(1, *shape, device=self.detector._device)).shape[1])

    @property
    def config(self) -> dict[str, Any]:
        """What, beside the state, makes the detector again."""
        return {"detector": self.name, "options": self.detector.config, "shape": self.detector.shape}

    @classmethod
    def restore(cls, config: Mapping[str, Any], state: Mapping[str, Tensor]) -> Codes:
        """From `config` and the detector's state. Raises `ArtifactError` if they do not fit."""
        detector: Detector = resolve(DETECTORS, config["detector"], "detector")(**config["options"])
        return cls(config["detector"], detector.restore(tuple(config["shape"]), state))


def require_form(codec: DataSpec, data: DataSpec) -> None:
    """Raise `UsageError` unless inputs of `data` mean the same to a detector that was fitted on those of `codec`."""
    if codec.shape != data.shape:
        raise UsageError(
            f"the code is one of inputs of shape {codec.shape} ({codec.name!r}), but {data.name!r} has {data.shape}: "
            "give data of that shape"
        )
    if (codec.columns, codec.minimum, codec.maximum) != (data.columns, data.minimum, data.maximum):
        raise UsageError(
            f"the code is one of {codec.name!r}, whose columns or their scaling differ from those of {data.name!r}: "
            "fit both on the same table"
        )


def encoded(codec: Codec, x: Tensor, batch_size: int = 500) -> Tensor:
    """The codes (n, k) of inputs (n, *shape), without gradients, a batch at a time."""
    with torch.no_grad():
        return torch.cat([codec.encode(part) for part in x.split(batch_size)])
