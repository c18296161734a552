"""Guards on disk: one artifact with its detectors' artifacts inside, and the classifier stored once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from robustgen.artifacts import Artifact, read_artifact, write_artifact
from robustgen.calibration import Threshold
from robustgen.data.source import DataSpec
from robustgen.detectors.calibrated import CalibratedDetector, stored_model
from robustgen.errors import ArtifactError
from robustgen.guard.guard import Guard
from robustgen.models.load import LoadedModel

_MEMBERS, _LEARNT = "members", "guard."


def save(guard: Guard, directory: Path) -> None:
    """See `Guard.save`."""
    channels: dict[str, list[dict[str, Any]]] = {}
    for name, channel in guard.parts.items():
        for number, member in enumerate(channel.everyone):
            place = f"{name}.{number}.{member.name.replace(':', '.')}"
            inside = directory / _MEMBERS / place
            inside.mkdir(parents=True)
            through = None if member.fitted.model is None else replace(guard.loaded, rebuild=None)  # stored once, here
            replace(member.fitted, model=through).save(inside)
            entry = {"place": place, "sha256": read_artifact(inside).sha256, "model": through is not None}
            channels.setdefault(name, []).append(entry)
    config = {
        "classifier": guard.loaded.to_config(),
        "channels": channels,
        "order": list(channels),
        "within": guard.within,
        "across": guard.across.how,
        "threshold": asdict(guard.threshold),
        "data": guard.spec.to_json(),
    }
    tensors = {_LEARNT + name: value for name, value in _learnt(guard).items()}
    tensors["calibration_scores"] = torch.from_numpy(guard.calibration_scores)
    if guard.loaded.rebuild is not None:
        tensors |= {f"model.{name}": value for name, value in guard.classifier.state_dict().items()}
    write_artifact(directory, "guard", config, tensors)


def load(path: Path, model: LoadedModel | None) -> Guard:
    """See `Guard.load`."""
    artifact = read_artifact(path, "guard")
    config = artifact.config
    try:
        classifier = stored_model(artifact, config["classifier"], model)
        if classifier.spec is None:
            classifier = replace(classifier, spec=DataSpec.from_json(config["data"]))
        grouped = {
            name: [_member(artifact, entry, classifier) for entry in config["channels"][name]]
            for name in config["order"]
        }
        guard = Guard(classifier, grouped, within=config["within"], across=config["across"])
        for name, value in artifact.tensors.items():
            if name.startswith(_LEARNT):
                owner, _, leaf = name.removeprefix(_LEARNT).rpartition(".")
                setattr(_module(guard, owner), leaf, value)
        guard.spec = DataSpec.from_json(config["data"])
        guard.take(artifact.tensors["calibration_scores"].double().numpy(), Threshold(**config["threshold"]))
        return guard
    except (KeyError, TypeError, AttributeError) as error:
        raise ArtifactError(
            f"{path} does not say what a guard needs ({type(error).__name__}: {error}): make it again with this "
            "version of robustgen"
        ) from error


def _member(artifact: Artifact, entry: Mapping[str, Any], classifier: LoadedModel) -> CalibratedDetector:
    name = entry["place"]
    if "/" in name or "\\" in name or name in ("", ".", ".."):
        raise ArtifactError(f"a member of {artifact.path} is said to lie in {name!r}, which is no folder of it")
    place = artifact.path / _MEMBERS / name
    if read_artifact(place, "detector").sha256 != entry["sha256"]:
        raise ArtifactError(f"{place} is not the detector that this guard was made with: make the guard again")
    return CalibratedDetector.load(place, classifier if entry["model"] else None)


def _module(guard: Guard, place: str) -> nn.Module:
    """What lies at a place of `_learnt`, which says channels by their names alone."""
    kind, _, inside = place.partition(".")
    if kind != "channels":
        return guard.get_submodule(place)
    name, _, part = inside.partition(".")
    return guard.parts[name].get_submodule(part)


def _learnt(guard: Guard) -> dict[str, Tensor]:
    """What calibration learnt, by where it is."""
    state = {f"across.{name}": value for name, value in guard.across.state_dict().items()}
    for name, channel in guard.parts.items():
        for part in ("evidence", "combine", "own"):
            found = channel.get_submodule(part).state_dict()
            state |= {f"channels.{name}.{part}.{key}": value for key, value in found.items()}
    return state
