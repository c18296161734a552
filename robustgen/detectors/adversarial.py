"""What the detectors around an unconditional GAN share: training, scores, codes and new inputs."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any, ClassVar, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from robustgen.data.hold_out import hold_out
from robustgen.data.rows import Rows
from robustgen.detectors.base import Detector
from robustgen.detectors.combination import Combination
from robustgen.detectors.gan_parts import GAN_PARTS
from robustgen.detectors.parts import View, Views
from robustgen.detectors.record import Record
from robustgen.detectors.self_test import anomalies
from robustgen.errors import UsageError
from robustgen.metrics import auroc
from robustgen.models.gan import Discriminator, convolved
from robustgen.registry import suggestion
from robustgen.runtime import seeded
from robustgen.training.descent import Recipe, TrainingProgress, descend
from robustgen.training.game_plan import game_recipe, playing
from robustgen.training.gan import (
    LOSSES,
    AdversarialGame,
    Loss,
    augmentation,
    penalty_by_default,
    spectral_by_default,
)
from robustgen.training.negatives import by_default, negatives
from robustgen.training.two_players import Game, GameRecipe, play
from robustgen.training.variety import Modes

_WIDEST = 64  # directions of the discriminator's features that neighbours are looked for in
_TIMES, _ROUNDS = 0.72, 12  # of the steps that one loss takes, and how often the players are judged
_NETWORKS = ("strided", "pooled")
_FEW = 1000  # training inputs below which real ones are varied


class AdversarialDetector(Detector, ABC):
    """A generator and a discriminator trained against each other on normal inputs, and an encoder that finds the code
    of an input. Subclasses bring the generator.

    `loss`: "hinge", "non-saturating" or "wasserstein"; `penalty`: of the gradient, None = by the loss (see
    `training.gan`). `network`: of the discriminator for images, "strided" (4 x 4 convolutions of stride 2, as in DCGAN;
    "auto") or "pooled" (3 x 3 convolutions and pooling). `spectral`: whether its layers have spectral norms; None = all
    but those with the loss "wasserstein", and those that judge images by the number for corrupted ones, which spectral
    norms hold back. `negatives`: corruptions of normal inputs that count as fakes, joined by "+" (see
    `training.negatives`), "none", or "auto"; where there are any, the discriminator has a number for them apart, by
    which it then judges, and the game against the generator weighs `contest` in what it learns. `history`, `fence`,
    `diversity`: see `AdversarialGame`. `augment`: "brightness", "translation", "cutout" joined by "+", "none", or
    "auto": brightness for images where there are fewer than 1,000. `code`: width of the generator's input; `width`: of
    the networks. `scores`: parts joined by "+" (see `gan_parts`) or "auto". `preset`: how long to play, "fast",
    "default" or "best"; `steps`: turns of the generator instead. About a tenth of the training inputs is held out: the
    round that best tells anomalies made of them is kept.
    """

    discriminator: Discriminator
    generator: nn.Module
    encoder: nn.Module
    combination: Combination
    directions: Tensor
    by_default: ClassVar[str] = "discriminator+knn+edges"
    version = 2

    def __init__(
        self,
        loss: str = "hinge",
        penalty: float | None = None,
        network: str = "auto",
        spectral: bool | None = None,
        negatives: str = "auto",
        contest: float = 0.2,
        history: float = 0.0,
        fence: float = 1.0,
        diversity: float = 0.0,
        augment: str = "auto",
        code: int = 64,
        width: int = 32,
        scores: str = "auto",
        preset: str = "default",
        steps: int | None = None,
        batch_size: int = 64,
        learning_rate: float = 5e-4,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if loss not in LOSSES:
            raise UsageError(suggestion(loss, LOSSES, "loss"))
        if network not in ("auto", *_NETWORKS):
            raise UsageError(suggestion(network, ("auto", *_NETWORKS), "network"))
        if min(code, width) < 1 or batch_size < 2:
            raise UsageError(
                f"code and width must be at least 1 and batch_size 2, but {code}, {width} and {batch_size} came"
            )
        if penalty is not None and not (math.isfinite(penalty) and penalty >= 0):
            raise UsageError(f"penalty is a weight from 0 up, but {penalty:g} came")
        if not (math.isfinite(contest) and contest > 0):
            raise UsageError(f"contest is a weight above 0, but {contest:g} came")
        if not (0 <= history < 1 and 0 < fence <= 1):
            raise UsageError(
                f"history is a share below 1 and fence a share above 0, but {history:g} and {fence:g} came"
            )
        self.loss: Loss = loss
        self.network, self.spectral = network, spectral
        self.penalty, self.negatives, self.history, self.fence = penalty, negatives, history, fence
        if not (math.isfinite(diversity) and diversity >= 0):
            raise UsageError(f"diversity is a weight from 0 up, but {diversity:g} came")
        self.diversity, self.contest = diversity, contest
        self.augment, self.code, self.width, self.scores = augment, code, width, scores
        self.preset, self.steps, self.batch_size = preset, steps, batch_size
        self.learning_rate, self.seed = learning_rate, seed
        self._recipe()  # what is out of range is said now
        self.record = Record("told apart", "variety", "modes")
        self.register_buffer("directions", torch.empty(0, 0))

    @abstractmethod
    def _generator(self, shape: tuple[int, ...]) -> nn.Module:
        """(n, code) drawn from N(0, I) -> (n, *shape)."""

    @abstractmethod
    def _made(self, code: Tensor) -> Tensor:
        """The input that belongs to each code that `encode` may give."""

    @final
    def _build(self, shape: tuple[int, ...]) -> None:
        from robustgen.models.autoencoder import autoencoder

        device, image = self._device, convolved(shape)
        self._negatives = negatives(by_default(shape) if self.negatives == "auto" else self.negatives, shape)
        augmentation("none" if self.augment == "auto" else self.augment, shape)
        judges = self._negatives is not None
        if self.network != "auto" and not image:
            raise UsageError(f"network={self.network} is for images from 6 x 6 up, but inputs have shape {shape}")
        with seeded(self.seed):
            self.discriminator = Discriminator(
                shape,
                width=self.width,
                spectral=spectral_by_default(self.loss, judges and image) if self.spectral is None else self.spectral,
                pooled=self.network == "pooled",
                twofold=judges,
            ).to(device)
            self.generator = self._generator(shape).to(device)
            self.encoder = autoencoder("auto", shape, self.code).get_submodule("encoder").to(device)
        names = self.by_default if image else "discriminator+knn"
        self.combination = Combination(names if self.scores == "auto" else self.scores, shape, GAN_PARTS).to(device)

    @final
    def _fit(self, rows: Rows, progress: TrainingProgress | None) -> None:
        device, shape = self._device, tuple(rows.shape)
        kept, held = hold_out(rows, seed=self.seed, device=device)
        recipe = self._recipe()
        encoding = max(1, recipe.rounds // 4)
        total = recipe.rounds + encoding

        def game_progress(done: int, _: int, value: float) -> None:
            if progress is not None:
                progress(done, total, value)

        def encoder_progress(done: int, of: int, value: float) -> None:
            if progress is not None and done == of:
                progress(total, total, value)

        augment = self.augment
        if augment == "auto":
            augment = "brightness" if convolved(shape) and len(kept) < _FEW else "none"
        game = AdversarialGame(
            self.discriminator,
            self.generator,
            self.code,
            loss=self.loss,
            penalty=penalty_by_default(self.loss) if self.penalty is None else self.penalty,
            negatives=self._negatives,
            contest=self.contest,
            history=self.history,
            fence=self.fence,
            diversity=self.diversity,
            augment=augmentation(augment, shape),
            seed=self.seed,
        )
        with playing(game, device, math.prod(shape)):
            history = play(
                game,
                lambda shuffle: kept.batches(self.batch_size, shuffle),
                recipe,
                device=device,
                judge=self._judge(held),
                checkpoint=self._checkpoint,
                progress=game_progress,
            )
            self.to(device).eval()
            self.record.keep(history)
            self._learn_to_encode(kept, device, recipe, encoding * recipe.steps, encoder_progress)
        self.to(device).eval()
        with torch.no_grad():
            self.directions = self._main_directions(kept)
            self.combination.prepare(self._views(kept), self._views(held), self.seed)

    def _judge(self, held: Rows) -> Callable[[Game], float]:
        """How well the discriminator tells anomalies made of held-out rows: mean AUROC over their kinds."""
        normal = next(held.batches(200, self._random()))  # rows may come in the order of their classes
        kind: Any = "image" if convolved(tuple(held.shape)) else "table"
        made = anomalies(normal, kind, 0.0, 1.0, torch.Generator().manual_seed(self.seed))
        code = torch.randn(len(normal), self.code, generator=self._random()).to(normal)
        modes = Modes(normal, self.seed)

        def judge(game: Game) -> float:
            game.facts["modes"] = torch.tensor(modes.reached(self.generator(code)))
            own = -self._judged(self.discriminator.features(normal))
            others = [-self._judged(self.discriminator.features(x)) for x in made.values()]
            inside = own.double().cpu().numpy()
            return sum(auroc(inside, other.double().cpu().numpy()).value for other in others) / len(others)

        return judge

    def _learn_to_encode(
        self, rows: Rows, device: torch.device, recipe: GameRecipe, steps: int, progress: TrainingProgress
    ) -> None:
        """The encoder learns to find codes whose inputs and their features are near the given ones' (Schlegl et al.
        2019, equation 3).
        """
        for parameter in (*self.generator.parameters(), *self.discriminator.parameters()):
            parameter.requires_grad_(False)

        def loss(network: nn.Module, x: Tensor, step: int) -> Tensor:
            back = self._made(network(x))
            features, again = self.discriminator.features(x), self.discriminator.features(back)
            residual = (x - back).square().flatten(1).mean(1)
            return residual + (features - again).square().mean(1)

        descend(
            self.encoder,
            loss,
            lambda shuffle: rows.batches(self.batch_size, shuffle),
            len(rows),
            Recipe(
                epochs=max(1, round(steps * self.batch_size / len(rows))), batch_size=self.batch_size, seed=self.seed
            ),
            device=device,
            progress=progress,
        )

    def _main_directions(self, rows: Rows) -> Tensor:
        """(k, at most 64) the principal directions of the discriminator's features."""
        features = torch.cat(
            [self.discriminator.features(x.to(self._device)) for x in rows.batches(512, self._random())][:10]
        )
        width = min(_WIDEST, *features.shape)
        _, _, directions = torch.linalg.svd((features - features.mean(0)).double(), full_matrices=False)
        main: Tensor = directions[:width].T.float()
        return main

    def _random(self) -> torch.Generator:
        return torch.Generator().manual_seed(self.seed)

    def _recipe(self) -> GameRecipe:
        return game_recipe(
            self.preset,
            _TIMES,
            rounds=_ROUNDS,
            steps=self.steps,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            seed=self.seed,
        )

    def _views(self, rows: Rows) -> Views:
        def views() -> Iterator[View]:
            for x in rows.batches(512):
                yield self._view(x.to(self._device))

        return views

    def _view(self, x: Tensor) -> View:
        return self._seen(x, self._made(self.encoder(x)))

    def _seen(self, x: Tensor, back: Tensor) -> View:
        features = self.discriminator.features(x)
        directions = self.directions.to(features.dtype)
        again = self.discriminator.features(back) @ directions
        return View(x, back, features @ directions, again, self._judged(features))

    def _judged(self, features: Tensor) -> Tensor:
        """What the discriminator says: by its number for corrupted inputs where it has one."""
        return self.discriminator.judge(features) if self._negatives is None else self.discriminator.intact(features)

    @final
    def _score(self, x: Tensor, condition: Tensor | None) -> Tensor:
        found: Tensor = self.combination(self._view(x))
        return found

    @final
    def _map(self, x: Tensor, condition: Tensor | None) -> Tensor:
        return self.combination.explain(self._view(x), lambda z: self._seen(z, z))

    @final
    def encode(self, x: Float[Tensor, "n *shape"]) -> Float[Tensor, "n k"]:
        """The code whose input is near each input, as the encoder finds it."""
        code: Tensor = self.encoder(self.standardised(x))
        return code

    @final
    def decode(self, code: Float[Tensor, "n k"]) -> Float[Tensor, "n *shape"]:
        """The input that the generator makes of each code."""
        return self.restored(self._made(code))

    @final
    def reconstruct(self, x: Float[Tensor, "n *shape"]) -> Float[Tensor, "n *shape"]:
        """What the generator can make that is near each input."""
        return self.decode(self.encode(x))

    @final
    def critic(self, x: Float[Tensor, "n *shape"]) -> Float[Tensor, " n"]:
        """What the discriminator says of each input: high for normal ones."""
        return self._judged(self.discriminator.features(self.standardised(x)))


def check_drawn(n: int, truncation: float) -> None:
    """Raise `UsageError` unless so many inputs can be drawn so."""
    if n < 1 or not 0 <= truncation <= 1:
        raise UsageError(
            f"at least 1 new input can be drawn, with a truncation from 0 to 1, but n={n} and truncation="
            f"{truncation:g} came"
        )
