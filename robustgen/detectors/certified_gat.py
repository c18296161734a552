"""A class-conditional discriminator of which can be proven what an attacker cannot do to it."""

from __future__ import annotations

import math
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from robustgen.bounds import DOUBLE, Box, Method, Scaled, box, pair_bounds, through
from robustgen.data.labelled import LabelledRows
from robustgen.data.rows import Rows
from robustgen.detectors.base import Detector
from robustgen.detectors.label_scores import LabelScores, Pairs
from robustgen.detectors.labels import count_classes, labels_for
from robustgen.errors import UsageError
from robustgen.models.gan import Discriminator
from robustgen.registry import suggestion
from robustgen.runtime import seeded
from robustgen.training.certified import start_for_bounds, train_certified
from robustgen.training.descent import Recipe, TrainingProgress

_SCORE = 1e-7  # more than float32 errs in holding a score
_STEPS = {"fast": 1000, "default": 3500, "best": 20000}


@final
class CertifiedGATDetector(Detector):
    """A discriminator D(x, y) of inputs given their labels, trained on labelled normal inputs so that bounds prove, for
    most of them, that nothing within eps fits another label (interval bound propagation: Gowal et al. 2018). What
    `gat` learns from attacks, this one learns from all that an attack could do.

    The score is the contrast: max over k != y of D(x, k), minus D(x, y), for the label y that the classifier predicts.
    What is proven is looser than what holds, so that more normal inputs are in doubt than with `gat`: calibrated to the
    same false alarms it stops less of what attackers find, and is what can be proven of all they may ever find.

    `eps`: the largest change of a value (Linf) that it is trained for, in input units; `clean`: what the labels of
    inputs as they come weigh beside the worst case, from 0 to 1; `margin`: by how much the right label is to lead in
    the worst case, beyond being first. `width`: channels of the first convolution. `preset`:
    how long to train, "fast", "default" or "best"; `steps` instead. Trained in float32; scores
    are worked out in float64, so that bounds need allow for next to no rounding.
    """

    conditional = True
    discriminator: Discriminator
    combination: LabelScores

    def __init__(
        self,
        classes: int | None = None,
        eps: float = 0.1,
        clean: float = 0.5,
        margin: float = 1.0,
        width: int = 32,
        preset: str = "default",
        steps: int | None = None,
        batch_size: int = 128,
        learning_rate: float = 6e-3,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if classes is not None and classes < 2:
            raise UsageError(f"there must be at least 2 classes, but {classes} came")
        if not (math.isfinite(eps) and eps > 0):
            raise UsageError(f"eps must be above 0, but {eps:g} came")
        if not 0 <= clean < 1:
            raise UsageError(f"clean is a share, from 0 to below 1, but {clean:g} came")
        if not (math.isfinite(margin) and margin >= 0):
            raise UsageError(f"margin is a number from 0 up, but {margin:g} came")
        if width < 1 or (steps is not None and steps < 1):
            raise UsageError(f"width and steps must be at least 1, but {width} and {steps} came")
        if preset not in _STEPS:
            raise UsageError(suggestion(preset, _STEPS, "preset"))
        self.classes, self._asked = classes, classes
        self.eps, self.clean, self.margin = eps, clean, margin
        self.width, self.preset, self.steps = width, preset, steps
        self.batch_size, self.learning_rate, self.seed = batch_size, learning_rate, seed
        self._recipe(1)  # what is out of range is said now

    def _recipe(self, n: int) -> Recipe:
        steps = self.steps or _STEPS[self.preset]
        return Recipe(
            epochs=max(1, math.ceil(steps * self.batch_size / n)),
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            weight_decay=1e-5,
            seed=self.seed,
            clip=1.0,
            precision="float32",
        )

    def _build(self, shape: tuple[int, ...]) -> None:
        if self.classes is None:
            return
        with seeded(self.seed):
            network = Discriminator(shape, width=self.width, classes=self.classes, spectral=False, dense=8 * self.width)
        self.discriminator = network.double().to(self._device)
        self.combination = LabelScores("contrast").to(self._device)

    def _fit(self, rows: Rows, progress: TrainingProgress | None) -> None:
        device, shape, packed = self._device, tuple(rows.shape), LabelledRows(rows)
        self.classes = count_classes(packed, self._asked)
        self._build(shape)
        self.discriminator.float()
        start_for_bounds(self.discriminator, torch.Generator().manual_seed(self.seed))
        self.discriminator.head.requires_grad_(False)  # what all labels share is nothing to a contrast
        low, high = 0.0, 1.0
        if len(shape) == 3:
            for x in rows.batches(4096):
                low, high = min(low, float(x.min())), max(high, float(x.max()))
        else:
            low, high = -math.inf, math.inf
        size = self.eps if self.standardise is None else self.eps / self.standardise.deviation

        def ball(x: Tensor, share: float) -> Box:
            return box((x - share * size).clamp(min=low), (x + share * size).clamp(max=high))

        train_certified(
            self.discriminator,
            packed,
            shape,
            self._recipe(len(packed)),
            ball=ball,
            clean=self.clean,
            margin=self.margin,
            device=device,
            checkpoint=self._checkpoint,
            progress=progress,
        )
        self.discriminator.double()
        self.to(device).eval()

    def _score(self, x: Tensor, condition: Tensor | None) -> Tensor:
        y = labels_for(x, condition, self.classes or 0, "certified-gat")
        found: Tensor = self.combination(Pairs(self.discriminator, x.double(), y))
        return found.to(x.dtype)

    def least(self, x: Box, method: Method = "interval") -> Float[Tensor, "n classes"]:
        """What the score with each label is at least, at any point of n boxes."""
        if self.standardise is not None:
            x = through([Scaled(self.standardise.centre, self.standardise.deviation)], x)
        found = self.combination.least(pair_bounds(self.discriminator, x._replace(unit=DOUBLE), method))
        return found - _SCORE * (1 + found.abs())
