"""Changes that no attacker chose: what a detector of attacks must not flag, and where in an image there is an object.

A detector that flags these as often as attacks of the same size sees changes, not attacks. Everything is drawn by the
inputs' own values and a seed, so that a row's change does not depend on the rows beside it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate, pad

from robustgen.data.source import Source
from robustgen.errors import UsageError
from robustgen.evaluation.quantise import LEVELS
from robustgen.randomness import normal, sample_keys, uniform

Change = Callable[[Tensor], Tensor]
"""(n, *shape) in [low, high] -> the same, changed, in [low, high]."""


def noise_controls(
    shape: tuple[int, ...],
    *,
    sizes: tuple[float, ...] = (0.05, 0.1),
    low: float = 0.0,
    high: float = 1.0,
    seed: int = 0,
) -> dict[tuple[str, float], Change]:
    """By (kind, size in input units), changes of inputs of `shape`: see the functions of this file. `blur`, `shift` and
    `round` have no size of their own and are listed under 0; smooth noise, blur and shift are for images alone.
    """
    made: dict[tuple[str, float], Change] = {}
    for eps in sizes:
        made["sign", eps] = partial(sign, eps=eps, low=low, high=high, seed=seed)
        made["gaussian", eps] = partial(gaussian, eps=eps, low=low, high=high, seed=seed)
        if len(shape) == 3:
            made["smooth", eps] = partial(smooth, eps=eps, low=low, high=high, seed=seed)
    if len(shape) == 3:
        made["blur", 0.0] = blur
        made["shift", 0.0] = shift
    if math.isfinite(high - low):
        made["round", 0.0] = partial(rounded, low=low, high=high)
    return made


def sign(
    x: Float[Tensor, "n *shape"], eps: float, low: float = 0.0, high: float = 1.0, seed: int = 0
) -> Float[Tensor, "n *shape"]:
    """Plus or minus `eps` on each value, cut to the box: Linf norm `eps`."""
    keys = sample_keys(x, seed)
    moved: Tensor = x + eps * _signs(keys, tuple(x.shape[1:])).to(x)
    return moved.clamp(low, high)


def gaussian(
    x: Float[Tensor, "n *shape"], eps: float, low: float = 0.0, high: float = 1.0, seed: int = 0
) -> Float[Tensor, "n *shape"]:
    """Normal noise of the L2 norm that `sign` has before it is cut, eps times the root of the number of values."""
    noise = normal(sample_keys(x, seed), tuple(x.shape[1:]))
    length = torch.linalg.vector_norm(noise.flatten(1), dim=1).reshape(-1, *[1] * (x.dim() - 1))
    moved: Tensor = x + (eps * math.sqrt(math.prod(x.shape[1:])) * noise / length).to(x)
    return moved.clamp(low, high)


def smooth(
    x: Float[Tensor, "n c h w"], eps: float, low: float = 0.0, high: float = 1.0, seed: int = 0
) -> Float[Tensor, "n c h w"]:
    """Noise that varies over a quarter of the image: random values on a grid of 4 x 4, interpolated, of Linf norm
    `eps` before it is cut.
    """
    _require_image(x)
    grid = 2 * uniform(sample_keys(x, seed), (x.shape[1], 4, 4)) - 1
    noise = interpolate(grid, size=tuple(x.shape[2:]), mode="bicubic", align_corners=True)
    most = noise.flatten(1).abs().amax(1).reshape(-1, 1, 1, 1)
    return (x + (eps * noise / most).to(x)).clamp(low, high)


def blur(x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
    """The mean of 3 x 3 pixels, the border repeated."""
    _require_image(x)
    return avg_pool2d(pad(x, (1, 1, 1, 1), mode="replicate"), 3, stride=1)


def shift(x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
    """One pixel to the right, the border repeated."""
    _require_image(x)
    return torch.cat([x[..., :1], x[..., :-1]], -1)


def rounded(x: Float[Tensor, "n *shape"], low: float = 0.0, high: float = 1.0) -> Float[Tensor, "n *shape"]:
    """Each value at the nearest of the 256 levels of the box, as in an image file."""
    share = ((x.double() - low) / (high - low) * (LEVELS - 1)).round() / (LEVELS - 1)
    return (low + share * (high - low)).to(x.dtype)


def background(source: Source, most: int = 2000) -> float | None:
    """`constant_background` of the training images, counted over `most` of them."""
    return constant_background(source.read(source.spread("train", most)).x)


def constant_background(x: Float[Tensor, "n *shape"], share: float = 0.1) -> float | None:
    """The value that makes up at least `share` of all values of images (n, channels, height, width), and that more than
    half of them have at all four corners; None where there is none, or of other inputs.
    """
    if x.dim() != 4 or not x.numel():
        return None
    corners = x[:, :, [0, 0, -1, -1], [0, -1, 0, -1]].flatten(1)
    value = corners.flatten().mode().values
    constant = (corners == value).all(1).double().mean().item() > 0.5
    return value.item() if constant and (x == value).double().mean().item() >= share else None


def _signs(keys: Tensor, shape: tuple[int, ...]) -> Tensor:
    return torch.where(uniform(keys, shape) < 0.5, -1.0, 1.0)


def _require_image(x: Tensor) -> None:
    if x.dim() != 4:
        raise UsageError(f"this change is for images (n, channels, height, width), but {tuple(x.shape)} came")
