"""What a guard is made of, as its maker gives it: checked, and in one form."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from numbers import Real

import torch
from torch import nn

from robustgen.artifacts import state_digest
from robustgen.calibration import Threshold
from robustgen.data.source import DataSpec
from robustgen.detectors.calibrated import CalibratedDetector
from robustgen.errors import UsageError
from robustgen.metrics import Array
from robustgen.models.load import LoadedModel

Detectors = CalibratedDetector | Sequence[CalibratedDetector] | Mapping[str, Sequence[CalibratedDetector]]
"""One detector, several that look for the same, or several channels of them by name."""

ALONE = "flagged"
"""The verdict of the only channel where none is named."""
NORMAL = "normal"


def as_loaded(network: nn.Module) -> LoadedModel:
    """Your own network, ready to judge."""
    return LoadedModel(network.eval(), type(network).__name__, state_digest(network.state_dict()))


def precision_of(network: nn.Module) -> torch.dtype:
    """In what it computes: that of its first parameter."""
    return next((p.dtype for p in network.parameters() if p.is_floating_point()), torch.float32)


def by_channel(detectors: Detectors) -> dict[str, list[CalibratedDetector]]:
    """By channel, without empty ones. Raises `UsageError` for what is no fitted detector, and names that are none."""
    if isinstance(detectors, CalibratedDetector):
        return {ALONE: [detectors]}
    by_name = detectors if isinstance(detectors, Mapping) else {ALONE: detectors}
    for came in by_name.values():
        if isinstance(came, str) or not isinstance(came, Sequence):
            raise UsageError(_no_detectors(came))
    grouped = {name: list(members) for name, members in by_name.items() if len(members)}
    for one in (one for members in grouped.values() for one in members):
        if not isinstance(one, CalibratedDetector):
            raise UsageError(_no_detectors(one))
    if not grouped:
        raise UsageError("a guard needs at least one detector, and none came")
    for name in grouped:
        if not name.isidentifier() or name == NORMAL:
            raise UsageError(f"a channel is named by letters, digits and _, and not {NORMAL!r}, but {name!r} came")
    return grouped


def _no_detectors(came: object) -> str:
    return (
        "a guard takes fitted detectors: one, a list of them, or lists of them by channel, but "
        f"{came if isinstance(came, str) else type(came).__name__!r} came: give CalibratedDetector.fit(name, source), "
        "or CalibratedDetector.load(path)"
    )


def as_threshold(given: Threshold | float, calibration_scores: Array) -> Threshold:
    """A score as a threshold: its false-alarm rate is the one for which calibration allows as many held-out inputs
    above it. Raises `UsageError` for what is no score, and one below all of these.
    """
    if isinstance(given, Threshold):
        return given
    if isinstance(given, bool) or not isinstance(given, Real) or not math.isfinite(given):
        raise UsageError(
            f"a guard's threshold is a Threshold or a score, but {given!r} came: leave it out, or calibrate"
        )
    n, above = len(calibration_scores), int((calibration_scores > given).sum())
    if above == n:
        raise UsageError(
            f"the threshold {given:g} would reject every one of the {n} held-out inputs, whose scores begin at "
            f"{calibration_scores.min():g}: give a higher one, or leave it out"
        )
    return Threshold(float(given), (above + 1) / (n + 1), n)


def one_form(everyone: Sequence[CalibratedDetector]) -> DataSpec:
    """Of the data that all of them judge. Raises `UsageError` where their forms differ."""
    first = everyone[0].spec
    for other in everyone[1:]:
        if (other.spec.shape, other.spec.low, other.spec.high) != (first.shape, first.low, first.high):
            raise UsageError(
                f"the detectors judge inputs of different forms: {everyone[0].name} was fitted on {first.name!r} "
                f"{first.shape}, {other.name} on {other.spec.name!r} {other.spec.shape}"
            )
    return first
