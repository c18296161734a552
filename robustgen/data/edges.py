"""Images beside their edge maps: pairs that fit, made of any images."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import conv2d, pad

from robustgen.data.source import Batch, DataSpec, Indices, Source
from robustgen.errors import DataError

THRESHOLD = 0.8
"""Of the gradient's length, in units of one step of a pixel's value from 0 to 1 being 4."""


def edge_map(x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n 1 h w"]:
    """1 where the length of the gradient of the channels' mean, by Sobel's filters, is above `THRESHOLD`, else 0."""
    across = x.new_tensor([[1.0, 0.0, -1.0], [2.0, 0.0, -2.0], [1.0, 0.0, -1.0]])
    slopes = conv2d(
        pad(x.mean(1, keepdim=True), (1, 1, 1, 1), mode="replicate"), torch.stack([across, across.T])[:, None]
    )
    return (slopes.square().sum(1, keepdim=True).sqrt() > THRESHOLD).to(x.dtype)


@final
@dataclass
class EdgeSource(Source):
    """The images of `source`, each below its edge map: the first channel is the map."""

    source: Source

    def _read(self, rows: Indices) -> Batch:
        batch = self.source.read(rows)
        self.skipped |= self.source.skipped
        return Batch(torch.cat([edge_map(batch.x), batch.x], 1), batch.y, batch.index)

    def label(self, row: int) -> str:
        return self.source.label(row)


def with_edges(source: Source) -> EdgeSource:
    """Every image with its edge map as a channel before its own. Raises `DataError` for inputs that are no images."""
    spec = source.spec
    if spec.kind != "image":
        raise DataError(f"{spec.name!r} is a table: edges are found in images only")
    channels, *size = spec.shape
    columns = ("condition", *["photo"] * channels)
    paired = replace(spec, name=f"edges:{spec.name}", shape=(channels + 1, *size), columns=columns)
    return EdgeSource(paired, source.splits, source, skipped=source.skipped)


def without_edges(like: DataSpec) -> DataSpec:
    """The form of the images in `like`, that of an `EdgeSource`. Raises `DataError` for a form without edge maps."""
    if like.kind != "image" or like.shape[0] < 2:
        raise DataError(
            f"edges:DATA holds images beside their edge maps, but {like.shape} is needed, as in {like.name!r}"
        )
    channels, *size = like.shape
    return replace(like, shape=(channels - 1, *size), columns=())
