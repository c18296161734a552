"""Photographs stand in for foreign images."""

from __future__ import annotations

import pytest
import torch

from robustgen.data.photographs import photographs
from robustgen.data.source import DataSpec
from robustgen.errors import UsageError


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 32, 32), (3, 20, 50)])
def test_patches_are_images_of_the_asked_shape(shape: tuple[int, ...]) -> None:
    x = photographs(DataSpec("any", "image", shape), 12)
    assert x.shape == (12, *shape)
    assert x.min() >= 0
    assert x.max() <= 1
    assert x.flatten(1).std(1).median() > 0.05


def test_the_seed_decides_and_fewer_are_the_first_ones() -> None:
    spec = DataSpec("any", "image", (3, 16, 16))
    assert torch.equal(photographs(spec, 9, seed=3)[:4], photographs(spec, 4, seed=3))
    assert not torch.equal(photographs(spec, 4, seed=4), photographs(spec, 4, seed=3))


def test_grey_patches_are_the_grey_of_the_colour_ones() -> None:
    grey = photographs(DataSpec("any", "image", (1, 16, 16)), 3)
    colour = photographs(DataSpec("any", "image", (3, 16, 16)), 3)
    weights = torch.tensor([0.299, 0.587, 0.114])[:, None, None]
    assert torch.allclose(grey, (colour * weights).sum(1, keepdim=True), atol=1e-5)


def test_only_images_have_photographs() -> None:
    with pytest.raises(UsageError, match="kind table"):
        photographs(DataSpec("any", "table", (3,)), 2)
    with pytest.raises(UsageError, match="grey or RGB"):
        photographs(DataSpec("any", "image", (4, 8, 8)), 2)
    with pytest.raises(UsageError, match="at least 1"):
        photographs(DataSpec("any", "image", (1, 8, 8)), 0)
