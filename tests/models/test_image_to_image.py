"""Networks from images to images: shapes, rows apart, and how far a patch reaches."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from robustgen.errors import UsageError
from robustgen.models.image_to_image import PatchDiscriminator, ResNetGenerator, UNetGenerator, require_images


@pytest.mark.parametrize("size", [(6, 6), (7, 13), (28, 28), (33, 50)])
def test_images_of_every_size_keep_it(size: tuple[int, int]) -> None:
    x = torch.rand(3, 2, *size)
    networks: list[nn.Module] = [UNetGenerator(2, (3, *size), width=8), ResNetGenerator((2, *size), width=8)]
    for network, channels in zip(networks, (3, 2), strict=True):
        made = network(x)
        assert made.shape == (3, channels, *size)
        assert 0 <= made.min() <= made.max() <= 1
        torch.testing.assert_close(network(x[:1]), made[:1])  # no row knows of the others
    critic = PatchDiscriminator(2, min(size), width=8)
    assert critic(x).ndim == 3
    torch.testing.assert_close(critic(x[:1]), critic(x)[:1])


@pytest.mark.parametrize(("side", "reach"), [(10, 10), (48, 20), (96, 40)])
def test_a_patch_sees_no_further_than_it_says(side: int, reach: int) -> None:
    x = torch.rand(1, 1, side, side, requires_grad=True)
    patches = PatchDiscriminator(1, side, width=8)(x)[0]
    middle = patches[patches.shape[0] // 2, patches.shape[1] // 2]
    (slope,) = torch.autograd.grad(middle, x)
    rows = slope[0, 0].abs().sum(1).nonzero()
    assert int(rows.max() - rows.min()) + 1 == reach


def test_spectral_norms_bound_every_layer() -> None:
    critic = PatchDiscriminator(1, 28, width=8, spectral=True)
    for _ in range(30):
        critic(torch.rand(2, 1, 28, 28))
    for layer in critic.modules():
        if isinstance(layer, nn.Conv2d):
            assert torch.linalg.matrix_norm(layer.weight.flatten(1), 2) < 1.05


def test_what_is_no_image_is_refused() -> None:
    require_images((1, 6, 6), "it")
    for shape in ((12,), (1, 5, 9), (3, 4)):
        with pytest.raises(UsageError, match="it needs images"):
            require_images(shape, "it")
