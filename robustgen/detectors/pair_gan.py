"""The conditional GAN of image pairs: does a photo fit the condition beside it?"""

from __future__ import annotations

from math import prod
from typing import ClassVar, final

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import interpolate

from robustgen.data.hold_out import hold_out
from robustgen.data.rows import Rows
from robustgen.detectors.base import Detector
from robustgen.detectors.record import Record
from robustgen.detectors.units import Units
from robustgen.errors import DataError, UsageError
from robustgen.metrics import auroc
from robustgen.models.image_to_image import PatchDiscriminator, UNetGenerator, require_images
from robustgen.registry import suggestion
from robustgen.runtime import seeded
from robustgen.training.descent import TrainingProgress
from robustgen.training.game_plan import game_recipe, playing
from robustgen.training.image_pairs import PairGame, mismatched, moved
from robustgen.training.two_players import Game, GameRecipe, play

MATCHING = ("aware", "none")
SCORES = ("patches", "worst", "l1", "gap")
_SHARE = 0.5
_AT_ONCE = 256


@final
class PairGANDetector(Detector):
    """pix2pix (Isola, Zhu, Zhou, Efros 2017) as a detector of pairs that do not fit: an edge map and a photo, a
    template and a product, a mask and a photo.

    An input is one image (c, h, w) with values in [0, 1]: its first `condition_channels` channels are the condition,
    the others the photo. None: 3 of 6 channels (two colour pictures), else the first.

    `matching`: "aware" shows the discriminator real photos beside conditions that are not theirs, as fakes (see
    `PairGame`); "none" is the published game, whose discriminator tells a mismatch badly (kept for the comparison).
    `reach`: half of these conditions are the photo's own, moved by up to so many pixels; 0 for pairs that do not lie on
    each other to the pixel.

    `scores`: readings joined by "+": "patches", minus the mean of D(condition, photo) over its patches; "worst", minus
    the least of them; "l1", how far the photo is from the generator's, mean |x - G(c)|; "gap", by how much D prefers
    the generator's photo. About a tenth of the training pairs, at most about 2,000, is held out: it gives the units of
    the readings, and where D learns mismatches, the round of play whose networks are kept is that which tells held-out
    pairs from mismatches made of them best.

    `preset`: how long to play, "fast" (600 steps), "default" (2,000) or "best" (10,000); `steps`: another number.
    `width`: channels of both networks' first levels.
    """

    directions: ClassVar[tuple[str, ...]] = ("photo",)

    discriminator: PatchDiscriminator
    generator: UNetGenerator
    units: Units

    def __init__(
        self,
        condition_channels: int | None = None,
        matching: str = "aware",
        reach: int = 3,
        scores: str = "patches+gap",
        width: int = 16,
        preset: str = "default",
        steps: int | None = None,
        batch_size: int = 32,
        learning_rate: float = 2e-3,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if matching not in MATCHING:
            raise UsageError(suggestion(matching, MATCHING, "matching"))
        if width < 1 or reach < 0 or (condition_channels is not None and condition_channels < 1):
            raise UsageError(
                "width and condition_channels must be at least 1 and reach at least 0, but "
                f"{width}, {condition_channels} and {reach} came"
            )
        self.condition_channels, self.matching, self.reach = condition_channels, matching, reach
        self.scores, self.width = scores, width
        self.preset, self.steps, self.batch_size = preset, steps, batch_size
        self.learning_rate, self.seed = learning_rate, seed
        self.record = Record("mismatches told apart", "error", "told apart", "variety")
        self._recipe()  # what is out of range is said now
        Units(scores, SCORES)

    @property
    def channels(self) -> int:
        """How many channels the condition has."""
        shape = self.shape or (2,)
        return self.condition_channels or (3 if shape[0] == 6 else 1)

    def _build(self, shape: tuple[int, ...]) -> None:
        require_images(shape, "pair-gan")
        if shape[0] <= self.channels:
            raise UsageError(
                f"pair-gan judges pairs, images whose first {self.channels} channels are the condition and the others "
                f"the photo, but inputs of shape {shape} came: stack the two, or open pairs:CONDITIONS,PHOTOS or "
                "edges:DATA"
            )
        device, photo = self._device, (shape[0] - self.channels, *shape[1:])
        with seeded(self.seed):
            self.generator = UNetGenerator(self.channels, photo, width=self.width).to(device)
            self.discriminator = PatchDiscriminator(shape[0], min(shape[1:]), width=self.width).to(device)
        self.units = Units(self.scores, SCORES).to(device)

    def _recipe(self) -> GameRecipe:
        return game_recipe(
            self.preset,
            2,
            steps=self.steps,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            seed=self.seed,
        )

    def _fit(self, rows: Rows, progress: TrainingProgress | None) -> None:
        device = self._device
        kept, held = hold_out(rows, seed=self.seed, device=device)
        recipe = self._recipe()
        share = _SHARE if self.matching == "aware" else 0.0
        x = torch.cat(list(held.batches(_AT_ONCE))).to(device)
        with seeded(self.seed):
            odd = mismatched(x, self.channels, self.reach)
        if share and not len(odd):
            raise DataError(
                "all pairs have the same condition, so that with reach=0 none can be made that does not fit: leave "
                "reach at 3 if condition and photo lie on each other, or take a detector of the photos alone"
            )

        def judge(game: Game) -> float:
            return auroc(self._fit_of(x).cpu().numpy(), self._fit_of(odd).cpu().numpy()).value

        game = PairGame(self.discriminator, self.generator, self.channels, share, self.reach)
        with playing(game, device, prod(rows.shape)):
            history = play(
                game,
                lambda shuffle: kept.batches(recipe.batch_size, shuffle),
                recipe,
                device=device,
                judge=judge if share else None,
                checkpoint=self._checkpoint,
                progress=progress,
            )
        self.record.keep(history)
        self.to(device).eval()
        with torch.no_grad():
            self.units.prepare(torch.cat([self._apart(part) for part in x.split(_AT_ONCE)], 1))

    def _fit_of(self, x: Tensor) -> Tensor:
        """(n,) how badly photos fit, by the discriminator alone."""
        return torch.cat([-self.discriminator(part).flatten(1).mean(1) for part in x.split(_AT_ONCE)])

    def translate(self, x: Float[Tensor, "n c h w"], to: str = "photo") -> Float[Tensor, "n c2 h w"]:
        """The photos that the generator makes for the conditions of `x`, pairs (or conditions alone), in [0, 1]."""
        if to not in self.directions:
            raise UsageError(f"pair-gan makes photos of conditions, but {to!r} was asked for")
        made: Tensor = self.generator(x[:, : self.channels])
        return made

    def mismatched(self, x: Float[Tensor, "n c h w"]) -> dict[str, Float[Tensor, "_ c h w"]]:
        """Pairs that do not fit: photos beside the condition of the pair before, where it is another, and, where
        `reach` says that the two lie on each other to the pixel, moved by two pixels to the right.
        """
        condition, photo = x[:, : self.channels], x[:, self.channels :]
        before = condition.roll(1, 0)
        others = (before != condition).flatten(1).any(1)
        made = {"other condition": torch.cat([before, photo], 1)[others]} if others.any() else {}
        return made | ({"moved": torch.cat([condition, moved(photo, 3, 2)], 1)} if self.reach else {})

    def panel(self, x: Float[Tensor, "n c h w"]) -> dict[str, Float[Tensor, " n"]]:
        """Every reading by itself and by name, chosen or not."""
        condition, photo = x[:, : self.channels], x[:, self.channels :]
        judged, made = self.discriminator(x).flatten(1), self.generator(condition)
        of_made = self.discriminator(torch.cat([condition, made], 1)).flatten(1)
        return {
            "patches": -judged.mean(1),
            "worst": -judged.amin(1),
            "l1": (photo - made).abs().flatten(1).mean(1),
            "gap": of_made.mean(1) - judged.mean(1),
        }

    def _apart(self, x: Tensor) -> Tensor:
        found = self.panel(x)
        return torch.stack([found[name] for name in self.units.chosen])

    def _score(self, x: Tensor, condition: Tensor | None) -> Tensor:
        return self.units(self._apart(x))  # type: ignore[no-any-return]

    def _map(self, x: Tensor, condition: Tensor | None) -> Tensor:
        """The patches' numbers where they lie, shared by condition and photo, and the error at the photo's own values;
        together they are the score.
        """
        judged = -self.discriminator(x)[:, None]
        alone, total = len(self.units.chosen) == 1, torch.zeros_like(x)
        made = self.translate(x)
        for number, name in enumerate(self.units.chosen):
            centre, scale = (0.0, 1.0) if alone else (float(self.units.centre[number]), float(self.units.scale[number]))
            if name == "l1":
                part = torch.zeros_like(x)
                part[:, self.channels :] = (x[:, self.channels :] - made).abs() / prod(made.shape[1:])
                total = total + (part - centre / prod(x.shape[1:])) / scale
                continue
            if name == "worst":
                own = judged.flatten(1)
                place = torch.zeros_like(own).scatter_(1, own.argmax(1, keepdim=True), own.shape[1])
                judged_here = judged * place.reshape(judged.shape)
            elif name == "gap":
                condition_and_made = torch.cat([x[:, : self.channels], made], 1)
                judged_here = judged + self.discriminator(condition_and_made)[:, None]
            else:
                judged_here = judged
            wide = interpolate(judged_here - centre, size=x.shape[2:], mode="bilinear", align_corners=False)
            wide = wide + (judged_here.mean((1, 2, 3), keepdim=True) - centre - wide.mean((1, 2, 3), keepdim=True))
            total = total + wide.expand_as(x) / (prod(x.shape[1:]) * scale)
        return total
