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
from robustgen.training.labelled_games import LabelledGame, WorstCaseGame, towards, wrong_labels
from robustgen.training.two_players import Game

_JUDGING = 10  # steps of the attack on held-out inputs


@final
class GATDetector(ClassConditionalDetector):
    """A discriminator of inputs given their labels, trained on labelled normal inputs against inputs of other classes
    that an attacker pushes towards the label (after Yin, Kolouri, Rohde 2020, "GAT"), against a generator's and against
    spoilt ones: see `WorstCaseGame`.

    `eps`: the largest change of a value (Linf) that it is trained against, in input units; `pushes`: the attacker's
    steps in training. `negatives`: corruptions of normal inputs that count as fakes (see `training.negatives`), joined
    by "+", "none", or "auto". For the other options see `ClassConditionalDetector`.
    """

    _name = "gat"
    by_default: ClassVar[str] = "contrast|logit"
    spectral: ClassVar[bool] = False  # attacked inputs do its work
    pooled: ClassVar[bool] = True
    turns: ClassVar[Mapping[str, int]] = {"fast": 250, "default": 1500, "best": 7500}

    def __init__(
        self,
        classes: int | None = None,
        eps: float = 0.1,
        pushes: int = 2,
        negatives: str = "auto",
        scores: str = "auto",
        code: int = 64,
        width: int = 32,
        preset: str = "default",
        steps: int | None = None,
        batch_size: int = 64,
        learning_rate: float = 1e-3,
        seed: int = 0,
    ) -> None:
        super().__init__(classes, negatives, scores, code, width, preset, steps, batch_size, learning_rate, seed)
        if not (math.isfinite(eps) and eps > 0) or pushes < 1:
            raise UsageError(f"eps must be above 0 and pushes at least 1, but {eps:g} and {pushes} came")
        self.eps, self.pushes = eps, pushes

    def _game(self, low: float, high: float) -> LabelledGame:
        shape, recipe = self.shape or (), self._recipe()
        return WorstCaseGame(
            self.discriminator,
            self.generator,
            shape,
            attack=towards(min(self.eps, high - low), low, high, self.pushes),
            total=recipe.rounds * recipe.steps,
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
