"""Patches of real photographs: inputs that belong to none of the usual image sets, without a download."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from robustgen.data.form import to_shape
from robustgen.data.source import DataSpec
from robustgen.errors import UsageError

SMALLEST = 0.15
"""The smallest crop, as a share of the largest that fits the photograph."""


def photographs(spec: DataSpec, n: int, seed: int = 0) -> Float[Tensor, "n c h w"]:
    """`n` patches (n, *spec.shape) in [0, 1], cut at random places and scales from scikit-learn's two photographs.

    Contrast stays as it is; grey is made for one channel. The same `seed` gives the same patches, and fewer of them the
    first ones. Raises `UsageError` if `spec` is not of images in grey or RGB.
    """
    from sklearn.datasets import load_sample_images

    if spec.kind != "image" or spec.shape[0] not in (1, 3):
        raise UsageError(
            f"photographs can stand in for images in grey or RGB, but {spec.name!r} is of kind "
            f"{spec.kind}, shape {spec.shape}"
        )
    if n < 1:
        raise UsageError(f"n must be at least 1: got {n}")
    channels, height, width = spec.shape
    photos = [
        to_shape(torch.from_numpy(photo.copy()).permute(2, 0, 1)[None] / 255, (channels, *photo.shape[:2]))
        for photo in load_sample_images().images
    ]
    generator = torch.Generator().manual_seed(seed)
    patches = torch.empty(n, *spec.shape)
    for i, (pick, share, down, right) in enumerate(torch.rand(n, 4, generator=generator, dtype=torch.float64).tolist()):
        photo = photos[int(pick * len(photos))]
        tall, wide = photo.shape[2:]
        scale = min(tall / height, wide / width) * (SMALLEST + (1 - SMALLEST) * share)
        h, w = max(1, round(height * scale)), max(1, round(width * scale))
        top, left = int(down * (tall - h + 1)), int(right * (wide - w + 1))
        patches[i] = to_shape(photo[:, :, top : top + h, left : left + w], spec.shape)[0]
    return patches
