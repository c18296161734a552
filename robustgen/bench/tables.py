"""Anomalies in labelled tables (0 = normal, 1 = anomalous), by the protocols of the literature.

- one-class: a random half of the normal rows to fit, the other half and all anomalies to test; columns standardised by
  the rows fitted on.
- unsupervised: 70 % of all rows to fit, anomalies among them and not named, 30 % to test, anomalies in proportion;
  columns scaled to [0, 1] by the rows fitted on (Han et al. 2022, ADBench).
- dte: the "semi-supervised" protocol of Livernoche et al. 2024: the first half of the normal rows in file order to fit,
  the rest to test; sets of fewer than 1,000 rows are first drawn to 1,000 with replacement; columns standardised.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple, final

import numpy as np
import numpy.typing as npt
import torch

from robustgen.bench.cell import Cell, Found, Work
from robustgen.bench.judged import fit, score, worth
from robustgen.bench.places import expand
from robustgen.bench.prepared import Configured
from robustgen.errors import DataError

Values = npt.NDArray[Any]
_SMALL = 1000  # rows, under which `dte` draws with replacement


class Split(NamedTuple):
    """Rows to fit, rows to test, and which of the latter are anomalies."""

    train: Values
    test: Values
    odd: Values


def read(name: str) -> tuple[Values, Values]:
    """X (n, columns) and y (n,) of an .npz file. Raises `DataError` for anything else."""
    path = Path(expand(name))
    try:
        with np.load(path, allow_pickle=False) as arrays:
            x, y = arrays["X"].astype(np.float64), arrays["y"].astype(np.int64)
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise DataError(f"{path} is not an .npz file with the arrays X and y: {error}") from error
    if x.ndim != 2 or y.shape != (len(x),) or set(np.unique(y)) != {0, 1} or not np.isfinite(x).all():
        raise DataError(
            f"{path} holds X {x.shape} and y {y.shape}: X must be rows of finite numbers, and y say of each whether it "
            "is normal (0) or anomalous (1), with some of both"
        )
    return x, y


def split(protocol: str, x: Values, y: Values, seed: int) -> Split:
    """The rows by `protocol`, columns scaled."""
    from sklearn.model_selection import train_test_split
    from sklearn.preprocessing import MinMaxScaler, StandardScaler

    if protocol == "unsupervised":
        train, test = train_test_split(np.arange(len(y)), test_size=0.3, random_state=seed, stratify=y)
    elif protocol == "dte":
        if len(y) < _SMALL:
            drawn = np.random.RandomState(seed).choice(np.arange(len(y)), _SMALL, replace=True)
            x, y = x[drawn], y[drawn]
        normal = np.flatnonzero(y == 0)
        train, rest = np.split(normal, [round(0.5 * len(normal))])
        test = np.concatenate([rest, np.flatnonzero(y == 1)])
    else:
        normal = np.random.default_rng(seed).permutation(np.flatnonzero(y == 0))
        train, rest = np.split(normal, [len(normal) // 2])
        test = np.concatenate([rest, np.flatnonzero(y == 1)])
    scale = (MinMaxScaler() if protocol == "unsupervised" else StandardScaler()).fit(x[train])
    return Split(scale.transform(x[train]), scale.transform(x[test]), y[test] == 1)


@final
@dataclass(frozen=True)
class TableOf(Cell):
    """AUROC of a table's normal rows against its anomalous ones. The seed chooses the rows and the detector's start."""

    kind: ClassVar[str] = "table"
    data: str
    detector: Configured
    protocol: Literal["one-class", "unsupervised", "dte"] = "one-class"
    seed: int = 0

    @property
    def sources(self) -> tuple[str, ...]:
        return (self.data,)

    @property
    def title(self) -> str:
        return f"table {self.detector.detector}, {self.protocol}, seed {self.seed}"

    def run(self, work: Work) -> Found:
        rows = split(self.protocol, *read(self.data), self.seed)
        fitted = fit(self.detector, torch.from_numpy(rows.train.astype(np.float32)), work.device, work.progress)
        began = time.perf_counter()
        scores = score(fitted.detector, torch.from_numpy(rows.test.astype(np.float32)), work.device)
        seconds = time.perf_counter() - began
        metrics = worth(scores[~rows.odd], scores[rows.odd]) | {
            "fit_seconds": fitted.seconds,
            "fit_cpu_seconds": fitted.cpu_seconds,
            "ms_per_input": 1000 * seconds / len(scores),
            "n_train": len(rows.train),
        }
        return Found(metrics, {"scores": scores, "anomalous": rows.odd})
