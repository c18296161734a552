"""A fitted detector with its threshold: what `robustgen fit` makes and `robustgen detect` uses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, final

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from robustgen.artifacts import Artifact, read_artifact, write_artifact
from robustgen.calibration import Threshold, calibrate, p_values
from robustgen.data.rows import as_rows
from robustgen.data.source import DataSpec, Source, Split
from robustgen.detectors.attribution import attribute, occlusion, typical
from robustgen.detectors.base import Detector
from robustgen.detectors.codes import Codes, require_form
from robustgen.detectors.features import FeatureRows, Features
from robustgen.detectors.learned import learns_alone, told
from robustgen.detectors.making import make
from robustgen.detectors.mismatches import mismatches
from robustgen.detectors.raw_likelihood import RawLikelihood, beside_raw_likelihood
from robustgen.detectors.record import Recorded
from robustgen.detectors.self_test import MOST, SelfTest, self_test
from robustgen.detectors.streaming import Streaming, as_streaming
from robustgen.detectors.through import Watcher, seen_through
from robustgen.detectors.variational import VariationalDetector
from robustgen.errors import ArtifactError, DataError, UsageError
from robustgen.metrics import Array
from robustgen.models.build import from_config
from robustgen.models.load import LoadedModel
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

    `features`: the classifier layer, or the code of another detector, that it looks at instead of the input itself, or
    None. `model`: where that classifier came from, or the one against whose predictions a conditional detector judges
    inputs. `raw`: for a variational autoencoder, what its likelihood by itself would have said.
    `self_test`: how the score did on made-up anomalies after fitting. `typical`: with `features`, the median input
    (*shape), from which explanations start.
    """

    name: str
    detector: Detector
    threshold: Threshold
    calibration_scores: Array
    spec: DataSpec
    n_train: int
    features: Features | Codes | None = None
    model: LoadedModel | None = None
    raw: RawLikelihood | None = None
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
        codec: CalibratedDetector | None = None,
        device: torch.device | None = None,
        batch_size: int = 500,
        checkpoint: Path | None = None,
        progress: TrainingProgress | None = None,
        learned: Detector | None = None,
    ) -> CalibratedDetector:
        """Fit detector `name` on the source's training split and calibrate it on the calibration split, which it never
        saw.

        `options`: the detector's constructor arguments. `model`: look at inputs through this classifier's `layer`.
        `checkpoint`: a file from which a killed training goes on.
        `codec`: look at inputs through the code of this detector, fitted on inputs of the same form.
        `learned`: detector `name` as `learn` fitted it on this training split with these options, to be calibrated
        alone.
        Raises `UsageError` for unknown names, options or rates, `DataError` for data that cannot be used.
        """
        device = device or torch.device("cpu")
        detector = make(name, told(name, source.spec, options or {})).to(device)
        if learned is not None:
            detector = _same(name, detector, learned).to(device)
        n_calibration = len(source.rows("calibration"))
        calibrate(
            np.arange(n_calibration), fpr
        )  # too few held-out inputs for this rate: say so before training, not after
        rows = as_rows(source)
        features: Features | Codes | None = seen_through(detector, name, source, model, layer, device)
        if codec is not None:
            if model is not None:
                raise UsageError("a detector looks through a model or through the code of another, not both: give one")
            require_form(codec.spec, source.spec)
            features = codec.codes().to(device)
        seen = rows if features is None else FeatureRows(rows, features, device)
        if learned is None:
            detector.fit(seen, progress=progress, checkpoint=checkpoint)
        unfinished = cls(
            name, detector, Threshold(0.0, fpr, n_calibration), np.zeros(1), source.spec, len(rows), features, model
        )
        scores = unfinished.scores(source, "calibration", batch_size)
        if not np.isfinite(scores).all():
            raise DataError(
                f"{name} gave NaN or infinite scores on held-out inputs of {source.spec.name!r}: are some columns or "
                "pixels extreme?"
            )
        held_out = source.read(source.spread("calibration", MOST)).x.to(device)
        raw = None
        if isinstance(detector, VariationalDetector) and features is None:
            raw = beside_raw_likelihood(detector, held_out, unfinished.condition)
        return replace(
            unfinished,
            threshold=calibrate(scores, fpr),
            calibration_scores=np.sort(scores),
            raw=raw,
            self_test=self_test(
                unfinished.score,
                held_out,
                source.spec.kind,
                source.spec.low,
                source.spec.high,
                mismatches=mismatches(detector, unfinished.score, None if model is None else model.network, held_out),
            ),
            typical=None if features is None else typical(rows),
        )

    def score(self, x: Float[Tensor, "n *shape"], label: Int64[Tensor, " n"] | None = None) -> Float[Tensor, " n"]:
        """Anomaly scores of inputs in the data's own range, differentiable in `x`. `label`: what a conditional detector
        judges them against; None = what its classifier predicts.
        """
        condition = label if label is not None and self.detector.conditional else self.condition(x)
        return self.detector.score(x if self.features is None else self.features(x), condition)

    def condition(self, x: Float[Tensor, "n *shape"]) -> Int64[Tensor, " n"] | None:
        """The labels that the classifier predicts, for a detector that judges inputs against them."""
        if not self.detector.conditional or self.model is None:
            return None
        with torch.no_grad():
            label: Tensor = self.model.network(x).argmax(1)
        return label

    def update(self, x: Float[Tensor, "n *shape"]) -> None:
        """Take in further inputs; threshold and held-out scores stay. Raises `UsageError` for a detector that takes in
        nothing after its fit.
        """
        streaming = as_streaming(self.detector, self.name)
        with torch.no_grad():
            seen = x.to(self.device)
            streaming.partial_fit(seen if self.features is None else self.features(seen))

    def explain(self, x: Float[Tensor, "n *shape"]) -> Float[Tensor, "n *shape"]:
        """How much each value of an input adds to its score: see `Detector.explain`.

        Through a classifier's features, gradients are integrated from the median training input.
        """
        x = x.to(self.device)
        if self.features is None:
            return self.detector.explain(x, self.condition(x))
        if self.usual is None:
            raise ArtifactError("this detector was fitted before explanations were known: fit it again")
        start = self.usual.to(x)
        if self.detector.differentiable:
            return attribute(self.score, x, start.expand_as(x))
        with torch.no_grad():
            return occlusion(self.score, x, start)

    @property
    def usual(self) -> Tensor | None:
        """The median training input (*shape), from which explanations start."""
        return self.detector.typical if self.features is None else self.typical

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
            "layer": self._layer,
            "codes_of": self.features.name if isinstance(self.features, Codes) else None,
            "facts": self.detector.facts() if isinstance(self.detector, Streaming) else {},
            "training": self.detector.record.verdict() if isinstance(self.detector, Recorded) else None,
            "training_warnings": self.detector.record.warnings() if isinstance(self.detector, Recorded) else [],
            "raw_likelihood": None if self.raw is None else self.raw.to_json(),
            "self_test": None if self.self_test is None else self.self_test.to_json(),
            "versions": versions(),
        }

    def codes(self) -> Codes:
        """What the detector makes of an input before it scores it, for others to look at. Raises `UsageError` if it has
        no code of the input.
        """
        if self.features is not None:
            what = "the code of another detector" if isinstance(self.features, Codes) else "a model"
            raise UsageError(f"this {self.name} looks through {what}, so it has no code of the inputs: give another")
        return Codes(self.name, self.detector)

    @property
    def _layer(self) -> str | None:
        return self.features.layer if isinstance(self.features, Features) else None

    @property
    def device(self) -> torch.device:
        """Where the detector is."""
        return self.detector._device

    def to(self, device: torch.device) -> CalibratedDetector:
        """Move the detector, and the classifier it looks through, to `device`."""
        self.detector.to(device)
        if self.features is not None:
            self.features.to(device)
        elif self.model is not None:
            self.model.network.to(device)
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
            "layer": self._layer,
            "codes": self.features.config if isinstance(self.features, Codes) else None,
            "model": None if self.model is None else self.model.to_config(),
            "raw_likelihood": None if self.raw is None else self.raw.to_json(),
            "self_test": None if self.self_test is None else self.self_test.to_json(),
        }
        tensors = {f"detector.{key}": value for key, value in self.detector.state_dict().items()}
        tensors["calibration_scores"] = torch.from_numpy(self.calibration_scores)
        if isinstance(self.features, Codes):
            tensors |= {f"codes.{key}": value for key, value in self.features.detector.state_dict().items()}
        if self.typical is not None:
            tensors["typical"] = self.typical
        if self.model is not None and self.model.rebuild is not None:
            tensors |= {f"model.{key}": value for key, value in self.model.network.state_dict().items()}
        write_artifact(directory, "detector", config, tensors)

    @classmethod
    def load(cls, path: Path | str, model: LoadedModel | None = None) -> CalibratedDetector:
        """Read a saved detector. `model`: the classifier it looks through, if that was not stored with it.

        Raises `ArtifactError` if the artifact is damaged, `UsageError` if another classifier is given than it was
        fitted with.
        """
        path = Path(path)
        artifact = read_artifact(path, "detector")
        config = artifact.config
        try:
            if config["model"] is not None:
                model = stored_model(artifact, config["model"], model)
            elif model is not None:
                raise UsageError(f"{path} judges the inputs themselves, not through a model: leave out --model")
            detector = make(config["detector"], config["options"])
            features: Features | Codes | None = None
            if model is not None and isinstance(detector, Watcher):
                detector.watch(model.network)
            elif model is not None and not detector.conditional:
                features = Features(model.network, config["layer"])
            if config.get("codes") is not None:
                features = Codes.restore(config["codes"], _under("codes.", artifact))
            detector.restore(tuple(config["shape"]), _under("detector.", artifact))
            return cls(
                config["detector"],
                detector,
                Threshold(**config["threshold"]),
                artifact.tensors["calibration_scores"].double().numpy(),
                DataSpec.from_json(config["data"]),
                config["n_train"],
                features,
                model,
                None if config.get("raw_likelihood") is None else RawLikelihood(**config["raw_likelihood"]),
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


def stored_model(artifact: Artifact, stored: Mapping[str, Any], given: LoadedModel | None) -> LoadedModel:
    """The classifier that an artifact was made with, from what `LoadedModel.to_config` said of it: the one given, or
    the one stored there. Raises `UsageError` if that is another one, or there is none.
    """
    if given is not None:
        if given.sha256 != stored["sha256"]:
            raise UsageError(
                f"{artifact.path} was made with the model {stored['origin']}, and --model {given.origin} has other "
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


def _same(name: str, asked: Detector, learned: Detector) -> Detector:
    """`learned`, if it is what is `asked` for. Raises `UsageError` if it is another detector or has other options."""
    if not learns_alone(name):
        raise UsageError(f"{name} learns together with its threshold: leave out learned")
    known = {option: value for option, value in asked.config.items() if value is not None}  # others came from the data
    if type(learned) is not type(asked) or not known.items() <= learned.config.items():
        raise UsageError(f"what was learned is {type(learned).__name__} {learned.config}, but {name} {known} is asked")
    return learned
