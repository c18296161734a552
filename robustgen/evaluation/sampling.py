"""New inputs drawn from a generative detector."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from robustgen.data.source import DataSpec
from robustgen.detectors.calibrated import CalibratedDetector
from robustgen.detectors.codes import as_sampler
from robustgen.errors import UsageError


def draw(detector: CalibratedDetector, n: int, seed: int) -> Float[Tensor, "n *shape"]:
    """`n` new inputs on the CPU, the same ones for the same seed; images are cut off at their legal range.

    Raises `UsageError` for a detector that cannot draw.
    """
    if detector.features is not None:
        raise UsageError(f"this {detector.name} looks at features of the inputs, not at inputs: it cannot draw any")
    with torch.no_grad():
        x = as_sampler(detector.detector, detector.name).sample(n, seed).cpu()
    return x.clamp(detector.spec.low, detector.spec.high) if detector.spec.kind == "image" else x


def in_own_units(x: Float[Tensor, "n d"], spec: DataSpec) -> Float[Tensor, "n d"]:
    """Rows of a table with the scaling of its columns undone; images as they are."""
    if spec.kind == "image" or not spec.minimum:
        return x
    low, high = (torch.tensor(ends, dtype=torch.float64) for ends in (spec.minimum, spec.maximum))
    return low + x.double() * (high - low)
