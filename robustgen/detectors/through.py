"""The classifier beside a detector: what the detector looks at it for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from robustgen.data.source import DataSpec, Source
from robustgen.detectors.base import Detector
from robustgen.detectors.features import Features
from robustgen.errors import UsageError
from robustgen.models.load import LoadedModel


@runtime_checkable
class Watcher(Protocol):
    """A detector that judges inputs by what a classifier says of them and of what it makes of them."""

    def watch(self, classifier: Callable[[Tensor], Tensor]) -> None: ...


def seen_through(
    detector: Detector,
    name: str,
    source: Source,
    model: LoadedModel | None,
    layer: str | None,
    device: torch.device,
) -> Features | None:
    """The features that detector `name` is to look at instead of inputs, if any: a layer of the classifier, unless it
    judges inputs against the classifier's predictions, or watches it. The classifier is moved to `device`.

    Raises `UsageError` if detector and classifier do not fit each other.
    """
    if detector.conditional:
        network = _check_classifier(name, source, model, layer, device)
        if isinstance(detector, Watcher):
            detector.watch(network)
        return None
    if model is None:
        return None
    answer(model, source.spec, device)
    if not isinstance(detector, Watcher):
        return Features(model.network.to(device), layer)
    if layer is not None:
        raise UsageError(f"{name} looks at inputs, not at a layer of the classifier: leave out --layer")
    detector.watch(model.network.to(device))
    return None


def answer(model: LoadedModel, spec: DataSpec, device: torch.device) -> Tensor:
    """What the classifier, moved to `device`, says of one input of the form of `spec`. Raises `UsageError` if it takes
    no such inputs.
    """
    network = model.network.to(device)
    try:
        with torch.no_grad():
            said: Tensor = network(torch.zeros(1, *spec.shape, device=device))
    except (RuntimeError, ValueError, IndexError) as error:
        taken = "" if model.spec is None else f", but inputs of shape {model.spec.shape}"
        raise UsageError(
            f"the classifier {model.origin} does not take inputs of shape {spec.shape}, as those of {spec.name!r} "
            f"are{taken} ({str(error).splitlines()[0]}): give one that was trained on such inputs"
        ) from error
    return said


def _check_classifier(
    name: str, source: Source, model: LoadedModel | None, layer: str | None, device: torch.device
) -> nn.Module:
    """The classifier, moved to `device`, if its predictions can be the labels that detector `name` judges inputs
    against. Raises `UsageError` if they cannot.
    """
    if model is None:
        raise UsageError(
            f"{name} judges an input against the class that a classifier predicts: give the classifier with --model"
        )
    if layer is not None:
        raise UsageError(f"{name} looks at inputs, not at a layer of the classifier: leave out --layer")
    logits = answer(model, source.spec, device)
    if not source.spec.classes:
        raise UsageError(f"{name} learns what inputs of each class look like, but {source.spec.name!r} has no labels")
    if logits.ndim != 2 or logits.shape[1] != len(source.spec.classes):
        raise UsageError(
            f"{source.spec.name!r} has {len(source.spec.classes)} classes, but the classifier {model.origin} gives "
            f"{tuple(logits.shape[1:])} numbers for an input: {name} needs one for each class"
        )
    return model.network
