"""The classifiers that the measurements attack: made once, the way `robustgen train` makes them."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from robustgen.artifacts import is_artifact, staged
from robustgen.data.source import Source
from robustgen.evaluation.adversaries import adversary
from robustgen.models.load import load_model
from robustgen.training.classifier import default_epochs, train
from robustgen.training.descent import Recipe

EPS = 0.1


class Inputs(NamedTuple):
    """The first rows of a test split: `x` (n, *shape) and labels `y` (n,)."""

    x: Tensor
    y: Tensor


def first(source: Source, n: int) -> Inputs:
    """The first `n` test inputs of a labelled source."""
    batch = source.read(source.rows("test")[:n])
    assert batch.y is not None  # victims() has trained on it
    return Inputs(batch.x, batch.y)


def victims(source: Source, folder: Path) -> dict[str, nn.Module]:
    """`plain` and `adversarial` (one step of FGSM from a random start, Linf 0.1) from `folder`, trained if absent."""
    found = {}
    for name in ("plain", "adversarial"):
        if not is_artifact(folder / name):
            against, config = adversary("fast-fgsm", source.spec, eps=EPS) if name == "adversarial" else (None, None)
            recipe = Recipe(epochs=default_epochs(len(source.rows("train"))))
            made = train(source, "small-cnn", recipe=recipe, adversary=against, adversary_config=config)
            with staged(folder / name, False, "victim") as directory:
                made.save(directory)
        found[name] = load_model(str(folder / name)).network
    return found


def predictions(network: nn.Module, x: Tensor) -> Tensor:
    """Predicted classes, in batches of 500."""
    with torch.no_grad():
        return torch.cat([network(part).argmax(1) for part in x.split(500)])
