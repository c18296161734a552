"""What the detectors around a discriminator of inputs given their labels share: training, scores and new inputs."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import ClassVar, final

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from robustgen.bounds import Box, Method, Scaled, pair_bounds, through
from robustgen.data.hold_out import hold_out
from robustgen.data.labelled import LabelledRows, unpacked
from robustgen.data.rows import Rows
from robustgen.detectors.base import Detector
from robustgen.detectors.label_scores import LabelScores, PairBatches, Pairs
from robustgen.detectors.labels import count_classes, labels_for
from robustgen.detectors.record import Record
from robustgen.errors import UsageError
from robustgen.models.gan import Discriminator, Generator
from robustgen.runtime import fitting_threads, seeded
from robustgen.training.descent import Precision, TrainingProgress
from robustgen.training.game_plan import game_recipe
from robustgen.training.labelled_games import LabelledGame
from robustgen.training.negatives import Corrupt, by_default, negatives
from robustgen.training.two_players import Game, GameRecipe, play
from robustgen.training.variety import Modes

_JUDGED = 200  # held-out inputs that a round is judged on


class ClassConditionalDetector(Detector, ABC):
    """A discriminator D(x, y) of inputs given their labels (Miyato, Koyama 2018) and a generator of inputs of a class
    (Mirza, Osindero 2014), trained against each other on labelled normal inputs. Subclasses bring the game.

    The score's condition is the label that a classifier predicts. `classes`: how many labels there are; None = as many
    as the training data has, known once fitted. `negatives`: corruptions of normal inputs that count as fakes (see
    `training.negatives`), joined by "+", "none", or "auto". `scores`: readings joined by "+" or "|" (see
    `LabelScores`), or "auto". `code`: width of the generator's input beside the label; `width`: of the networks.
    `preset`: how long to play, "fast", "default" or "best"; `steps`: turns of both players instead. About a tenth of
    the training inputs, at most about 2,000, is held out: the round whose discriminator tells wrong pairs made of them
    best is kept.
    """

    conditional = True
    version = 2
    discriminator: Discriminator
    generator: Generator
    combination: LabelScores
    by_default: str
    """What the scores "auto" are."""
    spectral: ClassVar[bool] = True
    pooled: ClassVar[bool] = False
    generates: bool = True
    """Whether the generator was played with, so that it can be sampled."""
    turns: ClassVar[Mapping[str, int]]
    """How many each preset plays."""
    playing: ClassVar[Mapping[str, float]] = {}
    """What of a `GameRecipe` is not as usual."""

    def __init__(
        self,
        classes: int | None,
        negatives: str,
        scores: str,
        code: int,
        width: int,
        preset: str,
        steps: int | None,
        batch_size: int,
        learning_rate: float,
        seed: int,
    ) -> None:
        super().__init__()
        if classes is not None and classes < 2:
            raise UsageError(f"there must be at least 2 classes, but {classes} came")
        if min(code, width) < 1 or batch_size < 2:
            raise UsageError(
                f"code and width must be at least 1 and batch_size 2, but {code}, {width} and {batch_size} came"
            )
        self.classes, self._asked = classes, classes
        self.negatives, self.scores, self.code, self.width = negatives, scores, code, width
        self.preset, self.steps, self.batch_size = preset, steps, batch_size
        self.learning_rate, self.seed = learning_rate, seed
        self._recipe()  # what is out of range is said now
        LabelScores(self._scores)
        self.record = Record("told apart", "variety", "modes")

    @property
    @abstractmethod
    def _name(self) -> str:
        """In the registry."""

    @abstractmethod
    def _game(self, low: float, high: float) -> LabelledGame:
        """What is played, on batches of `LabelledRows` whose values lie in [low, high]."""

    @abstractmethod
    def _judge(self, x: Tensor, y: Tensor, game: LabelledGame) -> Callable[[Game], float]:
        """How well the players of the game tell wrong pairs made of the held-out inputs and labels; from 0 to 1."""

    @final
    def _negatives(self, shape: tuple[int, ...]) -> Corrupt | None:
        return negatives(by_default(shape) if self.negatives == "auto" else self.negatives, shape)

    @property
    def _scores(self) -> str:
        return self.by_default if self.scores == "auto" else self.scores

    @final
    def _build(self, shape: tuple[int, ...]) -> None:
        if self.classes is None:
            return
        device, image = self._device, len(shape) == 3
        self._negatives(shape)  # those that do not exist or do not fit are said now
        with seeded(self.seed):
            self.discriminator = Discriminator(
                shape, width=self.width, classes=self.classes, spectral=self.spectral, pooled=self.pooled
            ).to(device)
            self.generator = Generator(shape, self.code, width=self.width, classes=self.classes, bounded=image).to(
                device
            )
        self.combination = LabelScores(self._scores).to(device)

    @final
    def _fit(self, rows: Rows, progress: TrainingProgress | None) -> None:
        device, shape, packed = self._device, tuple(rows.shape), LabelledRows(rows)
        self.classes = count_classes(packed, self._asked)
        self._build(shape)
        kept, held = hold_out(packed, seed=self.seed, device=device)
        values = [unpacked(part, shape)[0] for side in (kept, held) for part in side.batches(4096)]
        low, high = min(float(x.min()) for x in values), max(float(x.max()) for x in values)
        if len(shape) == 3:
            low, high = min(low, 0.0), max(high, 1.0)
        game = self._game(low, high)
        shuffle = torch.Generator().manual_seed(self.seed)  # rows may come in the order of their classes
        x, y = (value.to(device) for value in unpacked(next(held.batches(_JUDGED, shuffle)), shape))
        with fitting_threads(device, math.prod(shape)):
            history = play(
                game,
                lambda shuffle: kept.batches(self.batch_size, shuffle),
                self._recipe(),
                device=device,
                judge=self._and_modes(x, y, self._judge(x, y, game)),
                checkpoint=self._checkpoint,
                progress=progress,
            )
        self.to(device).eval()
        self.record.keep(history)
        with torch.no_grad():
            self.combination.prepare(self._pairs(kept, shuffled=True), self._pairs(held))

    def _and_modes(self, x: Tensor, y: Tensor, judge: Callable[[Game], float]) -> Callable[[Game], float]:
        """The same, keeping how many of the data's modes the generator reaches, where there is one."""
        if not self.generates:
            return judge
        code = torch.randn(len(x), self.code, generator=torch.Generator().manual_seed(self.seed)).to(x)
        modes = Modes(x, self.seed)

        def both(game: Game) -> float:
            game.facts["modes"] = torch.tensor(modes.reached(self.generator(code, y)))
            return judge(game)

        return both

    def _recipe(self) -> GameRecipe:
        recipe = game_recipe(
            self.preset,
            1,
            rounds=12,
            steps=self.turns.get(self.preset) if self.steps is None else self.steps,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            seed=self.seed,
        )
        return replace(recipe, **self.playing, precision=self._precision)  # type: ignore[arg-type]

    @property
    def _precision(self) -> Precision:
        return "auto"

    def _pairs(self, rows: Rows, *, shuffled: bool = False) -> PairBatches:
        def pairs() -> Iterator[Pairs]:
            for packed in rows.batches(512, torch.Generator().manual_seed(self.seed) if shuffled else None):
                yield Pairs(self.discriminator, *unpacked(packed.to(self._device), self.shape or ()))

        return pairs

    @final
    def _score(self, x: Tensor, condition: Tensor | None) -> Tensor:
        found: Tensor = self.combination(Pairs(self.discriminator, x, self._labels(x, condition)))
        return found

    @final
    def least(self, x: Box, method: Method = "interval") -> Float[Tensor, "n classes"]:
        """What the score with each label is at least, at any point of n boxes."""
        if self.standardise is not None:
            x = through([Scaled(self.standardise.centre, self.standardise.deviation)], x)
        return self.combination.least(pair_bounds(self.discriminator, x, method))

    def _labels(self, x: Tensor, condition: Tensor | None) -> Tensor:
        return labels_for(x, condition, self.classes or 0, self._name)

    @final
    def panel(
        self, x: Float[Tensor, "n *shape"], condition: Int64[Tensor, " n"] | None = None
    ) -> dict[str, Float[Tensor, " n"]]:
        """Each reading of the score by itself and by name, in its own unit."""
        pairs = Pairs(self.discriminator, self.standardised(x), self._labels(x, condition))
        return dict(zip(self.combination.names, self.combination.apart(pairs), strict=True))

    @final
    def critic(self, x: Float[Tensor, "n *shape"], condition: Int64[Tensor, " n"] | None = None) -> Float[Tensor, " n"]:
        """D(x, y): high for real inputs with their own labels."""
        found: Tensor = self.discriminator(self.standardised(x), self._labels(x, condition))
        return found

    @final
    def sample(self, n: int, seed: int, condition: Tensor | None = None) -> Float[Tensor, "n *shape"]:
        """`n` new inputs of the classes `condition` (n,), or of all classes in turn, their codes drawn by `seed`."""
        if n < 1:
            raise UsageError(f"at least 1 new input can be drawn, but n={n} came")
        if not self.generates:
            raise UsageError(f"this {self._name} was fitted without a generator: fit it with --param rest=0.5")
        code = torch.randn(n, self.code, generator=torch.Generator().manual_seed(seed)).to(self._device)
        labels = torch.arange(n, device=code.device) % (self.classes or 1) if condition is None else condition
        y = self._labels(code, labels)
        return self.restored(self.generator(code.to(next(self.generator.parameters()).dtype), y))
