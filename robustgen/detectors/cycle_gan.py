"""A cycle GAN between normal inputs and another domain: a translator that purifies, and detectors made of it."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from statistics import mean
from typing import ClassVar, final

import torch
from jaxtyping import Float
from torch import Tensor

from robustgen.data.hold_out import hold_out
from robustgen.data.labelled import LabelledRows, unpacked
from robustgen.data.rows import Rows, TensorRows
from robustgen.detectors.base import Detector
from robustgen.detectors.record import Record
from robustgen.detectors.self_test import self_test
from robustgen.detectors.units import Units
from robustgen.errors import DataError, UsageError
from robustgen.metrics import auroc
from robustgen.models.image_to_image import require_images
from robustgen.runtime import seeded
from robustgen.training.cycle import CycleGame, both
from robustgen.training.descent import TrainingProgress
from robustgen.training.game_plan import game_recipe, playing
from robustgen.training.two_players import Game, GameRecipe, play

SCORES = ("cycle", "critic", "other", "identity", "divergence")
LEVELS, NOISE = 8, 0.05
"""To so many levels a translation is brought, and so much noise put on it, before the way back of the cycle error."""
_AT_ONCE = 256


@final
class CycleGANDetector(Detector):
    """A cycle GAN (Zhu, Park, Isola, Efros 2017) of two domains without pairs. `fit` needs images in [0, 1] and
    labels: 0 for the normal domain, 1 for the other (adversarial inputs, another source of the same things, a style).

    `scores`: readings joined by "+": "cycle", how far an input is from its way to the other domain and back, mean
    |x - to_normal(q(to_other(x)))|, with the translation brought to 8 levels and noise of 0.05 on it, because a cycle
    GAN hides its input in its translation (Chu, Zhmoginov, Sandler 2017); "critic", minus the mean of the normal
    domain's critic; "other", the mean of the other domain's; "identity", mean |x - to_normal(x)|; "divergence", the
    Jensen-Shannon divergence between what a classifier says of x and of to_normal(x), its logits divided by
    `temperature` (as MagNet has it of an autoencoder; Meng, Chen 2017). "auto": "divergence" if there is a classifier
    (`watch`), else "cycle+critic".

    About a tenth of the training inputs, at most about 2,000, is held out: they give the units of the readings and the
    round of play whose networks are kept: that which detects best, with a classifier the held-out inputs of the other
    domain, without one made-up anomalies (see `self_test`).

    `preset`: how long to play, "fast" (300 steps), "default" (1,000) or "best" (5,000); `steps`: another number.
    `width`: channels of the first level of every network; `blocks`: residual blocks of a translator.
    """

    labelled: ClassVar[bool] = True
    directions: ClassVar[tuple[str, ...]] = ("normal", "other")

    game: CycleGame
    units: Units
    noise: Tensor

    def __init__(
        self,
        scores: str = "auto",
        temperature: float = 10.0,
        width: int = 12,
        blocks: int = 2,
        preset: str = "default",
        steps: int | None = None,
        batch_size: int = 16,
        learning_rate: float = 2e-3,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if width < 1 or blocks < 1 or temperature <= 0:
            raise UsageError(
                f"width, blocks and temperature must be above 0, but {width}, {blocks} and {temperature:g} came"
            )
        self.scores, self.temperature, self.width, self.blocks = scores, temperature, width, blocks
        self.preset, self.steps, self.batch_size = preset, steps, batch_size
        self.learning_rate, self.seed = learning_rate, seed
        self.record = Record("cycle error", "identity error", "told apart", "variety")
        self._classifier: tuple[Callable[[Tensor], Tensor], ...] = ()  # in a tuple it is no part of the state
        self._recipe()  # what is out of range is said now
        if scores != "auto":
            Units(scores, SCORES)

    def watch(self, classifier: Callable[[Tensor], Tensor]) -> None:
        """Judge inputs by what `classifier` (inputs -> logits) says of them; before `fit` or `restore`. It is no part
        of the state.
        """
        self._classifier = (classifier,)

    def _build(self, shape: tuple[int, ...]) -> None:
        require_images(shape, "cycle-gan")
        device = self._device
        with seeded(self.seed):
            self.game = CycleGame(shape, self.width, self.blocks).to(device)
        chosen = ("divergence" if self._classifier else "cycle+critic") if self.scores == "auto" else self.scores
        self.units = Units(chosen, SCORES).to(device)
        if "divergence" in self.units.chosen and not self._classifier:
            raise UsageError("the score divergence asks a classifier: give one with --model (watch), or other scores")
        noise = torch.randn(shape, generator=torch.Generator().manual_seed(self.seed))
        self.register_buffer("noise", (NOISE * noise).to(device))

    def _recipe(self) -> GameRecipe:
        return game_recipe(
            self.preset,
            1,
            steps=self.steps,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            seed=self.seed,
        )

    def _fit(self, rows: Rows, progress: TrainingProgress | None) -> None:
        device, recipe = self._device, self._recipe()
        kept, held = hold_out(LabelledRows(rows), seed=self.seed, device=device)
        parts = self._domains(kept)
        if min(map(len, parts)) == 0:
            raise DataError(
                "cycle-gan needs inputs of two domains, labelled 0 (normal) and 1 (other), but "
                f"{len(parts[0])} and {len(parts[1])} came to train on: name the other domain, such as --other usps or "
                "--other attack:pgd:0.1, with more than a few inputs"
            )
        normal, other = (TensorRows(part) for part in parts)
        # of few inputs it may be that none is held out
        held_normal, held_other = (
            out if len(out) else part for out, part in zip(self._domains(held), parts, strict=True)
        )

        def judge(game: Game) -> float:
            self._measure(held_normal)
            if "divergence" in self.units.chosen:
                found = [self._scored(part).cpu().numpy() for part in (held_normal, held_other)]
                return auroc(found[0], found[1]).value
            return mean(self_test(lambda x: self._score(x, None), held_normal, "image").auroc.values())

        with playing(self.game, device, prod(rows.shape)):
            history = play(
                self.game,
                lambda shuffle: both(normal, other, recipe.batch_size, shuffle),
                recipe,
                device=device,
                judge=judge,
                checkpoint=self._checkpoint,
                progress=progress,
            )
        self.record.keep(history)
        self.to(device).eval()
        with torch.no_grad():
            self._measure(held_normal)

    def _domains(self, packed: Rows) -> tuple[Tensor, Tensor]:
        """The inputs of each domain. Raises `DataError` if there are others."""
        shape = self.shape or ()
        parts = [unpacked(batch, shape) for batch in packed.batches(4096)]
        x, y = torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts])
        found = sorted(set(y.tolist()))
        if not {*found} <= {0, 1}:
            raise DataError(
                f"cycle-gan needs inputs of two domains, labelled 0 (normal) and 1 (other), but labels {found[:12]} "
                "came: name the other domain, such as --other usps or --other attack:pgd:0.1"
            )
        return x[y == 0], x[y == 1]

    def _measure(self, x: Tensor) -> None:
        self.units.prepare(torch.cat([self._apart(part) for part in x.split(_AT_ONCE)], 1))

    def _scored(self, x: Tensor) -> Tensor:
        return torch.cat([self._score(part, None) for part in x.split(_AT_ONCE)])

    def translate(self, x: Float[Tensor, "n c h w"], to: str = "normal") -> Tensor:
        """The images as of the domain `to`, (n, c, h, w) in [0, 1]. Towards normal, this purifies."""
        if to not in self.directions:
            raise UsageError(f"cycle-gan translates to normal or to other, but {to!r} came")
        made: Tensor = self.game.maker.get_submodule(f"to_{to}")(x)
        return made

    def panel(self, x: Float[Tensor, "n c h w"], names: tuple[str, ...] | None = None) -> dict[str, Tensor]:
        """Each reading (n,) by itself and by name: all that can be had, or those in `names`."""
        found: dict[str, Callable[[], Tensor]] = {
            "cycle": lambda: (self._back(x) - x).abs().flatten(1).mean(1),
            "critic": lambda: -self._judged("normal", x),
            "other": lambda: self._judged("other", x),
            "identity": lambda: (self.translate(x) - x).abs().flatten(1).mean(1),
            "divergence": lambda: self._divergence(x),
        }
        wanted = names or tuple(name for name in SCORES if name != "divergence" or self._classifier)
        return {name: found[name]() for name in wanted}

    def _apart(self, x: Tensor) -> Tensor:
        return torch.stack([*self.panel(x, tuple(self.units.chosen)).values()])

    def _score(self, x: Tensor, condition: Tensor | None) -> Tensor:
        found: Tensor = self.units(self._apart(x))
        return found

    def _counterpart(self, x: Tensor) -> Tensor:
        return self.translate(x)

    def _judged(self, side: str, x: Tensor) -> Tensor:
        patches: Tensor = self.game.critic.get_submodule(side)(x)
        return patches.flatten(1).mean(1)

    def _back(self, x: Tensor) -> Tensor:
        """There and back again, with a translation too coarse to hide anything in; gradients pass the steps as if
        there were none.
        """
        made = self.translate(x, "other")
        coarse = made + ((made * (LEVELS - 1)).round() / (LEVELS - 1) - made).detach()
        return self.translate((coarse + self.noise.to(x.dtype)).clamp(0, 1))

    def _divergence(self, x: Tensor) -> Tensor:
        classify = self._classifier[0]
        return divergence(classify(x) / self.temperature, classify(self.translate(x)) / self.temperature)


def divergence(p: Float[Tensor, "n k"], q: Float[Tensor, "n k"]) -> Float[Tensor, " n"]:
    """The Jensen-Shannon divergence, in nats from 0 to log 2, of what two rows of logits say."""
    log_p, log_q = p.log_softmax(1), q.log_softmax(1)
    middle = torch.logaddexp(log_p, log_q) - 0.6931471805599453
    halves = log_p.exp() * (log_p - middle) + log_q.exp() * (log_q - middle)
    return 0.5 * halves.sum(1)
