"""Detectors with a fault planted on purpose, which makes them look stronger than they are: for trying the checks.

Each is a sound detector whose decisions on clean inputs stay what they were, or nearly so, while its score no longer
tells an attacker the way.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, final, get_args

import numpy as np
import torch
from torch import Tensor

from robustgen.calibration import calibrate
from robustgen.data.rows import Rows
from robustgen.data.source import Source
from robustgen.detectors.base import Detector
from robustgen.detectors.calibrated import CalibratedDetector
from robustgen.training.descent import TrainingProgress

Fault = Literal["shattered", "vanishing", "randomised", "quantised", "argmax", "hidden-seed", "detached", "saturated"]
FAULTS: tuple[Fault, ...] = get_args(Fault)
NOISE = 0.05
"""Deviation of what the random faults add to inputs."""


@final
class Faulty(Detector):
    """The score of a fitted detector in the unit in which its median is 0 and its threshold 1, with a `fault`.

    - "shattered": waves so short that their slope hides the score's, and so low that they change no decision;
    - "vanishing": eighty layers that each push the score away from the threshold, until the slope vanishes;
    - "randomised": noise on the input, drawn anew at each call;
    - "quantised": rounded to halves;
    - "argmax": the nearest of nine levels, chosen by argmax;
    - "hidden-seed": noise on the batch, drawn from a seed that is not told;
    - "detached": computed without gradients;
    - "saturated": clipped just above the threshold.
    """

    middle: Tensor
    reach: Tensor

    def __init__(self, inner: Detector, fault: Fault, middle: float, threshold: float) -> None:
        super().__init__()
        self.inner, self.fault = inner, fault
        self.conditional, self.shape = inner.conditional, inner.shape
        self.register_buffer("middle", torch.tensor(middle, dtype=torch.float64))
        self.register_buffer("reach", torch.tensor(threshold - middle, dtype=torch.float64))

    def _fit(self, rows: Rows, progress: TrainingProgress | None) -> None:
        raise NotImplementedError("it is made from a fitted detector")

    def smooth(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        """The score without the fault, in its unit: what an attacker who knows the code can go by."""
        return (self.inner.score(x, condition) - self.middle.to(x.dtype)) / self.reach.to(x.dtype)

    def _score(self, x: Tensor, condition: Tensor | None) -> Tensor:
        if self.fault == "randomised":
            return self.smooth(x + NOISE * torch.randn_like(x), condition)
        if self.fault == "hidden-seed":
            noise = torch.randn(x.shape, dtype=x.dtype, generator=torch.Generator().manual_seed(20261123))
            return self.smooth(x + NOISE * noise, condition)
        score = self.smooth(x, condition)
        if self.fault == "shattered":
            return score + 0.05 * torch.sin(1e5 * x.flatten(1)).mean(1)
        if self.fault == "vanishing":
            for _ in range(80):
                score = 1 + 2 * torch.tanh(score - 1)
            return score
        if self.fault == "quantised":
            return (2 * score).round() / 2
        if self.fault == "argmax":
            levels = torch.linspace(-1, 3, 9, dtype=x.dtype) + 0.25
            chosen = (-(score[:, None] - levels).abs()).argmax(1)
            return torch.nn.functional.one_hot(chosen, 9).to(x.dtype) @ levels
        if self.fault == "detached":
            return score.detach()
        return score.clamp(max=1.02)


def planted(fitted: CalibratedDetector, fault: Fault, source: Source) -> CalibratedDetector:
    """`fitted` with the fault, calibrated again on the same held-out inputs."""
    threshold, held = fitted.threshold, fitted.calibration_scores
    faulty = replace(fitted, detector=Faulty(fitted.detector, fault, float(np.median(held)), threshold.value))
    scores = np.sort(faulty.scores(source, "calibration"))
    return replace(faulty, calibration_scores=scores, threshold=calibrate(scores, threshold.fpr))
