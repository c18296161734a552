"""The whole story on one data set: a classifier, attacks on it, detectors, and what these catch."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from robustgen import runtime
from robustgen.attacks.base import Attack
from robustgen.attacks.fgsm import FGSM
from robustgen.attacks.pgd import PGD
from robustgen.data.load import load
from robustgen.data.photographs import photographs
from robustgen.data.source import Source, Split
from robustgen.detectors.calibrated import CalibratedDetector
from robustgen.errors import DataError
from robustgen.evaluation.blocks import stored
from robustgen.evaluation.detection import Separation, scores_of, separate
from robustgen.evaluation.robustness import Robustness, evaluate_attack
from robustgen.metrics import Array, Estimate
from robustgen.randomness import sample_keys, uniform
from robustgen.threat import ThreatModel
from robustgen.training.classifier import TrainedClassifier, default_epochs, train
from robustgen.training.descent import Recipe, TrainingProgress

Stage = Callable[[str, float], None]
"""Told the name of the stage that begins and the share of the work done so far."""

DETECTORS = ("pca", "k-means", "autoencoder")
_MOST = {"train": 12_000, "calibration": 2_000, "test": 1_000}  # inputs of each split: a story, not a benchmark
_SAMPLES = 120_000  # inputs shown to a network of larger images in all


@dataclass(frozen=True)
class Settings:
    """What the demo is run on. `eps`: None = 8/255 for colour, 0.1 for grey images, 0.2 for 8 x 8 ones."""

    data: str = "digits"
    eps: float | None = None
    fpr: float = 0.05
    seed: int = 0
    device: str = "auto"
    size: tuple[int, int] | None = None


@dataclass(frozen=True)
class Outcome:
    """All that the report shows. `inputs`: the scored inputs of each kind; `scores`: detector -> kind -> scores."""

    settings: Settings
    source: Source
    classifier: TrainedClassifier
    attacks: dict[str, Robustness]
    clean: Tensor
    labels: Tensor
    adversarial: dict[str, Tensor]
    inputs: dict[str, Tensor]
    detectors: dict[str, CalibratedDetector]
    scores: dict[str, dict[str, Array]]
    separations: dict[str, dict[str, Separation]]
    results: dict[str, Any]

    @property
    def kinds(self) -> tuple[str, ...]:
        """Kinds of inputs that are scored, clean ones first."""
        return tuple(self.inputs)

    def accuracy_rows(self) -> list[tuple[str, str, str]]:
        """Clean and robust accuracy, one row each, for a table."""
        threat = next(iter(self.attacks.values())).summary
        found = [("clean", next(iter(self.attacks.values())).clean_accuracy)]
        found += [
            (f"under {name} ({threat['norm']}, eps {threat['eps']:g})", robustness.robust_accuracy)
            for name, robustness in self.attacks.items()
        ]
        return [(name, percent(estimate.value), interval(estimate)) for name, estimate in found]

    def detection_rows(self) -> list[tuple[str, ...]]:
        """Per detector, the share flagged of each kind of input, for a table."""
        rows = []
        for name, separations in self.separations.items():
            alarms = next(iter(separations.values())).false_alarms
            rows.append(
                (
                    name,
                    percent(alarms.value),
                    *(percent(separation.detected.value) for separation in separations.values()),
                )
            )
        return rows


def percent(share: float) -> str:
    """0.123 -> 12.3 %."""
    return f"{100 * share:.1f} %"


def interval(estimate: Estimate) -> str:
    """The 95 % interval of a share, in percent."""
    return f"{100 * estimate.low:.1f} to {100 * estimate.high:.1f} %"


def run(settings: Settings, stage: Stage = lambda name, share: None) -> Outcome:
    """Train, attack, fit, calibrate and score. Raises `DataError` unless the data are labelled grey or RGB images."""
    began = time.perf_counter()
    stage("reading the data", 0.0)
    device = runtime.device(settings.device)
    source = load(settings.data, size=settings.size)
    spec = source.spec
    if spec.kind != "image" or spec.shape[0] not in (1, 3):
        raise DataError(
            f"the demo shows pictures and needs grey or RGB images, but {spec.name!r} is {spec.kind} data of shape "
            f"{spec.shape}"
        )
    eps = settings.eps if settings.eps is not None else _usual_eps(spec.shape)
    threat = ThreatModel("linf", eps, spec.low, spec.high)

    stage("training the classifier", 0.02)
    source.splits = {name: source.spread(cast(Split, name), _MOST.get(name)) for name in source.splits}
    n = len(source.rows("train"))
    epochs = max(3, _SAMPLES // n) if math.prod(spec.shape) > 256 else default_epochs(n)
    recipe = Recipe(epochs=epochs, seed=settings.seed)
    classifier = train(
        source, recipe=recipe, device=device, progress=_staged(stage, "training the classifier", 0.02, 0.4)
    )
    network = classifier.model.network.to(device)
    attacks: dict[str, Attack] = {
        "fgsm": FGSM(threat=threat, seed=settings.seed),
        "pgd": PGD(threat=threat, seed=settings.seed),
    }
    robustness, adversarial = {}, {}
    for number, (name, attack) in enumerate(attacks.items()):
        stage(f"attacking with {name}", 0.42 + 0.04 * number)
        with TemporaryDirectory() as folder:
            robustness[name] = evaluate_attack(name, attack, network, source, device=device, directory=Path(folder))
            adversarial[name] = torch.from_numpy(np.concatenate(list(stored(Path(folder), "x_adv"))))

    batch = source.read(source.rows("test"))
    assert batch.y is not None  # training has seen to it
    clean, labels = batch.x, batch.y
    inputs = {"clean": clean}
    for name, x_adv in adversarial.items():
        # only inputs that fooled the classifier count as adversarial: failed attempts would flatter or blur the figures
        fooled = torch.from_numpy(robustness[name].samples["success"])
        if bool(fooled.any()):
            inputs[name] = x_adv[fooled]
    inputs["noise"] = _sign_noise(clean, threat, settings.seed)
    inputs["foreign"] = photographs(spec, min(500, len(clean)), settings.seed)

    options: dict[str, dict[str, Any]] = {
        "k-means": {"seed": settings.seed},
        "autoencoder": {"seed": settings.seed, "epochs": epochs if math.prod(spec.shape) > 256 else None},
    }
    detectors, scores, separations = {}, {}, {}
    for number, name in enumerate(DETECTORS):
        share = 0.5 + 0.15 * number
        stage(f"fitting {name}", share)
        detectors[name] = CalibratedDetector.fit(
            name,
            source,
            fpr=settings.fpr,
            options=options.get(name),
            device=device,
            progress=_staged(stage, f"fitting {name}", share, 0.15),
        )
        scores[name] = {kind: scores_of(detectors[name], x) for kind, x in inputs.items()}
        normal = scores[name]["clean"]
        separations[name] = separate(
            detectors[name].threshold.value, normal, {kind: s for kind, s in scores[name].items() if kind != "clean"}
        )
    stage("writing the report", 0.97)
    results = _results(settings, source, classifier, robustness, detectors, separations, time.perf_counter() - began)
    return Outcome(
        settings,
        source,
        classifier,
        robustness,
        clean,
        labels,
        adversarial,
        inputs,
        detectors,
        scores,
        separations,
        results,
    )


def _usual_eps(shape: tuple[int, ...]) -> float:
    """A change that a person still reads through: 8/255 in colour, 0.1 in grey, 0.2 where a digit has 8 x 8 pixels."""
    return 8 / 255 if shape[0] == 3 else 0.1 if min(shape[1:]) > 8 else 0.2


def _staged(stage: Stage, name: str, begin: float, length: float) -> TrainingProgress:
    return lambda done, of, loss: stage(name, begin + length * done / of)


def _sign_noise(x: Tensor, threat: ThreatModel, seed: int) -> Tensor:
    """Random signs of the attack's own size: a detector that flags these as often sees perturbation, not attack."""
    sign = torch.where(uniform(sample_keys(x, seed + 1), tuple(x.shape[1:])) < 0.5, -1.0, 1.0)
    return threat.project(x + threat.eps * sign, x)


def _results(
    settings: Settings,
    source: Source,
    classifier: TrainedClassifier,
    attacks: dict[str, Robustness],
    detectors: dict[str, CalibratedDetector],
    separations: dict[str, dict[str, Separation]],
    seconds: float,
) -> dict[str, Any]:
    def plain(estimate: Estimate) -> dict[str, Any]:
        return {"value": estimate.value, "interval": [estimate.low, estimate.high], "n": estimate.n}

    return {
        "data": source.spec.name, "data_sha256": source.spec.sha256, "fpr": settings.fpr, "seed": settings.seed,
        "classifier": classifier.summary, "attacks": {name: robustness.summary for name, robustness in attacks.items()},
        "detectors": {
            name: fitted.summary() | {
                "false_alarm_rate": plain(next(iter(separations[name].values())).false_alarms),
                "kinds": {
                    kind: {"detection_rate": plain(s.detected), "auroc": plain(s.auroc)}
                    for kind, s in separations[name].items()
                },
            }
            for name, fitted in detectors.items()
        },
        "skipped": dict(source.skipped), "seconds": seconds, "versions": runtime.versions(),
    }  # fmt: skip
