"""A detector that has learnt its training inputs, without a threshold yet.

What a conditional detector learns, it learns of inputs and their own labels: a classifier comes in only when it is
calibrated. So one that is to stand beside several classifiers learns once.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from robustgen.artifacts import read_artifact, write_artifact
from robustgen.data.rows import as_rows
from robustgen.data.source import DataSpec, Source
from robustgen.detectors.base import Detector
from robustgen.detectors.making import accepts, kind_of, make
from robustgen.errors import ArtifactError, UsageError
from robustgen.training.descent import TrainingProgress

_KIND = "learned"


def learns_alone(name: str) -> bool:
    """Whether a classifier beside detector `name` only says against which label to judge an input."""
    kind = kind_of(name)
    return kind.conditional and not hasattr(kind, "watch")


def learn(
    name: str,
    source: Source,
    *,
    options: Mapping[str, Any] | None = None,
    device: torch.device | None = None,
    checkpoint: Path | None = None,
    progress: TrainingProgress | None = None,
) -> Detector:
    """Fit detector `name` on the source's training split; `CalibratedDetector.fit(learned=...)` sets its threshold.

    `options`, `checkpoint`: as there. Raises `UsageError` for unknown names or options, and for a detector that learns
    from a classifier too, `DataError` for data that cannot be used.
    """
    if not learns_alone(name):
        raise UsageError(f"{name} is not learnt apart from its threshold: only detectors of inputs and labels are")
    detector = make(name, told(name, source.spec, options or {})).to(device or torch.device("cpu"))
    detector.fit(as_rows(source), progress=progress, checkpoint=checkpoint)
    return detector


def save_learned(name: str, detector: Detector, directory: Path) -> None:
    """Write a detector of `learn` into `directory`, a staged one."""
    config = {"detector": name, "options": detector.config, "shape": detector.shape}
    write_artifact(directory, _KIND, config, detector.state_dict())


def load_learned(path: Path) -> Detector:
    """Read what `save_learned` wrote. Raises `ArtifactError` if it is damaged."""
    artifact = read_artifact(path, _KIND)
    try:
        detector = make(artifact.config["detector"], artifact.config["options"])
        return detector.restore(tuple(artifact.config["shape"]), artifact.tensors)
    except (KeyError, TypeError, AttributeError) as error:
        raise ArtifactError(f"{path} does not say what a detector needs ({error}): make it again") from error


def told(name: str, spec: DataSpec, options: Mapping[str, Any]) -> Mapping[str, Any]:
    """`options`, and for a detector of pairs what the data says of itself: how many channels are the condition. Raises
    `UsageError` if they disagree.
    """
    channels = spec.columns.count("condition")
    if not channels or not accepts(name, "condition_channels"):
        return options
    asked = options.get("condition_channels")
    if asked not in (None, channels):
        raise UsageError(
            f"the first {channels} channels of {spec.name!r} are the condition, but condition_channels={asked} came: "
            "leave it out"
        )
    return {**options, "condition_channels": channels}
