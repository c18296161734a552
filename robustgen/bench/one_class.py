"""One class of a labelled set of images is normal, the others are not.

A detector is fitted on all training images of the class (the calibration split's too: no threshold is needed), without
labels and without anomalies, and scores the test split.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import ClassVar, final

from robustgen.bench.cell import ASIDE, Cell, Found, Work
from robustgen.bench.judged import fit, inputs, score, worth
from robustgen.bench.prepared import Configured
from robustgen.errors import DataError


@final
@dataclass(frozen=True)
class OneClass(Cell):
    """AUROC of class `normal` against all others. `n`: at most so many test images, evenly spread; None = all."""

    kind: ClassVar[str] = "one-class"
    data: str
    normal: int
    detector: Configured
    n: int | None = None
    seed: int = field(default=0, metadata=ASIDE)  # the detector's options hold it

    @property
    def sources(self) -> tuple[str, ...]:
        return (self.data,)

    @property
    def title(self) -> str:
        return f"one-class {self.detector.detector}, class {self.normal}, seed {self.seed}"

    def run(self, work: Work) -> Found:
        source = work.source(self.data)
        if not 0 <= self.normal < len(source.spec.classes):
            raise DataError(
                f"{source.spec.name!r} has the classes 0 to {len(source.spec.classes) - 1}, but {self.normal} came"
            )
        x, _ = inputs(source, "train", "calibration", label=self.normal)
        fitted = fit(self.detector, x, work.device, work.progress)
        batch = source.read(source.spread("test", self.n))
        assert batch.y is not None  # inputs() has looked
        began = time.perf_counter()
        scores = score(fitted.detector, batch.x, work.device)
        seconds = time.perf_counter() - began
        own = (batch.y == self.normal).numpy()
        metrics = worth(scores[own], scores[~own]) | {
            "class": source.spec.classes[self.normal],
            "fit_seconds": fitted.seconds,
            "fit_cpu_seconds": fitted.cpu_seconds,
            "ms_per_input": 1000 * seconds / len(scores),
            "data_sha256": source.spec.sha256,
        }
        return Found(metrics, {"scores": scores, "normal": own, "index": batch.index.numpy()})
