"""Networks from images to images, and the discriminator that judges them patch by patch.

Nothing in them mixes rows: they normalise within an image (group normalisation, Wu, He 2018), where the published
networks take statistics of the batch.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import interpolate
from torch.nn.utils.parametrizations import spectral_norm

from robustgen.errors import UsageError
from robustgen.models.gan import sides, widths_of

_SLOPE = 0.2  # of the leaky ReLUs (Radford et al. 2016)
SMALLEST = 6
"""The smallest height and width that these networks take."""


def require_images(shape: tuple[int, ...], name: str) -> None:
    """Raise `UsageError` unless inputs of `shape` are images large enough for these networks."""
    if len(shape) != 3 or min(shape[1:]) < SMALLEST:
        raise UsageError(
            f"{name} needs images (channels, height, width) of at least {SMALLEST} x {SMALLEST} pixels, but inputs of "
            f"shape {shape} came"
        )


def _normed(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(max(1, channels // 8), channels)


@final
class UNetGenerator(nn.Module):
    """A U-Net (Ronneberger, Fischer, Brox 2015; Isola et al. 2017): levels of stride 2 down and up again, each level
    of the way up seeing that of the way down, and a sigmoid at the end.

    `inputs`: channels that come; `shape`: (c, h, w) of what goes out, of the same height and width. `width`: channels
    of the first level. On the way up it enlarges before it convolves, which leaves no checkerboard (Odena, Dumoulin,
    Olah 2016).
    """

    def __init__(self, inputs: int, shape: tuple[int, ...], *, width: int = 16) -> None:
        super().__init__()
        levels = min(4, len(sides(shape)) - 1)
        channels = [inputs, *widths_of(levels, width)]
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        for number, (before, after) in enumerate(pairwise(channels)):
            layers: list[nn.Module] = [nn.Conv2d(before, after, 4, 2, 1)]
            if number:
                layers.append(_normed(after))
            self.down.append(nn.Sequential(*layers, nn.LeakyReLU(_SLOPE)))
        given = channels[-1]
        for skipped in channels[-2:0:-1]:
            self.up.append(nn.Sequential(nn.Conv2d(given, skipped, 3, 1, 1), _normed(skipped), nn.ReLU()))
            given = 2 * skipped
        self.last = nn.Sequential(
            nn.Conv2d(given + inputs, width, 3, 1, 1), nn.ReLU(), nn.Conv2d(width, shape[0], 3, 1, 1), nn.Sigmoid()
        )

    def forward(self, condition: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c2 h w"]:
        seen = [condition]
        for layer in self.down:
            seen.append(layer(seen[-1]))
        x = seen.pop()
        for layer in self.up:
            skipped = seen.pop()
            x = torch.cat([layer(interpolate(x, size=skipped.shape[2:])), skipped], 1)
        made: Tensor = self.last(torch.cat([interpolate(x, size=condition.shape[2:]), condition], 1))
        return made


@final
class PatchDiscriminator(nn.Module):
    """A number for every patch of an image, high for real ones (Isola et al. 2017): it sees no more than the patch.

    A convolution at the image's own resolution, so that not a pixel's place is lost before two pictures are compared;
    two of stride 2 (three for images above 48 pixels), one of stride 1, and a head. A patch is 20 pixels wide, 40 for
    large images. `spectral`: every layer is divided by its spectral norm (Miyato et al. 2018), which makes it too
    smooth to learn a shift of two pixels soon.
    """

    def __init__(self, channels: int, side: int, *, width: int = 16, spectral: bool = False) -> None:
        super().__init__()
        norm: Callable[[nn.Module], nn.Module] = spectral_norm if spectral else lambda layer: layer
        widths = [width, *widths_of(1 if side < 12 else 2 if side <= 48 else 3, width)]
        layers: list[nn.Module] = [norm(nn.Conv2d(channels, width, 3, 1, 1)), nn.LeakyReLU(_SLOPE)]
        for before, after in pairwise(widths):
            layers += [norm(nn.Conv2d(before, after, 4, 2, 1)), nn.LeakyReLU(_SLOPE)]
        layers += [norm(nn.Conv2d(widths[-1], widths[-1], 3, 1, 1)), nn.LeakyReLU(_SLOPE)]
        self.body = nn.Sequential(*layers, norm(nn.Conv2d(widths[-1], 1, 1)))

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n h2 w2"]:
        found: Tensor = self.body(x)[:, 0]
        return found


class _Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, channels, 3, 1, 1),
            _normed(channels),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, 1, 1),
            _normed(channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        changed: Tensor = x + self.body(x)
        return changed


@final
class ResNetGenerator(nn.Module):
    """Images to images of the same shape: two levels of stride 2, residual blocks, up again and a sigmoid (Johnson,
    Alahi, Fei-Fei 2016; Zhu et al. 2017). On the way up it enlarges before it convolves, and its last layers see
    what the first one saw beside what has become of it.
    """

    def __init__(self, shape: tuple[int, ...], *, width: int = 16, blocks: int = 2) -> None:
        super().__init__()
        channels = [width, 2 * width, 4 * width]
        self.first = nn.Sequential(nn.Conv2d(shape[0], width, 3, 1, 1), nn.ReLU())
        self.down = nn.ModuleList(
            nn.Sequential(nn.Conv2d(before, after, 4, 2, 1), _normed(after), nn.ReLU())
            for before, after in pairwise(channels)
        )
        self.blocks = nn.Sequential(*(_Residual(channels[-1]) for _ in range(blocks)))
        self.up = nn.ModuleList(
            nn.Sequential(nn.Conv2d(before, after, 3, 1, 1), _normed(after), nn.ReLU())
            for before, after in pairwise(channels[::-1])
        )
        self.last = nn.Sequential(
            nn.Conv2d(2 * width, width, 3, 1, 1), nn.ReLU(), nn.Conv2d(width, shape[0], 3, 1, 1), nn.Sigmoid()
        )

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        seen = [self.first(x)]
        for layer in self.down:
            seen.append(layer(seen[-1]))
        sizes = [level.shape[2:] for level in seen]
        y = self.blocks(seen[-1])
        for layer, size in zip(self.up, sizes[-2::-1], strict=True):
            y = layer(interpolate(y, size=size))
        made: Tensor = self.last(torch.cat([y, seen[0]], 1))
        return made
