"""Detectors by name: their classes, their options, and fresh ones."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from robustgen.detectors import DETECTORS
from robustgen.detectors.art_names import ART_DETECTORS, art_detector_name
from robustgen.detectors.art_names import PREFIX as ART
from robustgen.detectors.base import Detector
from robustgen.detectors.pyod_names import PREFIX, pyod_name, pyod_options
from robustgen.detectors.standardise import Scale
from robustgen.errors import UsageError
from robustgen.registry import resolve


def kind_of(name: str) -> type[Detector]:
    """The class of the detector `name`. Raises `UsageError` for an unknown name."""
    if name.startswith(PREFIX):
        from robustgen.detectors.pyod import PyODDetector

        pyod_name(name)
        return PyODDetector
    if name.startswith(ART):
        theirs: type[Detector] = resolve(ART_DETECTORS, art_detector_name(name), "detector")
        return theirs
    kind: type[Detector] = resolve(DETECTORS, name, "detector")
    return kind


def declared(name: str) -> type[Detector] | dict[str, Any]:
    """Where the options of `name` are declared: its class, or for a detector of PyOD their types by name.

    Loads PyOD for that. Raises `MissingPackageError` without it.
    """
    if not name.startswith(PREFIX):
        return kind_of(name)
    from robustgen.detectors.pyod import parameters_of

    return parameters_of(name) | {"most": int, "scale": Scale}


def accepts(name: str, option: str) -> bool:
    """Whether detector `name` has such an option. Raises `UsageError` for an unknown name."""
    return option in inspect.signature(kind_of(name)).parameters


def make(name: str, options: Mapping[str, Any]) -> Detector:
    """A fresh detector by name. Raises `UsageError` for an unknown name or option, or a value of the wrong type.

    Of a detector of PyOD ("pyod:KNN") the options are PyOD's, and `most`, `scale` and `seed`.
    """
    kind = kind_of(name)
    if name.startswith(PREFIX):
        options = pyod_options(name, options)
    known = list(inspect.signature(kind).parameters)
    for option in options:
        if option not in known:
            raise UsageError(f"{name} has no option {option!r}: it has {', '.join(known)}")
    try:
        return kind(**options)
    except TypeError as error:
        raise UsageError(f"{name} cannot be made with {dict(options)}: {error}") from error
