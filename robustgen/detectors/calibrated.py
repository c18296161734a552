"""A fitted detector with its threshold: what `robustgen fit` makes and `robustgen detect` uses."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, final

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from robustgen.artifacts import Artifact, read_artifact, write_artifact
from robustgen.calibration import Threshold, calibrate, p_values
from robustgen.data.rows import as_rows
from robustgen.data.source import DataSpec, Source, Split
from robustgen.detectors import DETECTORS
from robustgen.detectors.attribution import attribute, occlusion, typical
from robustgen.detectors.base import Detector
from robustgen.detectors.features import FeatureRows, Features
from robustgen.detectors.self_test import MOST, SelfTest, self_test
from robustgen.errors import ArtifactError, DataError, UsageError
from robustgen.metrics import Array
from robustgen.models.build import from_config
from robustgen.models.load import LoadedModel
from robustgen.registry import resolve
from robustgen.runtime import versions
from robustgen.training.descent import TrainingProgress


class Verdicts(NamedTuple):
    """For n inputs: scores, p-values and whether each is flagged, all of shape (n,)."""

    score: Array
    p_value: Array
    flagged: Any


@final
@dataclass(frozen=True)
class CalibratedDetector:
    """A detector, its threshold, the held-out scores behind it, and the form of the data it judges.

    `features`: the classifier layer that it looks at instead of the input itself, or None. `model`: where that
    classifier came from. `self_test`: how the score did on made-up anomalies after fitting.
    `typical`: with `features`, the median input (*shape), from which explanations start.
    """

    name: str
    detector: Detector
    threshold: Threshold
    calibration_scores: Array
    spec: DataSpec
    n_train: int
    features: Features | None = None
    model: LoadedModel | None = None
    self_test: SelfTest | None = None
    typical: Tensor | None = None

    @classmethod
    def fit(
        cls,
        name: str,
        source: Source,
        *,
        fpr: float = 0.05,
        options: Mapping[str, Any] | None = None,
        model: LoadedModel | None = None,
        layer: str | None = None,
        device: torch.device | None = None,
        batch_size: int = 500,
        progress: TrainingProgress | None = None,
    ) -> CalibratedDetector:
        """Fit detector `name` on the source's training split and calibrate it on the calibration split, which it never
        saw.

        `options`: the detector's constructor arguments. `model`: look at inputs through this classifier's `layer`.
        Raises `UsageError` for unknown names, options or rates, `DataError` for data that cannot be used.
        """
        device = device or torch.device("cpu")
        detector = make(name, options or {}).to(device)
        n_calibration = len(source.rows("calibration"))
        calibrate(
            np.arange(n_calibration), fpr
        )  # too few held-out inputs for this rate: say so before training, not after
        rows = as_rows(source)
        features = None if model is None else Features(model.network.to(device), layer)
        detector.fit(rows if features is None else FeatureRows(rows, features, device), progress=progress)
        unfinished = cls(
            name, detector, Threshold(0.0, fpr, n_calibration), np.zeros(1), source.spec, len(rows), features, model
        )
        scores = unfinished.scores(source, "calibration", batch_size)
        if not np.isfinite(scores).all():
            raise DataError(
                f"{name} gave NaN or infinite scores on held-out inputs of {source.spec.name!r}: are some columns or "
                "pixels extreme?"
            )
        threshold, spec = calibrate(scores, fpr), source.spec
        held_out = source.read(source.spread("calibration", MOST)).x.to(device)
        tested = self_test(unfinished.score, held_out, spec.kind, spec.low, spec.high)
        start = None if features is None else typical(rows)
        return cls(name, detector, threshold, np.sort(scores), spec, len(rows), features, model, tested, start)

    def score(self, x: Float[Tensor, "n *shape"]) -> Float[Tensor, " n"]:
        """Anomaly scores of inputs in the data's own range, differentiable in `x`."""
        return self.detector.score(x if self.features is None else self.features(x))

    def explain(self, x: Float[Tensor, "n *shape"]) -> Float[Tensor, "n *shape"]:
        """How much each value of an input adds to its score: see `Detector.explain`.

        Through a classifier's features, gradients are integrated from the median training input.
        """
        x = x.to(self.device)
        if self.features is None:
            return self.detector.explain(x)
        if self.typical is None:
            raise ArtifactError("this detector was fitted before explanations were known: fit it again")
        start = self.typical.to(x)
        if self.detector.differentiable:
            return attribute(self.score, x, start.expand_as(x))
        with torch.no_grad():
            return occlusion(self.score, x, start)

    def scores(self, source: Source, split: Split, batch_size: int = 500) -> Array:
        """The scores of a whole split, in the rows' order."""
        with torch.no_grad():
            parts = [
                self.score(batch.x.to(self.device)).double().cpu().numpy()
                for batch in source.batches(split, batch_size)
            ]
        if not parts:
            raise DataError(f"none of the {split} inputs of {source.spec.name!r} could be read")
        return np.concatenate(parts)

    def judge(self, x: Float[Tensor, "n *shape"]) -> Verdicts:
        """Scores, p-values and verdicts."""
        with torch.no_grad():
            scores = self.score(x.to(self.device)).double().cpu().numpy()
        return Verdicts(scores, p_values(scores, self.calibration_scores), scores > self.threshold.value)

    def summary(self) -> dict[str, Any]:
        """What is known of it, as plain values for JSON."""
        return {
            "detector": self.name,
            "options": self.detector.config,
            "data": self.spec.name,
            "data_sha256": self.spec.sha256,
            "n_train": self.n_train,
            "n_calibration": self.threshold.n_calibration,
            "fpr": self.threshold.fpr,
            "threshold": self.threshold.value,
            "model": None if self.model is None else self.model.origin,
            "layer": None if self.features is None else self.features.layer,
            "self_test": None if self.self_test is None else self.self_test.to_json(),
            "versions": versions(),
        }

    @property
    def device(self) -> torch.device:
        """Where the detector is."""
        return self.detector._device

    def to(self, device: torch.device) -> CalibratedDetector:
        """Move the detector, and the classifier it looks through, to `device`."""
        self.detector.to(device)
        if self.features is not None:
            self.features.to(device)
        return self

    def at(self, fpr: float) -> CalibratedDetector:
        """The same detector with the threshold for another false-alarm rate, from the same held-out scores."""
        return replace(self, threshold=calibrate(self.calibration_scores, fpr))

    def save(self, directory: Path) -> None:
        """Write everything needed to judge again into `directory`, a staged one; a known classifier goes with it."""
        config = {
            "detector": self.name,
            "options": self.detector.config,
            "shape": self.detector.shape,
            "threshold": asdict(self.threshold),
            "data": self.spec.to_json(),
            "n_train": self.n_train,
            "layer": None if self.features is None else self.features.layer,
            "model": None if self.model is None else self._model_config(self.model),
            "self_test": None if self.self_test is None else self.self_test.to_json(),
        }
        tensors = {f"detector.{key}": value for key, value in self.detector.state_dict().items()}
        tensors["calibration_scores"] = torch.from_numpy(self.calibration_scores)
        if self.typical is not None:
            tensors["typical"] = self.typical
        if self.model is not None and self.model.rebuild is not None:
            tensors |= {f"model.{key}": value for key, value in self.model.network.state_dict().items()}
        write_artifact(directory, "detector", config, tensors)

    def _model_config(self, model: LoadedModel) -> dict[str, Any]:
        needed = None if model.rebuild is None else {key: model.rebuild[key] for key in ("arch", "shape", "classes")}
        return {"origin": model.origin, "sha256": model.sha256, "rebuild": needed}

    @classmethod
    def load(cls, path: Path, model: LoadedModel | None = None) -> CalibratedDetector:
        """Read a saved detector. `model`: the classifier it looks through, if that was not stored with it.

        Raises `ArtifactError` if the artifact is damaged, `UsageError` if another classifier is given than it was
        fitted with.
        """
        artifact = read_artifact(path, "detector")
        config = artifact.config
        try:
            if config["model"] is not None:
                model = _stored_model(artifact, config["model"], model)
            elif model is not None:
                raise UsageError(f"{path} judges the inputs themselves, not through a model: leave out --model")
            detector = make(config["detector"], config["options"])
            detector.restore(tuple(config["shape"]), _under("detector.", artifact))
            return cls(
                config["detector"],
                detector,
                Threshold(**config["threshold"]),
                artifact.tensors["calibration_scores"].double().numpy(),
                DataSpec.from_json(config["data"]),
                config["n_train"],
                None if model is None else Features(model.network, config["layer"]),
                model,
                None if config.get("self_test") is None else SelfTest(**config["self_test"]),
                artifact.tensors.get("typical"),
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ArtifactError(
                f"{path} does not say what a detector needs ({type(error).__name__}: {error}): fit it again with this "
                "version of robustgen"
            ) from error


def _under(prefix: str, artifact: Artifact) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in artifact.tensors.items() if key.startswith(prefix)}


