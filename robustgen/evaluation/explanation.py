"""Explanations of verdicts, collected while they go by: for images heat-maps, for tables the columns that count."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, final

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from robustgen.data.source import DataSpec
from robustgen.detectors.calibrated import CalibratedDetector
from robustgen.evaluation.detection import Verdict
from robustgen.guard.guard import Guard

_AT_ONCE = 64
TOP = 5
"""Columns that are named for each row of a table."""


@dataclass(frozen=True)
class Case:
    """One explained input: the verdict on it, the input, and what each of its values adds to the score, (*shape)."""

    verdict: Verdict
    x: NDArray[np.float32]
    parts: NDArray[np.float32]


@dataclass(frozen=True)
class Column:
    """A column's part in a row's score: its `share` of all that raises the score, its value and the usual one, in the
    table's own units.
    """

    name: str
    share: float
    value: float
    usual: float | None


@final
class Explanations:
    """Explains verdicts as they come (an `Explain` for `detect`) and keeps the cases, `most` of them.

    `everything`: normal inputs too, not only those that are flagged. `folder`: where the heat-maps will be written.
    """

    def __init__(
        self, detector: CalibratedDetector | Guard, folder: Path, *, most: int = 100, everything: bool = False
    ) -> None:
        self.detector, self.folder, self.most, self.everything = detector, folder, most, everything
        self.cases: list[Case] = []
        self.left_out = 0

    def __call__(self, x: Tensor, verdicts: list[Verdict]) -> list[Verdict]:
        wanted = [row for row, verdict in enumerate(verdicts) if self.everything or verdict.flagged]
        room = max(0, self.most - len(self.cases))
        self.left_out += max(0, len(wanted) - room)
        explained = list(verdicts)
        for start in range(0, len(wanted[:room]), _AT_ONCE):
            rows = wanted[:room][start : start + _AT_ONCE]
            parts = self.detector.explain(x[rows]).float().cpu().numpy()
            for row, part in zip(rows, parts, strict=True):
                case = Case(verdicts[row], x[row].float().cpu().numpy(), part)
                explained[row] = replace(verdicts[row], explanation=self._in_words(case, len(self.cases)))
                self.cases.append(replace(case, verdict=explained[row]))
        return explained

    @property
    def images(self) -> bool:
        """Whether the inputs are images."""
        return self.detector.spec.kind == "image"

    def _in_words(self, case: Case, number: int) -> dict[str, Any]:
        if self.images:
            return {"heat_map": str(self.folder / heat_map_name(number))}
        return {"columns": [vars(column) for column in self.columns(case)]}

    def columns(self, case: Case) -> list[Column]:
        """The columns that raise a row's score most, `TOP` at most."""
        usual = self.detector.usual
        return top_columns(case, self.detector.spec, None if usual is None else usual.flatten().tolist())


def heat_map_name(number: int) -> str:
    """The file of the `number`-th heat-map, within the folder of the explanations."""
    return f"heat-maps/{number:04d}.png"


def top_columns(case: Case, spec: DataSpec, usual: Sequence[float] | None) -> list[Column]:
    """The columns that raise a row's score most, `TOP` at most; none that lowers it."""
    parts, x = case.parts.ravel().astype(np.float64), case.x.ravel()
    raising = parts.clip(min=0).sum()
    found = list[Column]()
    for i in map(int, np.argsort(-parts, kind="stable")[:TOP]):
        if parts[i] > 0:
            name = spec.columns[i] if spec.columns else str(i)
            expected = None if usual is None else _unscaled(usual[i], spec, i)
            found.append(Column(name, float(parts[i] / raising), _unscaled(float(x[i]), spec, i), expected))
    return found


def _unscaled(value: float, spec: DataSpec, column: int) -> float:
    """A value of a table in its own units; six digits are as many as the scaled one has."""
    if spec.minimum and spec.maximum:
        low, high = spec.minimum[column], spec.maximum[column]
        value = low + value * (high - low)
    return float(f"{value:.6g}")
