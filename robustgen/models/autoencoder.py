"""Autoencoders: a code narrower than the input, and the way back."""

from __future__ import annotations

from itertools import pairwise
from math import prod
from typing import final

from jaxtyping import Float
from torch import Tensor, nn

from robustgen.errors import UsageError


@final
class DenseAutoencoder(nn.Module):
    """flatten - linear - ReLU - code - linear - ReLU - linear (Hinton, Salakhutdinov 2006, with fewer layers)."""

    def __init__(self, shape: tuple[int, ...], code: int, width: int = 256) -> None:
        super().__init__()
        size = prod(shape)
        self.encoder = nn.Sequential(nn.Flatten(), nn.Linear(size, width), nn.ReLU(), nn.Linear(width, code))
        self.decoder = nn.Sequential(nn.Linear(code, width), nn.ReLU(), nn.Linear(width, size), nn.Unflatten(1, shape))

    def forward(self, x: Float[Tensor, "n *shape"]) -> Float[Tensor, "n *shape"]:
        out: Tensor = self.decoder(self.encoder(x))
        return out


@final
class ConvolutionalAutoencoder(nn.Module):
    """Strided convolutions down to at most 4 x 4, a linear code, and nearest-neighbour upsampling with convolutions
    back.

    Upsampling then convolving avoids the checkerboards of transposed convolutions (Odena, Dumoulin, Olah 2016).
    """

    def __init__(self, shape: tuple[int, ...], code: int, width: int = 16) -> None:
        super().__init__()
        if len(shape) != 3 or min(shape[1:]) < 4:
            raise UsageError(
                f"a convolutional autoencoder needs images of at least 4 x 4, but inputs are {shape}: use the dense one"
            )
        sizes = [shape[1:]]
        while max(sizes[-1]) > 4 and min(sizes[-1]) > 1:
            sizes.append(((sizes[-1][0] + 1) // 2, (sizes[-1][1] + 1) // 2))
        widths = [shape[0], *(min(width * 2**i, 8 * width) for i in range(len(sizes) - 1))]
        down: list[nn.Module] = []
        for before, after in pairwise(widths):
            down += [nn.Conv2d(before, after, 3, 2, 1), nn.ReLU()]
        middle = (widths[-1], *sizes[-1])
        self.encoder = nn.Sequential(*down, nn.Flatten(), nn.Linear(prod(middle), code))
        up: list[nn.Module] = [nn.Linear(code, prod(middle)), nn.ReLU(), nn.Unflatten(1, middle)]
        for level in range(len(sizes) - 1, 0, -1):
            up += [
                nn.Upsample(size=sizes[level - 1]),
                nn.Conv2d(widths[level], widths[level - 1] if level > 1 else width, 3, 1, 1),
                nn.ReLU(),
            ]
        self.decoder = nn.Sequential(*up, nn.Conv2d(width if len(sizes) > 1 else shape[0], shape[0], 3, 1, 1))

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        out: Tensor = self.decoder(self.encoder(x))
        return out


def autoencoder(kind: str, shape: tuple[int, ...], code: int) -> nn.Module:
    """`dense` or `convolutional`, or `auto`: convolutional for images of at least 16 x 16, else dense."""
    if kind == "auto":
        kind = "convolutional" if len(shape) == 3 and min(shape[1:]) >= 16 else "dense"
    if kind not in ("dense", "convolutional"):
        raise UsageError(f"an autoencoder is dense, convolutional or auto, but {kind!r} came")
    return ConvolutionalAutoencoder(shape, code) if kind == "convolutional" else DenseAutoencoder(shape, code)
