"""How far made inputs are from real ones, as one number: the Fréchet distance of their features.

FID (Heusel et al. 2017) takes the features of an Inception network trained on ImageNet. Where that network is not at
hand, the features of a classifier of the data themselves do, and the number has another scale: it says which, and is to
be read beside the distance between two halves of real inputs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from robustgen.detectors.features import Features
from robustgen.errors import DataError, UsageError
from robustgen.models.load import LoadedModel

Embed = Callable[[Tensor], Tensor]
"""Images (n, c, h, w) in [0, 1] -> features (n, k)."""


@dataclass(frozen=True)
class FrechetDistance:
    """`distance` from `n` made inputs to `n` real ones, `real` = from those to `n` other real ones; `features` says
    whose features they are of, `dimensions` how many.
    """

    distance: float
    real: float
    n: int
    features: str
    dimensions: int

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def frechet(a: Float[Tensor, "n k"], b: Float[Tensor, "m k"]) -> float:
    """|mean_a - mean_b|^2 + tr(S_a + S_b - 2 (S_a^1/2 S_b S_a^1/2)^1/2): the squared Fréchet distance of two Gaussians
    (Dowson, Landau 1982), by the eigenvalues of the symmetric form, which are real whatever the sample.

    Raises `DataError` for fewer than 2 rows.
    """
    if min(len(a), len(b)) < 2:
        raise DataError(f"a Fréchet distance needs at least 2 inputs on each side, but {len(a)} and {len(b)} came")
    first, second = (_moments(x) for x in (a, b))
    values, vectors = np.linalg.eigh(first[1])
    root = (vectors * np.sqrt(values.clip(min=0))) @ vectors.T
    cross = np.linalg.eigvalsh(root @ second[1] @ root).clip(min=0)
    gap = float(((first[0] - second[0]) ** 2).sum())
    return float(gap + np.trace(first[1]) + np.trace(second[1]) - 2 * np.sqrt(cross).sum())


def _moments(x: Tensor) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    rows = x.double().cpu().numpy()
    return rows.mean(0), np.atleast_2d(np.cov(rows, rowvar=False))


def compare(made: Tensor, real: Tensor, embed: Embed, features: str, batch_size: int = 500) -> FrechetDistance:
    """`made` (n, c, h, w) against every other one of the first 2n `real` inputs, and those against the rest of them.

    As many on each side: the distance of samples is biased upwards, the more the fewer they are. Raises `DataError` for
    fewer than twice as many real inputs.
    """
    n = len(made)
    if len(real) < 2 * n:
        raise DataError(
            f"{n} made inputs are held against {n} real ones, and those against {n} others: {2 * n} real inputs are "
            f"needed, but there are {len(real)}: draw at most {len(real) // 2}"
        )
    with torch.no_grad():
        own, first, second = (
            torch.cat([embed(part) for part in x.split(batch_size)])
            for x in (made, real[: 2 * n : 2], real[1 : 2 * n : 2])
        )
    return FrechetDistance(frechet(own, first), frechet(first, second), n, features, own.shape[1])


def embedding(model: LoadedModel | None, device: torch.device) -> tuple[Embed, str]:
    """The features to compare by, and what they are: those of Inception if torch-fidelity and its weights are there,
    else what enters the last linear layer of the classifier `model`. Raises `UsageError` if there is neither.
    """
    inception = _inception(device)
    if inception is not None:
        return inception, "Inception (FID)"
    if model is None:
        raise UsageError(
            "the weights of the Inception network of FID are not at hand (torch-fidelity with its downloaded file): "
            "give a classifier of this data with --model, made by 'robustgen train', and its features are used"
        )
    features = Features(model.network.to(device).eval())
    return lambda x: features(x.to(device)), f"the classifier {model.origin}"


def _inception(device: torch.device) -> Embed | None:
    """torch-fidelity's network, if its weights have been downloaded before; nothing is downloaded here."""
    try:
        found: Any = import_module("torch_fidelity.feature_extractor_inceptionv3")
    except ImportError:
        return None
    file = Path(torch.hub.get_dir()) / "checkpoints" / Path(found.URL_INCEPTION_V3).name
    if not file.is_file():
        return None
    network = found.FeatureExtractorInceptionV3(
        "inception-v3-compat", ["2048"], feature_extractor_weights_path=str(file)
    )
    network = network.to(device).eval()

    def embed(x: Tensor) -> Tensor:
        if x.shape[1] not in (1, 3):
            raise UsageError(f"Inception's features are of images of 1 or 3 channels, but {x.shape[1]} came")
        bytes_of = (x.clamp(0, 1) * 255).round().to(torch.uint8)
        colour = bytes_of.expand(-1, 3, -1, -1) if bytes_of.shape[1] == 1 else bytes_of
        features: Tensor = network(colour.to(device))[0]
        return features

    return embed
