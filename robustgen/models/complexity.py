"""How complex an image is by itself: its compressed size, and a code length that is differentiable in it."""

from __future__ import annotations

import io
import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad


def code_length(x: Float[Tensor, "n c h w"], low: float = 0.0, high: float = 1.0) -> Float[Tensor, " n"]:
    """What a predictive coder would need for each image, in nats, up to a constant; differentiable almost everywhere.

    Every value is predicted from those above and to the left as lossless JPEG does (median of left, above and left +
    above - diagonal: Weinberger, Seroussi, Sapiro 2000), and its error, in levels of a byte, is coded by a Cauchy
    distribution as wide as the mean error of the five values around it that a decoder would know.
    """
    levels = 255 * (x - low) / (high - low)
    edged = pad(levels, (1, 0, 1, 0))
    left, above, diagonal = edged[..., 1:, :-1], edged[..., :-1, 1:], edged[..., :-1, :-1]
    gradient, least, most = left + above - diagonal, torch.minimum(left, above), torch.maximum(left, above)
    error = levels - torch.maximum(least, torch.minimum(most, gradient))  # the median of the three
    around = pad(error.abs(), (2, 1, 1, 0))
    near = around[..., 1:, 1:-2] + around[..., 1:, :-3]
    upper = around[..., :-1, 1:-2] + around[..., :-1, 2:-1] + around[..., :-1, 3:]
    width = (near + upper) / 5 + 0.5
    return ((math.pi * width).log() + (error / width).square().log1p()).flatten(1).sum(1)


def compressed_bits(x: Float[Tensor, "n c h w"], low: float = 0.0, high: float = 1.0) -> Float[Tensor, " n"]:
    """The size of each image as a PNG, in bits; its channels lie one below the other. No gradient."""
    from PIL import Image

    levels = (255 * (x.detach() - low) / (high - low)).round().clamp(0, 255).byte().flatten(1, 2).cpu().numpy()
    sizes = []
    for image in levels:
        file = io.BytesIO()
        Image.fromarray(image).save(file, "PNG", optimize=True)
        sizes.append(8.0 * len(file.getvalue()))
    return torch.tensor(sizes, dtype=x.dtype, device=x.device)
