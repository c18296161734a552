"""What the per-sample arrays of an attack add up to: by class, by confusion, by quantile. What is missing gives
nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robustgen.metrics import Estimate, proportion

Samples = Mapping[str, NDArray[Any]]
QUANTILES = (0.1, 0.5, 0.9)


@dataclass(frozen=True)
class Fate:
    """What became of the inputs of one class: `clean` and `robust` are shares of its `n` inputs."""

    label: int
    n: int
    clean: float
    robust: Estimate
    fooled: int


@dataclass(frozen=True)
class Sizes:
    """How large some values are: `quantiles` at `QUANTILES`, and the largest."""

    n: int
    quantiles: tuple[float, ...]
    largest: float


def correct(samples: Samples) -> NDArray[np.bool_]:
    """(n,): the model was right on the clean input; (0,) where that was not stored."""
    if "y" not in samples or "clean_prediction" not in samples:
        return np.zeros(0, dtype=bool)
    return np.asarray(samples["clean_prediction"] == samples["y"])


def fooled(samples: Samples) -> NDArray[np.int64]:
    """The rows on which the attack succeeded."""
    return np.flatnonzero(samples.get("success", np.zeros(0)))


def survivors(samples: Samples) -> NDArray[np.int64]:
    """The rows that were attacked and held."""
    if "success" not in samples:
        return np.zeros(0, dtype=np.int64)
    attacked = np.asarray(samples.get("attacked", correct(samples)), dtype=bool)
    return np.flatnonzero(attacked & ~samples["success"].astype(bool)) if len(attacked) else np.zeros(0, dtype=np.int64)


def fates(samples: Samples, most: int) -> tuple[list[Fate], int]:
    """Each class's fate, the least robust first, at most so many; and how many classes there are."""
    right = correct(samples)
    if not len(right) or "success" not in samples:
        return [], 0
    labels, place, sizes = np.unique(samples["y"], return_inverse=True, return_counts=True)
    success = samples["success"].astype(bool)

    def count(of: NDArray[np.bool_]) -> NDArray[np.int64]:
        return np.bincount(place, of, len(labels)).astype(np.int64)

    clean, robust, lost = count(right), count(right & ~success), count(success)
    order = np.lexsort((labels, clean / sizes, robust / sizes))
    rows = [
        Fate(
            int(labels[i]), int(sizes[i]), clean[i] / sizes[i], proportion(int(robust[i]), int(sizes[i])), int(lost[i])
        )
        for i in order[:most]
    ]
    return rows, len(labels)


def confusions(samples: Samples) -> list[tuple[int, int, int]]:
    """(true class, class that the model said when it was fooled, how often), the commonest first."""
    rows = fooled(samples)
    if not len(rows) or "y" not in samples or "prediction" not in samples:
        return []
    pairs = np.stack([samples["y"][rows], samples["prediction"][rows]], 1).astype(np.int64)
    kinds, counts = np.unique(pairs, axis=0, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    return [(int(kinds[i, 0]), int(kinds[i, 1]), int(counts[i])) for i in order]


def sizes(values: NDArray[Any]) -> Sizes | None:
    """Quantiles of the finite ones; None where there are none."""
    finite = np.asarray(values, dtype=np.float64)
    finite = finite[np.isfinite(finite)]
    if not len(finite):
        return None
    return Sizes(len(finite), tuple(float(q) for q in np.quantile(finite, QUANTILES)), float(finite.max()))


def chosen(samples: Samples, most: int, among: int = 4096) -> NDArray[np.int64]:
    """Rows to show: the first success of each class in turn, then the next ones; among the first inputs only."""
    rows = fooled(samples)
    rows = rows[rows < among]
    if "y" not in samples:
        return rows[:most]
    _, first = np.unique(samples["y"][rows], return_index=True)
    lead = np.zeros(len(rows), dtype=bool)
    lead[first] = True
    return np.sort(np.concatenate([rows[lead], rows[~lead]])[:most])


def names_for(classes: Sequence[str], samples: Samples) -> list[str]:
    """A name for every class number that occurs: a model may have more classes than the data has names."""
    keys = ("y", "prediction", "clean_prediction", "target")
    top = max((int(samples[key].max()) for key in keys if key in samples and len(samples[key])), default=-1)
    return [str(name) for name in classes] + [str(number) for number in range(len(classes), top + 1)]