def _stored_model(artifact: Artifact, stored: Mapping[str, Any], given: LoadedModel | None) -> LoadedModel:
    if given is not None:
        if given.sha256 != stored["sha256"]:
            raise UsageError(
                f"{artifact.path} was fitted with the model {stored['origin']}, and --model {given.origin} has other "
                "weights"
            )
        return given
    if stored["rebuild"] is None:
        raise UsageError(
            f"{artifact.path} looks through the model {stored['origin']}, which is your own code and is not stored "
            "with it: "
            f"give the same --model (and --weights) again"
        )
    network = from_config(stored["rebuild"], _under("model.", artifact), str(artifact.path))
    return LoadedModel(network.eval(), stored["origin"], stored["sha256"], None, stored["rebuild"])


def _options(name: str) -> list[str]:
    return [
        option
        for option in inspect.signature(resolve(DETECTORS, name, "detector").__init__).parameters
        if option != "self"
    ]


def accepts(name: str, option: str) -> bool:
    """Whether detector `name` has such an option. Raises `UsageError` for an unknown name."""
    return option in _options(name)


def make(name: str, options: Mapping[str, Any]) -> Detector:
    """A fresh detector by name. Raises `UsageError` for an unknown name or option, or a value of the wrong type."""
    known = _options(name)
    for option in options:
        if option not in known:
            raise UsageError(f"{name} has no option {option!r}: it has {', '.join(known)}")
    try:
        detector: Detector = resolve(DETECTORS, name, "detector")(**options)
    except TypeError as error:
        raise UsageError(f"{name} cannot be made with {dict(options)}: {error}") from error
    return detector
