"""VAE or GAN? Generative detectors of the same data held against each other: what they make, give back and catch."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from robustgen.detectors.calibrated import CalibratedDetector
from robustgen.detectors.codes import Codec, Sampler, as_codec
from robustgen.detectors.image_differences import dissimilarity
from robustgen.detectors.variational import VariationalDetector
from robustgen.errors import UsageError
from robustgen.evaluation.frechet import Embed, FrechetDistance, compare
from robustgen.evaluation.sampling import draw
from robustgen.metrics import auroc
from robustgen.models.likelihoods import LEVELS

_ROUNDS = 3  # of the timing, of which the median counts


@dataclass(frozen=True)
class Generative:
    """One detector's row; None where it has no such thing.

    `frechet`: of its samples. `mse`, `ssim`: mean squared error and mean structural similarity of what it gives back
    for fresh normal inputs. `bits_per_value`: minus its log-likelihood of them, importance weighted, for values in 256
    levels. `detected`: AUROC of its own score for each kind of anomaly. `false_alarms`: share of fresh normal inputs
    flagged. `seconds_to_fit`; `milliseconds`: to score one input, in batches. `parameters`: numbers that it holds.
    """

    name: str
    frechet: FrechetDistance | None
    mse: float | None
    ssim: float | None
    bits_per_value: float | None
    detected: dict[str, float]
    false_alarms: float
    seconds_to_fit: float | None
    milliseconds: float
    parameters: int

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def generative(
    detector: CalibratedDetector,
    normal: Float[Tensor, "n c h w"],
    anomalies: Mapping[str, Float[Tensor, "m c h w"]],
    embed: Embed,
    features: str,
    *,
    samples: int = 1000,
    seconds_to_fit: float | None = None,
    seed: int = 0,
) -> Generative:
    """Measure `detector`, fitted on images in [0, 1], on fresh `normal` ones and on `anomalies` by kind.

    `samples` are drawn and held against as many of `normal`, which must be twice as many (see `compare`). Raises
    `UsageError` for a detector that looks at features.
    """
    if detector.features is not None:
        raise UsageError(f"this {detector.name} looks at features of inputs: it makes none to be compared")
    own = detector.detector
    frechet = compare(draw(detector, samples, seed), normal, embed, features) if isinstance(own, Sampler) else None
    mse = ssim = None
    if isinstance(own, Codec):
        mse, ssim = _given_back(detector, normal)
    bits = _bits(detector, normal) if isinstance(own, VariationalDetector) else None
    inside = _scores(detector, normal)
    times = []
    for _ in range(_ROUNDS):
        began = time.perf_counter()
        _scores(detector, normal)
        times.append(time.perf_counter() - began)
    return Generative(
        detector.name,
        frechet,
        mse,
        ssim,
        bits,
        {kind: auroc(inside, _scores(detector, x)).value for kind, x in anomalies.items()},
        float((inside > detector.threshold.value).mean()),
        seconds_to_fit,
        1000 * sorted(times)[_ROUNDS // 2] / len(normal),
        sum(value.numel() for value in own.state_dict().values()),
    )


def _scores(detector: CalibratedDetector, x: Tensor) -> Any:
    with torch.no_grad():
        return torch.cat([detector.score(part.to(detector.device)) for part in x.split(500)]).double().cpu().numpy()


def _given_back(detector: CalibratedDetector, x: Tensor) -> tuple[float, float]:
    codec, squared, structure = as_codec(detector.detector, detector.name), 0.0, 0.0
    with torch.no_grad():
        for part in x.split(500):
            here = part.to(detector.device)
            back = codec.reconstruct(here).clamp(0, 1)
            squared += float((here - back).square().flatten(1).mean(1).sum())
            structure += float((1 - dissimilarity(here, back).flatten(1).mean(1)).sum())
    return squared / len(x), structure / len(x)


def _bits(detector: CalibratedDetector, x: Tensor) -> float | None:
    """-log2 p of a value in one of 256 levels; a density's is that of bins 1/255 wide."""
    own = detector.detector
    assert isinstance(own, VariationalDetector)
    unit = own.vae.likelihood.unit
    if unit == "none" or own.conditional:
        return None
    with torch.no_grad():
        nats = torch.cat([own.panel(part.to(detector.device), None, ["iwae"])["iwae"] for part in x.split(100)])
    level = math.log(LEVELS - 1) if unit == "value" else 0.0
    return (float(nats.mean()) / math.prod(x.shape[1:]) + level) / math.log(2)
