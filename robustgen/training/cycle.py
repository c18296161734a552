"""The game of two domains without pairs: two translators, two critics, and a way there and back."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, final

import torch
from torch import Tensor, nn

from robustgen.data.rows import Rows
from robustgen.models.image_to_image import PatchDiscriminator, ResNetGenerator
from robustgen.training.two_players import Game
from robustgen.training.variety import variety

POOL = 50
_CYCLE, _IDENTITY = 10.0, 5.0
SIDES = ("normal", "other")


@final
class CycleGame(Game):
    """A cycle GAN (Zhu, Park, Isola, Efros 2017): least squares for the critics (Mao et al. 2017), which also meet
    earlier translations out of a pool of 50 (Shrivastava et al. 2017); for the translators that, 10 times the mean
    absolute error of the way there and back, and 5 times that by which an image of the right domain is changed.

    A batch: (2, n, c, h, w), images of the normal domain and of the other one, unpaired.
    """

    pool: Tensor
    pooled: Tensor

    def __init__(self, shape: tuple[int, ...], width: int, blocks: int) -> None:
        critics = {side: PatchDiscriminator(shape[0], min(shape[1:]), width=width) for side in SIDES}
        makers = {f"to_{side}": ResNetGenerator(shape, width=width, blocks=blocks) for side in SIDES}
        super().__init__(nn.ModuleDict(critics), nn.ModuleDict(makers))
        self.register_buffer("pool", torch.zeros(2, POOL, *shape))
        self.register_buffer("pooled", torch.zeros((), dtype=torch.int64))

    def critic_loss(self, batch: Any, step: int) -> Tensor:
        with torch.no_grad():
            made = torch.stack([self._to(side, batch[1 - number]) for number, side in enumerate(SIDES)])
        earlier = self._from_pool(made)
        total, apart = torch.zeros((), device=batch.device), torch.zeros((), device=batch.device)
        self.facts["variety"] = torch.stack([variety(*pair) for pair in zip(made, batch, strict=True)]).amin()
        for number, side in enumerate(SIDES):
            real, fake = self._judged(side, torch.cat([batch[number], earlier[number]])).split(len(batch[number]))
            total = total + 0.5 * ((real - 1).square().mean() + fake.square().mean())
            means = real.flatten(1).mean(1), fake.flatten(1).mean(1)
            apart = apart + (means[0][:, None] > means[1][None]).to(total.dtype).mean() / 2
        self.facts["told apart"] = apart.detach()
        return total

    def maker_loss(self, batch: Any, step: int) -> Tensor:
        total, wrong, changed = (torch.zeros((), device=batch.device) for _ in range(3))
        for number, side in enumerate(SIDES):
            other, back = batch[1 - number], SIDES[1 - number]
            made = self._to(side, torch.cat([other, batch[number]]))
            translated, same = made.split(len(other))
            total = total + (self._judged(side, translated) - 1).square().mean()
            wrong = wrong + (self._to(back, translated) - other).abs().mean()
            changed = changed + (same - batch[number]).abs().mean()
        self.facts["cycle error"], self.facts["identity error"] = wrong.detach() / 2, changed.detach() / 2
        return total + _CYCLE * wrong + _IDENTITY * changed

    def _to(self, side: str, x: Tensor) -> Tensor:
        made: Tensor = self.maker.get_submodule(f"to_{side}")(x)
        return made

    def _judged(self, side: str, x: Tensor) -> Tensor:
        found: Tensor = self.critic.get_submodule(side)(x)
        return found

    def _from_pool(self, made: Tensor) -> Tensor:
        """Translations (2, n, ...), about half of them exchanged for earlier ones once the pool is full."""
        n, full = made.shape[1], int(self.pooled)
        if full < POOL:
            taken = min(n, POOL - full)
            self.pool[:, full : full + taken] = made[:, :taken]
            self.pooled += taken
            return made
        out = made.clone()
        for number in range(2):
            places = torch.randperm(POOL)[: min(n, POOL)]
            swapped = torch.arange(len(places))[torch.rand(len(places)) < 0.5]
            places = places[swapped].to(made.device)
            out[number, swapped] = self.pool[number, places]
            self.pool[number, places] = made[number, swapped]
        return out


def both(normal: Rows, other: Rows, batch_size: int, shuffle: torch.Generator) -> Iterator[Tensor]:
    """Batches (2, n, *shape) of the two domains, until the larger has been gone through; the smaller starts again."""
    size = min(batch_size, len(normal), len(other))

    def endless(rows: Rows) -> Iterator[Tensor]:
        while True:
            yield from (x for x in rows.batches(size, shuffle) if len(x) == size)

    batches = max(len(normal), len(other)) // size
    first, second = endless(normal), endless(other)
    for _ in range(batches):
        yield torch.stack([next(first), next(second)])
