"""Scores of fresh detectors on tensors, and what they are worth: what several kinds of cells share."""

from __future__ import annotations

import time
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from robustgen.bench.prepared import Configured
from robustgen.data.source import Source, Split
from robustgen.detectors.base import Detector
from robustgen.detectors.making import make
from robustgen.errors import DataError
from robustgen.metrics import Array, auroc, tpr_at_fpr

RATES = (0.001, 0.01, 0.05)
"""False-alarm rates at which detection is given."""
_AT_ONCE = 500


class Fitted(NamedTuple):
    """A detector, and how long its fit took: on the clock and of the processor."""

    detector: Detector
    seconds: float
    cpu_seconds: float


def fit(chosen: Configured, x: Tensor, where: torch.device, progress: Any = None) -> Fitted:
    """Fit on a tensor (n, *shape), without calibration."""
    began, used = time.perf_counter(), time.process_time()
    told = None if progress is None else lambda done, of, loss: progress(done / max(of, 1))
    detector = make(chosen.detector, chosen.options).to(where).fit(x, progress=told)
    return Fitted(detector, time.perf_counter() - began, time.process_time() - used)


def score(detector: Detector, x: Tensor, where: torch.device) -> Array:
    """Scores (n,) in float64."""
    with torch.no_grad():
        return torch.cat([detector.score(part.to(where)).double().cpu() for part in x.split(_AT_ONCE)]).numpy()


def worth(normal: Array, odd: Array) -> dict[str, Any]:
    """Figures of merit of scores, each with its interval. Scores that are not finite count as the highest, and their
    number is given.
    """
    infinite = int((~np.isfinite(normal)).sum() + (~np.isfinite(odd)).sum())
    highest = np.finfo(np.float64).max
    inside, outside = (np.nan_to_num(part, nan=highest, posinf=highest, neginf=-highest) for part in (normal, odd))
    return {
        "auroc": auroc(inside, outside)._asdict(),
        "tpr": {f"{rate:g}": tpr_at_fpr(inside, outside, rate)._asdict() for rate in RATES},
        "infinite": infinite,
        "n_normal": len(normal),
        "n_anomalous": len(odd),
    }


def inputs(source: Source, *splits: Split, label: int | None = None) -> tuple[Tensor, Tensor]:
    """Inputs and labels of the splits in their order, or those of one class. Raises `DataError` without labels."""
    x, y = [], []
    for split in splits:
        for batch in source.batches(split, 5000):
            if batch.y is None:
                raise DataError(f"{source.spec.name!r} has no labels, which are needed to tell one class from another")
            kept = slice(None) if label is None else batch.y == label
            x.append(batch.x[kept])
            y.append(batch.y[kept])
    return torch.cat(x), torch.cat(y)
