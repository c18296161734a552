"""The form in which inputs are handed out: the shape, the splits and the class numbers that a call asks for."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from robustgen.data.source import DataSpec, Indices, split_rows
from robustgen.errors import DataError, UsageError

MOST_CLASSES = 100_000


def requested_shape(
    name: str, own: tuple[int, ...], size: tuple[int, int] | None, like: DataSpec | None, *, convert: bool
) -> tuple[int, ...]:
    """The (channels, height, width) in which images of the shape `own` are to be handed out.

    `like` fixes all three and `size` the last two. Images with a known meaning (`convert`) are turned into any form;
    raw arrays keep their channels, and their size too unless `size` is given. Raises `DataError` and `UsageError`
    accordingly.
    """
    if size is not None and (len(size) != 2 or min(size) < 1):
        raise UsageError(f"size is (height, width), each at least 1: got {size}")
    if like is None:
        return (*own[:-2], *size) if size else own
    require_kind(name, "image", like)
    if size is not None and tuple(size) != like.shape[-2:]:
        raise UsageError(
            f"size {size} was asked for, but {like.name!r}, whose form is to be met, has {like.shape[-2:]}"
        )
    if "condition" in like.columns and own[:-2] != like.shape[:-2]:
        raise DataError(
            f"{name!r} has images of {own[0]} channels, but pairs of a condition and a photo are needed, as in "
            f"{like.name!r} {like.shape}: give edges:DATA or pairs:CONDITIONS,PHOTOS"
        )
    if not convert and (own[:-2] != like.shape[:-2] or (size is None and own != like.shape)):
        hint = "" if own[:-2] != like.shape[:-2] else f"; ask for size {like.shape[-2:]} to have them resized"
        raise DataError(f"{name!r} has inputs of shape {own}, but {like.shape} is needed, as in {like.name!r}{hint}")
    return like.shape


def require_kind(name: str, kind: str, like: DataSpec | None) -> None:
    """Raise `DataError` if images are given where a table is needed, or the other way round."""
    if like is not None and like.kind != kind:
        raise DataError(
            f"{name!r} is of kind {kind}, but inputs of kind {like.kind} are needed, as in {like.name!r} {like.shape}"
        )


def to_shape(x: Float[Tensor, "n c h w"], shape: Sequence[int]) -> Float[Tensor, "n c2 h2 w2"]:
    """Images in [0, 1] with other channels (grey by ITU-R BT.601, or grey repeated) and size (bilinear,
    antialiased)."""
    channels, *size = shape
    if x.shape[1] != channels:
        if x.shape[1] == 3 and channels == 1:
            x = (x * x.new_tensor([0.299, 0.587, 0.114])[:, None, None]).sum(1, keepdim=True)
        elif x.shape[1] == 1:
            x = x.expand(-1, channels, -1, -1)
        else:
            raise DataError(
                f"images of {x.shape[1]} channels cannot be turned into {channels}: only 3 into 1, and 1 into any"
            )
    if list(x.shape[2:]) != size:
        x = torch.nn.functional.interpolate(x, size=size, mode="bilinear", antialias=True).clamp(0, 1)
    return x.contiguous()


def pool_splits(n: int, like: DataSpec | None) -> dict[str, Indices]:
    """Splits of data that come as one pool: 70 % train, 15 % calibration, 15 % test; with `like` all rows are test."""
    if like is not None:
        nothing = np.empty(0, np.int64)
        return {"train": nothing, "calibration": nothing, "test": np.arange(n, dtype=np.int64)}
    return split_rows(n, {"train": 0.7, "calibration": 0.15, "test": 0.15})


def given_splits(n_train: int, n_test: int, like: DataSpec | None = None) -> dict[str, Indices]:
    """Splits of data with a test set of their own, whose rows come last; 10 % of the rest is for calibration."""
    if like is not None:
        return pool_splits(n_train + n_test, like)
    splits = split_rows(n_train, {"calibration": 0.1, "train": 0.9})
    return {
        "train": splits["train"],
        "calibration": splits["calibration"],
        "test": np.arange(n_train, n_train + n_test, dtype=np.int64),
    }


def class_numbers(own: tuple[str, ...], like: DataSpec | None) -> tuple[Indices, tuple[str, ...]]:
    """For each of the data's own class names its number, and all class names in the order of the numbers.

    Where `like` knows all the names its numbers are used; else the data's classes are others than those, and keep their
    own.
    """
    if like is not None and own and set(own) <= set(like.classes):
        return np.array([like.classes.index(name) for name in own], np.int64), like.classes
    return np.arange(len(own), dtype=np.int64), own
