"""Detectors beside a classifier, made for tests."""

from __future__ import annotations

from typing import Any

from torch import nn

from robustgen.detectors.base import Detector
from robustgen.detectors.making import make
from robustgen.detectors.watching import WatchingDetector

QUICK: dict[str, dict[str, Any]] = {"magnet": {"epochs": 8}, "denoise-consistency": {"epochs": 8, "draws": 1}}


def watching(name: str, classifier: nn.Module, **options: Any) -> Detector:
    """A fresh detector beside `classifier`."""
    detector = make(name, QUICK.get(name, {}) | options)
    assert isinstance(detector, WatchingDetector)
    detector.watch(classifier)
    return detector
