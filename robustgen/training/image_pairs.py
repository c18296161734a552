"""The game of image pairs: a maker of photos for conditions, a critic of whether a photo fits its condition."""

from __future__ import annotations

from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad, relu

from robustgen.models.image_to_image import PatchDiscriminator, UNetGenerator
from robustgen.training.two_players import Game
from robustgen.training.variety import variety

_L1 = 50.0


@final
class PairGame(Game):
    """pix2pix (Isola, Zhu, Zhou, Efros 2017): the maker's photos shall pass and be close to the real ones; and a critic
    that also learns what a mismatch is.

    A batch: (n, condition and photo channels, h, w), the first `channels` of which are the condition. Hinge losses
    (Lim, Ye 2017) per patch; the maker's: minus the critic's mean plus 50 times the mean absolute error.

    `share`: how much of what counts as fake are real photos beside a condition that is not theirs (after Reed et al.
    2016, GAN-CLS): half of them that of another pair, half their own moved by up to `reach` pixels; with `reach` 0 all
    that of another pair. With `share` 0, the published game, the critic meets no mismatch and need not look at the
    condition at all.
    """

    critic: PatchDiscriminator
    maker: UNetGenerator

    def __init__(
        self, critic: PatchDiscriminator, maker: UNetGenerator, channels: int, share: float, reach: int
    ) -> None:
        super().__init__(critic, maker)
        self.channels, self.share, self.reach = channels, share, reach

    def critic_loss(self, batch: Any, step: int) -> Tensor:
        condition = batch[:, : self.channels]
        with torch.no_grad():
            made = self.maker(condition)
        given = [batch, torch.cat([condition, made], 1)]
        if self.share:
            given.append(mismatched(batch, self.channels, self.reach))
        judged = self.critic(torch.cat(given)).split([len(part) for part in given])
        real, fake = relu(1 - judged[0]).mean(), relu(1 + judged[1]).mean()
        means = [part.detach().flatten(1).mean(1) for part in judged]
        if len(condition.flatten(1).unique(dim=0)) == len(condition):  # of one condition one photo is made
            self.facts["variety"] = variety(made, batch[:, self.channels :])
        self.facts["told apart"] = (means[0][:, None] > means[1][None]).to(real.dtype).mean()
        if not self.share or not len(given[2]):
            return real + fake
        self.facts["mismatches told apart"] = (means[0][:, None] > means[2][None]).to(real.dtype).mean()
        value: Tensor = real + (1 - self.share) * fake + self.share * relu(1 + judged[2]).mean()
        return value

    def maker_loss(self, batch: Any, step: int) -> Tensor:
        condition, photo = batch[:, : self.channels], batch[:, self.channels :]
        made = self.maker(condition)
        error: Tensor = (made - photo).abs().mean()
        self.facts["error"] = error.detach()
        passed: Tensor = self.critic(torch.cat([condition, made], 1)).mean()
        value: Tensor = _L1 * error - passed
        return value


def mismatched(x: Float[Tensor, "n c h w"], channels: int, reach: int = 3) -> Float[Tensor, "m c h w"]:
    """Pairs that do not fit, made of pairs: the first half (all with `reach` 0) with the condition of the row before,
    the others with their own, or in turn the photo, moved by 1 to `reach` pixels up, down, left or right. Where the
    condition of the row before is the same, as that of one template for all products is, the pair is moved too; with
    `reach` 0 it is left out, so that fewer may come back. Draws from the global generator.
    """
    condition, photo = x[:, :channels], x[:, channels:]
    half = len(x) // 2 if reach and len(x) > 1 else 0 if reach else len(x)
    alike = (condition == condition.roll(1, 0)).flatten(1).all(1)
    condition = torch.cat([condition.roll(1, 0)[:half], condition[half:]])
    rows = list(torch.cat([condition, photo], 1).split(1))
    ways = torch.randint(4, (len(x),)).tolist()
    steps = torch.randint(1, max(1, reach) + 1, (len(x),)).tolist()
    if not reach:
        return torch.cat([condition, photo], 1)[~alike]
    for row in [*alike[:half].nonzero()[:, 0].tolist(), *range(half, len(x))]:
        which = slice(0, channels) if row % 2 else slice(channels, None)
        rows[row] = rows[row].clone()
        rows[row][:, which] = moved(rows[row][:, which], ways[row], steps[row])
    return torch.cat(rows)


def moved(x: Float[Tensor, "n c h w"], way: int, step: int) -> Float[Tensor, "n c h w"]:
    """Images moved by `step` pixels up, down, left or right (`way` 0 to 3), their border repeated."""
    height, width = x.shape[2:]
    down, along = ((-step, 0), (step, 0), (0, -step), (0, step))[way]
    wide = pad(x, (step, step, step, step), mode="replicate")
    return wide[:, :, step - down : step - down + height, step - along : step - along + width]
