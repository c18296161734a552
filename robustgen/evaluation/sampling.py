"""New inputs drawn from a generative detector."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from robustgen.data.source import DataSpec
from robustgen.detectors.calibrated import CalibratedDetector
from robustgen.detectors.codes import Mixer, Sampler, TruncatingSampler, as_sampler
from robustgen.errors import UsageError


def draw(
    detector: CalibratedDetector, n: int, seed: int, truncation: float = 1.0, label: int | None = None
) -> Float[Tensor, "n *shape"]:
    """`n` new inputs on the CPU, the same ones for the same seed; images are cut off at their legal range.

    `truncation` below 1: nearer to the usual ones, where the detector can. `label`: of this class, where it draws by
    class (see `drawn_labels`), else of all in turn. Raises `UsageError` for a detector that cannot draw, or not so.
    """
    sampler = _sampler(detector)
    labels = drawn_labels(detector, n, label)
    with torch.no_grad():
        if truncation == 1:
            if labels is None:
                return _legal(sampler.sample(n, seed), detector.spec)
            by_class: Any = sampler
            return _legal(by_class.sample(n, seed, labels.to(detector.device)), detector.spec)
        if not isinstance(sampler, TruncatingSampler):
            raise UsageError(f"{detector.name} cannot draw nearer to the usual inputs: leave out --truncation")
        return _legal(sampler.sample_truncated(n, seed, truncation), detector.spec)


def drawn_labels(detector: CalibratedDetector, n: int, label: int | None = None) -> Int64[Tensor, " n"] | None:
    """The class of each of `n` inputs that `draw` gives: `label`, or all classes in turn; None for a detector that does
    not draw by class. Raises `UsageError` for a class that it does not have.
    """
    classes = getattr(detector.detector, "classes", None) if detector.detector.conditional else None
    if not classes:
        if label is not None:
            raise UsageError(f"{detector.name} does not draw by class: leave out --label")
        return None
    if label is not None and not 0 <= label < classes:
        raise UsageError(f"{detector.name} draws inputs of the classes 0 to {classes - 1}, but {label} came")
    return torch.arange(n) % classes if label is None else torch.full((n,), label)


def mix(detector: CalibratedDetector, n: int, seed: int) -> Float[Tensor, "n n *shape"]:
    """`n` new inputs, and every two of them mixed: coarse style of the row's, fine of the column's.

    Raises `UsageError` for a detector that cannot mix.
    """
    sampler = _sampler(detector)
    if not isinstance(sampler, Mixer):
        raise UsageError(f"{detector.name} has no styles to mix: leave out --mix, or use style-gan")
    with torch.no_grad():
        return _legal(sampler.mixed(n, seed), detector.spec)


def _sampler(detector: CalibratedDetector) -> Sampler:
    if detector.features is not None:
        raise UsageError(f"this {detector.name} looks at features of the inputs, not at inputs: it cannot draw any")
    return as_sampler(detector.detector, detector.name)


def _legal(x: Tensor, spec: DataSpec) -> Tensor:
    return x.cpu().clamp(spec.low, spec.high) if spec.kind == "image" else x.cpu()


def in_own_units(x: Float[Tensor, "n d"], spec: DataSpec) -> Float[Tensor, "n d"]:
    """Rows of a table with the scaling of its columns undone; images as they are."""
    if spec.kind == "image" or not spec.minimum:
        return x
    low, high = (torch.tensor(ends, dtype=torch.float64) for ends in (spec.minimum, spec.maximum))
    return low + x.double() * (high - low)
