"""The two players of a generative adversarial network: a discriminator and a generator, sized from the data's shape."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from math import prod
from typing import final

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn.functional import one_hot
from torch.nn.utils.parametrizations import spectral_norm

from robustgen.errors import UsageError

_ALMOST_NONE = 0.01
_SLOPE = 0.2  # of the leaky ReLUs of discriminators (Radford et al. 2016)


def convolved(shape: tuple[int, ...]) -> bool:
    """Whether inputs of `shape` are images (c, h, w) that the networks here see by convolutions."""
    return len(shape) == 3 and min(shape[1:]) >= 6


def sides(shape: tuple[int, ...]) -> list[tuple[int, int]]:
    """Heights and widths from those of images of `shape`, halved while both stay at least 3 and one is above 4."""
    found = [(shape[1], shape[2])]
    while max(found[-1]) > 4 and min(found[-1]) >= 6:
        found.append((found[-1][0] // 2, found[-1][1] // 2))
    return found


def widths_of(levels: int, width: int) -> list[int]:
    """Channels of so many levels, doubled from one to the next up to 8 times `width`."""
    return [min(width * 2**level, 8 * width) for level in range(levels)]


@final
class Discriminator(nn.Module):
    """Images: 4 x 4 convolutions of stride 2; other inputs: two dense layers; then one number, high for real inputs.

    No layer mixes rows. `spectral`: every layer is divided by its spectral norm (Miyato et al. 2018). `classes`: the
    input is judged together with a label, by a projection (Miyato, Koyama 2018): the number is head(h) + <embedding of
    the label, h>, with h the features. `pooled`: images pass four 3 x 3 convolutions instead, two at half and two at a
    quarter of their sides (their 2 x 2 blocks are the channels of the first), and a dense layer. `dense`: at most two
    convolutions of stride 2, then a dense layer of so many units, with leaky ReLUs that pass next to nothing below 0:
    few layers, each of which keeps a box small, for bounds. `twofold`: it tells intact inputs from corrupted ones too,
    by a number of its own (see `intact`), which shares all layers but the last (as the classes of Odena, Olah, Shlens
    2017 and the rotations of Chen et al. 2019 do). `width`: channels of the first convolution, or a quarter of the
    units of a dense layer.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        *,
        width: int = 32,
        classes: int = 0,
        spectral: bool = True,
        pooled: bool = False,
        dense: int = 0,
        twofold: bool = False,
    ) -> None:
        super().__init__()
        slope = _ALMOST_NONE if dense else _SLOPE
        norm: Callable[[nn.Module], nn.Module] = spectral_norm if spectral else lambda layer: layer
        layers: list[nn.Module] = []
        if convolved(shape) and pooled:
            self.size = 4 * width
            if shape[1] % 2 or shape[2] % 2:
                layers.append(nn.ZeroPad2d((0, shape[2] % 2, 0, shape[1] % 2)))
            layers.append(nn.PixelUnshuffle(2))
            for inputs, outputs in ((4 * shape[0], width), (width, width), (width, 2 * width), (2 * width, 2 * width)):
                layers += [norm(nn.Conv2d(inputs, outputs, 3, padding=1)), nn.ReLU()]
            layers.insert(-4, nn.MaxPool2d(2))
            flat = 2 * width * ((shape[1] + 1) // 4) * ((shape[2] + 1) // 4)
            layers += [nn.Flatten(), norm(nn.Linear(flat, self.size)), nn.ReLU()]
        elif convolved(shape):
            places = sides(shape)[:3] if dense else sides(shape)
            channels = [shape[0], *widths_of(len(places) - 1, width)]
            for inputs, outputs in pairwise(channels):
                layers += [norm(nn.Conv2d(inputs, outputs, 4, 2, 1)), nn.LeakyReLU(slope)]
            self.size = channels[-1] * prod(places[-1])
            layers.append(nn.Flatten())
            if dense:
                layers += [norm(nn.Linear(self.size, dense)), nn.LeakyReLU(slope)]
                self.size = dense
        else:
            layers.append(nn.Flatten())
            self.size = 4 * width
            for inputs in (prod(shape), self.size):
                layers += [norm(nn.Linear(inputs, self.size)), nn.LeakyReLU(slope)]
        self.body = nn.Sequential(*layers)
        self.head = norm(nn.Linear(self.size, 1))
        self.labels = norm(nn.Linear(self.size, classes, bias=False)) if classes else None
        self.second = norm(nn.Linear(self.size, 1)) if twofold else None
        self.classes = classes

    def features(self, x: Float[Tensor, "n *shape"]) -> Float[Tensor, "n k"]:
        """What the last layer sees."""
        found: Tensor = self.body(x)
        return found

    def judge(self, features: Float[Tensor, "n k"], y: Int64[Tensor, " n"] | None = None) -> Float[Tensor, " n"]:
        """The numbers that belong to features, with labels if the network has classes."""
        found: Tensor = self.head(features)[:, 0]
        if self.labels is not None:
            if y is None:
                raise UsageError("this discriminator judges an input together with a label: pass the labels")
            found = found + self.labels(features).gather(1, y[:, None])[:, 0]
        return found

    def intact(self, features: Float[Tensor, "n k"]) -> Float[Tensor, " n"]:
        """The second numbers that belong to features: high for intact inputs, low for corrupted ones."""
        if self.second is None:
            raise UsageError("this discriminator was not made to know corrupted inputs")
        found: Tensor = self.second(features)[:, 0]
        return found

    def judge_every(self, features: Float[Tensor, "n k"]) -> Float[Tensor, "n classes"]:
        """The numbers that belong to features with every label."""
        if self.labels is None:
            raise UsageError("this discriminator knows no labels")
        found: Tensor = self.head(features) + self.labels(features)
        return found

    def every(self, x: Float[Tensor, "n *shape"]) -> Float[Tensor, "n classes"]:
        """The numbers of each input with every label."""
        return self.judge_every(self.features(x))

    def forward(self, x: Float[Tensor, "n *shape"], y: Int64[Tensor, " n"] | None = None) -> Float[Tensor, " n"]:
        return self.judge(self.features(x), y)


@final
class Generator(nn.Module):
    """A code from N(0, I) to an input: the discriminator's levels backwards (Radford, Metz, Chintala 2016).

    Each level: batch norm, ReLU, a transposed 4 x 4 convolution of stride 2. `bounded`: a sigmoid at the end, for
    values in [0, 1]. `classes`: the code comes with a label, one-hot (Mirza, Osindero 2014).
    """

    def __init__(
        self, shape: tuple[int, ...], code: int = 64, *, width: int = 32, classes: int = 0, bounded: bool = True
    ) -> None:
        super().__init__()
        self.code, self.classes = code, classes
        given = code + classes
        layers: list[nn.Module] = []
        if convolved(shape):
            places = sides(shape)[::-1]
            channels = [*widths_of(len(places) - 1, width)[::-1], shape[0]]
            layers += [nn.Linear(given, channels[0] * prod(places[0])), nn.Unflatten(1, (channels[0], *places[0]))]
            for inputs, outputs, small, large in zip(channels, channels[1:], places, places[1:], strict=False):
                odd = (large[0] - 2 * small[0], large[1] - 2 * small[1])
                layers += [nn.BatchNorm2d(inputs), nn.ReLU(), nn.ConvTranspose2d(inputs, outputs, 4, 2, 1, odd)]
        else:
            size = 4 * width
            for inputs in (given, size):
                layers += [nn.Linear(inputs, size), nn.BatchNorm1d(size), nn.ReLU()]
            layers += [nn.Linear(size, prod(shape)), nn.Unflatten(1, shape)]
        if bounded:
            layers.append(nn.Sigmoid())
        self.body = nn.Sequential(*layers)

    def forward(self, code: Float[Tensor, "n k"], y: Int64[Tensor, " n"] | None = None) -> Float[Tensor, "n *shape"]:
        if self.classes:
            if y is None:
                raise UsageError("this generator makes inputs of a class: pass the labels")
            code = torch.cat([code, one_hot(y, self.classes).to(code.dtype)], 1)
        made: Tensor = self.body(code)
        return made
