"""A class-conditional discriminator that an attacker has trained with."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import ClassVar, final

import torch
from torch import Tensor

from robustgen.detectors.class_conditional import ClassConditionalDetector
from robustgen.errors import UsageError
from robustgen.metrics import auroc
from robustgen.objectives import margin
from robustgen.runtime import has_bfloat16
from robustgen.training.descent import Precision
from robustgen.training.labelled_games import LabelledGame, WorstCaseGame, towards, wrong_labels
from robustgen.training.two_players import Game

_JUDGING = 10  # steps of the attack on held-out inputs


@final
class GATDetector(ClassConditionalDetector):
    """A discriminator of inputs given their labels, trained on labelled normal inputs against inputs of other classes
    that an attacker pushes towards the label (after Yin, Kolouri, Rohde 2020, "GAT"): see `WorstCaseGame`.

    `eps`: the largest change of a value (Linf) that it is trained against, in input units; `pushes`: the attacker's
    steps in training. On images it trains in bfloat16 where the device has it (half the time), else in float32. `rest`:
    what a generator's inputs and spoilt ones (`negatives`, see `training.negatives`), as in the paper, weigh beside; 0
    = they are left out, there is nothing to sample, and foreign inputs are none of its business: what they teach costs
    security. For the other options see `ClassConditionalDetector`.

    The preset "best" trains as long as "default": three times as long the score fits normal inputs better and lets more
    of those who know it through, as adversarial training does (Rice, Wong, Kolter 2020, "Overfitting in adversarially
    robust deep learning"). What holds more is several of other seeds in one channel of a guard.
    """

    _name = "gat"
    by_default = "contrast"
    spectral: ClassVar[bool] = False  # attacked inputs do its work
    pooled: ClassVar[bool] = True
    turns: ClassVar[Mapping[str, int]] = {"fast": 500, "default": 8000, "best": 8000}
    playing: ClassVar[Mapping[str, float]] = {
        "momentum": 0.9,
        "average": 0.998,
        "rise": 0.15,
        "clip": 1.0,
        "weight_decay": 1e-4,
    }

    def __init__(
        self,
        classes: int | None = None,
        eps: float = 0.1,
        pushes: int = 2,
        rest: float = 0.0,
        negatives: str = "auto",
        scores: str = "auto",
        code: int = 64,
        width: int = 32,
        preset: str = "default",
        steps: int | None = None,
        batch_size: int = 128,
        learning_rate: float = 3e-3,
        seed: int = 0,
    ) -> None:
        super().__init__(classes, negatives, scores, code, width, preset, steps, batch_size, learning_rate, seed)
        if not (math.isfinite(eps) and eps > 0) or pushes < 1:
            raise UsageError(f"eps must be above 0 and pushes at least 1, but {eps:g} and {pushes} came")
        if not rest >= 0:
            raise UsageError(f"rest is a weight, 0 or more, but {rest:g} came")
        self.eps, self.pushes, self.rest = eps, pushes, rest
        self.generates = rest > 0
        self.by_default = "contrast|logit" if rest else "contrast"

    @property
    def _precision(self) -> Precision:
        image = self.shape is not None and len(self.shape) == 3
        return "bfloat16" if image and has_bfloat16(self._device) else "auto"

    def _game(self, low: float, high: float) -> LabelledGame:
        shape, recipe = self.shape or (), self._recipe()
        if self.standardise is not None:
            low, high = -math.inf, math.inf
        return WorstCaseGame(
            self.discriminator,
            self.generator,
            shape,
            attack=towards(min(self.eps, high - low), low, high, self.pushes),
            total=recipe.rounds * recipe.steps,
            rest=self.rest,
            unit=None if self.standardise is None else self.standardise.deviation,
            negatives=self._negatives(shape),
            seed=self.seed,
        )

    def _judge(self, x: Tensor, y: Tensor, game: LabelledGame) -> Callable[[Game], float]:
        """AUROC of the contrast on held-out inputs that an attacker has pushed towards the most fitting wrong class."""
        assert isinstance(game, WorstCaseGame)

        def judge(played: Game) -> float:
            numbers = self.discriminator.every(x)
            target = wrong_labels(numbers, y, 1.0, torch.Generator().manual_seed(self.seed))
            pushed = self.discriminator.every(game.pushed(x, target, game.total, _JUDGING))
            normal, attacked = margin(numbers, y), margin(pushed, target)
            return auroc(normal.double().cpu().numpy(), attacked.double().cpu().numpy()).value

        return judge
