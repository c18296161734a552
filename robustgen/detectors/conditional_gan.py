"""A generative adversarial network whose discriminator judges inputs together with their labels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import ClassVar, Literal, final, get_args

import torch
from torch import Tensor

from robustgen.detectors.class_conditional import ClassConditionalDetector
from robustgen.detectors.self_test import anomalies
from robustgen.errors import UsageError
from robustgen.metrics import Array, auroc
from robustgen.registry import suggestion
from robustgen.training.labelled_games import LabelledGame, Matching, MatchingGame, refusal, wrong_labels
from robustgen.training.two_players import Game


@final
class ConditionalGANDetector(ClassConditionalDetector):
    """A conditional generative adversarial network (Mirza, Osindero 2014; Miyato, Koyama 2018) trained on labelled
    normal inputs, whose discriminator tells whether an input is real and what its label says.

    `matching`: "aware", real inputs under wrong labels count as fake in training (Reed et al. 2016), or "none", as
    first published: such a discriminator learns of wrong labels only what a poor generator's mistakes show it. `hard`:
    the share of wrong labels that are the most fitting ones, the others are random. For the other options see
    `ClassConditionalDetector`.
    """

    _name = "conditional-gan"
    by_default = "logit+contrast"
    turns: ClassVar[Mapping[str, int]] = {"fast": 400, "default": 2000, "best": 10_000}

    def __init__(
        self,
        classes: int | None = None,
        matching: Matching = "aware",
        hard: float = 0.5,
        negatives: str = "auto",
        scores: str = "auto",
        code: int = 64,
        width: int = 32,
        preset: str = "default",
        steps: int | None = None,
        batch_size: int = 64,
        learning_rate: float = 5e-4,
        seed: int = 0,
    ) -> None:
        super().__init__(classes, negatives, scores, code, width, preset, steps, batch_size, learning_rate, seed)
        if matching not in get_args(Matching):
            raise UsageError(suggestion(matching, get_args(Matching), "matching"))
        if not 0 <= hard <= 1:
            raise UsageError(f"hard is a share, from 0 to 1, but {hard:g} came")
        self.matching, self.hard = matching, hard

    def _game(self, low: float, high: float) -> LabelledGame:
        shape = self.shape or ()
        return MatchingGame(
            self.discriminator,
            self.generator,
            shape,
            matching=self.matching,
            hard=self.hard,
            negatives=self._negatives(shape),
            seed=self.seed,
        )

    def _judge(self, x: Tensor, y: Tensor, game: LabelledGame) -> Callable[[Game], float]:
        """Mean AUROC of -D(x, y) on anomalies made of the inputs, under their own labels, and, where wrong labels were
        taught, on random ones and on the most fitting ones.
        """
        random = torch.Generator().manual_seed(self.seed)
        kind: Literal["image", "table"] = "image" if x.dim() == 4 else "table"
        made = torch.cat(list(anomalies(x, kind, 0.0, 1.0, random).values()))
        labels = y.repeat(len(made) // len(y))

        def judge(played: Game) -> float:
            numbers = self.discriminator.every(x)
            normal = _unreal(numbers, y)
            found = [auroc(normal, _unreal(self.discriminator.every(made), labels)).value]
            if self.matching == "aware":
                for hard in (0.0, 1.0):
                    wrong = wrong_labels(numbers, y, hard, torch.Generator().manual_seed(self.seed))
                    found.append(auroc(normal, _unreal(numbers, wrong)).value)
            return sum(found) / len(found)

        return judge


def _unreal(numbers: Tensor, y: Tensor) -> Array:
    """-D(x, y) from the numbers with every label."""
    return refusal(numbers, y).double().cpu().numpy()
