"""Rotations and shifts: an attacker whom no norm holds, and who needs no gradient."""

from __future__ import annotations

import math
from itertools import product

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

from robustgen.attacks.passes import evaluated
from robustgen.errors import UsageError
from robustgen.evaluation.noise import rounded
from robustgen.objectives import Model, margin

_BATCH = 250
_ANGLES, _SHIFTS = 11, 5  # tried of each
TRIED = _ANGLES * _SHIFTS**2
"""Moves that `turned_and_shifted` looks at, for each image."""


def moved(x: Float[Tensor, "n c h w"], degrees: float, down: float, right: float) -> Float[Tensor, "n c h w"]:
    """Images turned by `degrees` about their middle, then shifted by shares of their height and width; what comes in at
    the border repeats it.
    """
    if x.dim() != 4:
        raise UsageError(f"images (n, channels, height, width) can be turned, but {tuple(x.shape)} came")
    turn = math.radians(degrees)
    cosine, sine, (height, width) = math.cos(turn), math.sin(turn), x.shape[2:]
    # grids are in half sides, so that a turn of an oblong image mixes the two
    place = torch.tensor(
        [[cosine, -sine * height / width, -2 * right], [sine * width / height, cosine, -2 * down]], dtype=x.dtype
    )
    grid = affine_grid(place.to(x.device).expand(len(x), -1, -1), list(x.shape), align_corners=False)
    return grid_sample(x, grid, padding_mode="border", align_corners=False)


def turned_and_shifted(
    model: Model,
    x: Float[Tensor, "n c h w"],
    y: Int64[Tensor, " n"],
    degrees: float = 30.0,
    share: float = 0.1,
    low: float = 0.0,
    high: float = 1.0,
) -> Float[Tensor, "n c h w"]:
    """The worst of a grid of rotations, up to `degrees` to each side, and shifts, up to a `share` of the sides, for
    each image: that with the largest lead of a wrong label, on 256 levels (Engstrom et al. 2019, "Exploring the
    landscape of spatial robustness", section 3; there 31 angles, here 11).
    """
    if not len(x):
        return x.clone()
    angles = torch.linspace(-degrees, degrees, _ANGLES).tolist()
    shifts = torch.linspace(-share, share, _SHIFTS).tolist()
    worst = []
    with evaluated(model, channels_last=True), torch.no_grad():
        for part, label in zip(x.split(_BATCH), y.split(_BATCH), strict=True):
            best, lead = part.clone(), margin(model(part), label)
            for angle, down, right in product(angles, shifts, shifts):
                there = rounded(moved(part, angle, down, right).clamp(low, high), low, high)
                led = margin(model(there), label)
                further = led > lead
                best[further], lead = there[further], torch.where(further, led, lead)
            worst.append(best)
    return torch.cat(worst)
