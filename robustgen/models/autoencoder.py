"""Autoencoders: a code narrower than the input, and the way back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from math import prod
from typing import final

from jaxtyping import Float
from torch import Tensor, nn

from robustgen.errors import UsageError


@final
class DenseAutoencoder(nn.Module):
    """flatten - (linear - ReLU) per hidden layer - linear - code, and back (Hinton, Salakhutdinov 2006).

    `widths`: of the hidden layers on the way to the code; those on the way back mirror them.
    """

    def __init__(self, shape: tuple[int, ...], code: int, widths: Sequence[int] = (256,)) -> None:
        super().__init__()
        sizes = (prod(shape), *widths, code)
        down: list[nn.Module] = []
        up: list[nn.Module] = []
        for large, small in pairwise(sizes):
            down += [nn.Linear(large, small), nn.ReLU()]
            up = [nn.Linear(small, large), nn.ReLU(), *up]
        self.encoder = nn.Sequential(nn.Flatten(), *down[:-1])
        self.decoder = nn.Sequential(*up[:-1], nn.Unflatten(1, shape))

    def forward(self, x: Float[Tensor, "n *shape"]) -> Float[Tensor, "n *shape"]:
        out: Tensor = self.decoder(self.encoder(x))
        return out


@final
class ConvolutionalAutoencoder(nn.Module):
    """Convolutions of 4 x 4 with stride 2 down to at most 8 x 8, a linear code, and the same way back, transposed.

    The kernel is twice the stride, so that every place of the output is made by as many weights and transposing leaves
    no checkerboard (Odena, Dumoulin, Olah 2016).
    """

    def __init__(self, shape: tuple[int, ...], code: int, width: int = 16) -> None:
        super().__init__()
        if len(shape) != 3 or min(shape[1:]) < 4:
            raise UsageError(
                f"a convolutional autoencoder needs images of at least 4 x 4, but inputs are {shape}: use the dense one"
            )
        sizes = [tuple(shape[1:])]
        while max(sizes[-1]) > 8 and min(sizes[-1]) > 3:
            sizes.append(tuple(side // 2 for side in sizes[-1]))
        widths = [shape[0], *(min(width * 2**level, 8 * width) for level in range(max(1, len(sizes) - 1)))]
        down: list[nn.Module] = []
        up: list[nn.Module] = []
        for level, (large, small) in enumerate(pairwise(sizes)):
            odd = (large[0] - 2 * small[0], large[1] - 2 * small[1])
            down += [nn.Conv2d(widths[level], widths[level + 1], 4, 2, 1), nn.ReLU()]
            up = [nn.ReLU(), nn.ConvTranspose2d(widths[level + 1], widths[level], 4, 2, 1, odd), *up]
        if len(sizes) == 1:
            down = [nn.Conv2d(shape[0], width, 3, 1, 1), nn.ReLU()]
            up = [nn.ReLU(), nn.Conv2d(width, shape[0], 3, 1, 1)]
        middle = (widths[-1], *sizes[-1])
        self.encoder = nn.Sequential(*down, nn.Flatten(), nn.Linear(prod(middle), code))
        self.decoder = nn.Sequential(nn.Linear(code, prod(middle)), nn.Unflatten(1, middle), *up)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        out: Tensor = self.decoder(self.encoder(x))
        return out


@final
class _Residual(nn.Module):
    """Group norm - ReLU - conv, twice, beside a shortcut: no output depends on other rows, in training neither."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            nn.GroupNorm(min(4, inputs), inputs),
            nn.ReLU(),
            nn.Conv2d(inputs, outputs, 3, 1, 1),
            nn.GroupNorm(min(4, outputs), outputs),
            nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, 1, 1),
        )
        self.shortcut: nn.Module = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.shortcut(x) + self.residual(x)
        return out


@final
class ResidualAutoencoder(nn.Module):
    """The levels of `ConvolutionalAutoencoder` with a residual block at each (He, Zhang, Ren, Sun 2016)."""

    def __init__(self, shape: tuple[int, ...], code: int, width: int = 16) -> None:
        super().__init__()
        if len(shape) != 3 or min(shape[1:]) < 4:
            raise UsageError(
                f"a residual autoencoder needs images of at least 4 x 4, but inputs are {shape}: use the dense one"
            )
        sizes, widths = _levels(shape, width)
        middle = (widths[-1], *sizes[-1])
        down: list[nn.Module] = [nn.Conv2d(shape[0], width, 3, 1, 1)]
        up: list[nn.Module] = [nn.Linear(code, prod(middle)), nn.Unflatten(1, middle)]
        widths[0] = width
        for before, after in pairwise(widths):
            down += [_Residual(before, after), nn.Conv2d(after, after, 3, 2, 1)]
        for level in range(len(sizes) - 1, 0, -1):
            up += [nn.Upsample(size=sizes[level - 1]), _Residual(widths[level], widths[level - 1])]
        self.encoder = nn.Sequential(*down, nn.ReLU(), nn.Flatten(), nn.Linear(prod(middle), code))
        self.decoder = nn.Sequential(*up, nn.ReLU(), nn.Conv2d(widths[0], shape[0], 3, 1, 1))

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        out: Tensor = self.decoder(self.encoder(x))
        return out


def _levels(shape: tuple[int, ...], width: int) -> tuple[list[tuple[int, ...]], list[int]]:
    """(height and width, channels) from the image down to at most 4 x 4, halved from each level to the next."""
    sizes = [tuple(shape[1:])]
    while max(sizes[-1]) > 4 and min(sizes[-1]) > 1:
        sizes.append(tuple((side + 1) // 2 for side in sizes[-1]))
    return sizes, [shape[0], *(min(width * 2**i, 8 * width) for i in range(len(sizes) - 1))]


def autoencoder(kind: str, shape: tuple[int, ...], code: int) -> nn.Module:
    """`dense`, `convolutional` or `residual`, or `auto`: convolutional for images of at least 16 x 16, else dense.

    `dense:128,64` = a dense one with hidden layers of these widths. Raises `UsageError` for other kinds.
    """
    if kind == "auto":
        kind = "convolutional" if len(shape) == 3 and min(shape[1:]) >= 16 else "dense"
    name, _, rest = kind.partition(":")
    if name not in NETWORKS:
        raise UsageError(f"an autoencoder is {', '.join(NETWORKS)} or auto, but {kind!r} came")
    if not rest:
        return NETWORKS[name](shape, code)
    widths = [int(width) if width.isdecimal() else 0 for width in rest.split(",")]
    if name != "dense" or min(widths) < 1:
        raise UsageError(f"hidden layers are given as in dense:128,64, but {kind!r} came")
    return DenseAutoencoder(shape, code, widths)


NETWORKS: dict[str, Callable[[tuple[int, ...], int], nn.Module]] = {
    "dense": DenseAutoencoder,
    "convolutional": ConvolutionalAutoencoder,
    "residual": ResidualAutoencoder,
}
