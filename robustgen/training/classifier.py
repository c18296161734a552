"""From data and an architecture's name to a classifier on disk: what `robustgen train` does."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from robustgen.artifacts import state_digest, write_artifact
from robustgen.data.source import Source
from robustgen.models.build import build
from robustgen.models.load import LoadedModel
from robustgen.runtime import describe, versions
from robustgen.training.descent import Recipe, TrainingProgress
from robustgen.training.supervised import Adversary, accuracy, channel_statistics, check_labels, train_classifier

_SAMPLES = 270_000  # inputs seen in all by default: five epochs of 54,000 images, or sixty of a small set


@dataclass(frozen=True)
class TrainedClassifier:
    """A classifier that takes inputs in the data's own range, and what is known of it (`summary`, plain values for
    JSON).
    """

    model: LoadedModel
    summary: dict[str, Any]

    def save(self, directory: Path) -> None:
        """Write the artifact into `directory`, a staged one."""
        assert self.model.rebuild is not None  # train() made it
        write_artifact(
            directory, "classifier", self.model.rebuild | {"summary": self.summary}, self.model.network.state_dict()
        )


def default_epochs(n: int) -> int:
    """As many passes over `n` inputs as show the network about 270,000 of them: at least 5, at most 60."""
    return min(60, max(5, math.ceil(_SAMPLES / n)))


def train(
    source: Source,
    arch: str = "small-cnn",
    *,
    recipe: Recipe | None = None,
    adversary: Adversary | None = None,
    adversary_config: Mapping[str, Any] | None = None,
    device: torch.device | None = None,
    checkpoint: Path | None = None,
    progress: TrainingProgress | None = None,
) -> TrainedClassifier:
    """Train `arch` on the source's training split and measure its accuracy on the test split.

    `recipe`: None = `default_epochs` of the default recipe. `adversary`: train against it;
    `adversary_config` is what the summary says of it. Raises `DataError` for data without at least two labelled
    classes, `UsageError` for an unknown or unfit architecture.
    """
    check_labels(source)
    began = time.perf_counter()
    device = device or torch.device("cpu")
    n = len(source.rows("train"))
    recipe = recipe or Recipe(epochs=default_epochs(n))
    mean, std = channel_statistics(source)
    network = build(arch, source.spec.shape, len(source.spec.classes), mean=mean, std=std, seed=recipe.seed)
    history = train_classifier(
        network, source, recipe, device=device, adversary=adversary, checkpoint=checkpoint, progress=progress
    )
    measured = accuracy(network, source, device=device)
    network.cpu()
    config = {
        "arch": arch,
        "shape": list(source.spec.shape),
        "classes": list(source.spec.classes),
        "data": source.spec.to_json(),
    }
    summary = {
        "arch": arch,
        "data": source.spec.name,
        "data_sha256": source.spec.sha256,
        "n_train": n,
        "n_test": measured.n,
        "clean_accuracy": measured.value,
        "clean_accuracy_interval": [measured.low, measured.high],
        "parameters": sum(p.numel() for p in network.parameters()),
        "epochs": recipe.epochs,
        "batch_size": recipe.batch_size,
        "learning_rate": recipe.learning_rate,
        "seed": recipe.seed,
        "losses": history,
        "adversarial": dict(adversary_config) if adversary_config else None,
        "seconds": time.perf_counter() - began,
        "skipped": dict(source.skipped),
        "device": describe(device),
        "versions": versions(),
    }
    return TrainedClassifier(
        LoadedModel(network, arch, state_digest(network.state_dict()), source.spec, config), summary
    )
