"""Inputs as a detector of two domains, or of pairs, makes them anew."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Protocol, final, runtime_checkable

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from robustgen.data.source import Indices, Source
from robustgen.detectors.base import Detector
from robustgen.detectors.calibrated import CalibratedDetector
from robustgen.errors import DataError, RobustgenError, UsageError
from robustgen.models.load import LoadedModel


@runtime_checkable
class Translator(Protocol):
    """What makes inputs anew: the first of its `directions` is what it is for."""

    directions: ClassVar[tuple[str, ...]]

    def translate(self, x: Float[Tensor, "n *shape"], to: str) -> Float[Tensor, "n *shape2"]: ...


def as_translator(detector: Detector, name: str, to: str | None) -> tuple[Translator, str]:
    """The detector as a translator, and the direction: `to`, or its first. Raises `UsageError` if it has none such,
    `RobustgenError` if it is not fitted.
    """
    if not isinstance(detector, Translator):
        raise UsageError(f"{name} translates nothing: use cycle-gan or pair-gan")
    if detector.shape is None:
        raise RobustgenError(f"{name} is not fitted: call fit(data) before translating")
    if to is not None and to not in detector.directions:
        raise UsageError(f"{name} translates to {' or '.join(detector.directions)}, but --to {to} was given")
    return detector, to or detector.directions[0]


@final
@dataclass(frozen=True)
class Translated:
    """n inputs `x` (n, c, h, w) and what was made of them, `made` (n, c2, h, w), on the CPU; `y` their labels if known;
    `to` the direction. `accuracy`: of a classifier before and after, where it was asked.
    """

    x: Float[Tensor, "n c h w"]
    made: Float[Tensor, "n c2 h w"]
    y: Int64[Tensor, " n"] | None
    to: str
    accuracy: tuple[float, float] | None = None


def translate(
    detector: CalibratedDetector,
    source: Source,
    rows: Indices,
    to: str | None = None,
    *,
    model: LoadedModel | None = None,
    batch_size: int = 500,
    progress: Callable[[float], None] = lambda done: None,
) -> Translated:
    """Translate rows of a source. `model`: a classifier whose accuracy before and after is wanted, which needs
    labels that are its classes.
    """
    translator, way = as_translator(detector.detector, detector.name, to)
    x, made, labels = list[Tensor](), list[Tensor](), list[Tensor]()
    with torch.no_grad():
        for start in range(0, len(rows), batch_size):
            batch = source.read(rows[start : start + batch_size])
            x.append(batch.x)
            made.append(translator.translate(batch.x.to(detector.device), way).cpu())
            if batch.y is not None:
                labels.append(batch.y)
            progress(len(batch))
    before, after = torch.cat(x), torch.cat(made)
    if not len(before):
        raise DataError(f"none of the inputs of {source.spec.name!r} could be read")
    y = torch.cat(labels) if labels else None
    accuracy = None if model is None else _accuracies(model, before, after, y, source, batch_size, detector.device)
    return Translated(before, after, y, way, accuracy)


def _accuracies(
    model: LoadedModel,
    before: Tensor,
    after: Tensor,
    y: Tensor | None,
    source: Source,
    batch_size: int,
    device: torch.device,
) -> tuple[float, float]:
    if y is None:
        raise DataError(f"{source.spec.name!r} has no labels, so the classifier's accuracy cannot be told")
    if before.shape != after.shape:
        raise UsageError("a classifier's accuracy is asked of translated inputs, but photos of conditions are others")
    network = model.network.to(device)

    def accuracy(x: Tensor) -> float:
        with torch.no_grad():
            said = torch.cat([network(part.to(device)).argmax(1).cpu() for part in x.split(batch_size)])
        return float((said == y).double().mean())

    return accuracy(before), accuracy(after)
