"""Rotations and shifts: where each pixel goes, and the worst of them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from robustgen.errors import UsageError
from robustgen.evaluation.spatial import moved, turned_and_shifted


def test_whole_pixels_and_quarter_turns_are_exact(generator: torch.Generator) -> None:
    x = torch.rand(3, 2, 8, 8, generator=generator)
    torch.testing.assert_close(moved(x, 0.0, 0.0, 0.0), x)
    torch.testing.assert_close(moved(x, 0.0, 1 / 8, 0.0)[:, :, 1:], x[:, :, :-1], atol=1e-5, rtol=0)
    torch.testing.assert_close(moved(x, 0.0, 0.0, 2 / 8)[..., 2:], x[..., :-2], atol=1e-5, rtol=0)
    torch.testing.assert_close(moved(x, 90.0, 0.0, 0.0), x.rot90(1, (2, 3)), atol=1e-5, rtol=0)
    torch.testing.assert_close(moved(x, 0.0, -1 / 8, 0.0)[:, :, -1], x[:, :, -1], atol=1e-5, rtol=0)  # the border
    oblong = torch.rand(1, 1, 6, 12, generator=generator)
    torch.testing.assert_close(moved(oblong, 180.0, 0.0, 0.0), oblong.flip(2, 3), atol=1e-5, rtol=0)
    with pytest.raises(UsageError, match="can be turned"):
        moved(torch.rand(2, 5), 1.0, 0.0, 0.0)


class Halves(nn.Module):
    """Class 1 where the lower half is the brighter."""

    def forward(self, x: Tensor) -> Tensor:
        lead = x[:, :, 4:].flatten(1).mean(1) - x[:, :, :4].flatten(1).mean(1)
        return torch.stack([-lead, lead], 1)


def test_the_worst_move_is_found_and_nothing_is_made_better() -> None:
    x = torch.zeros(2, 1, 8, 8)
    x[0, :, 2] = 1.0  # far from the border of the halves
    x[1, :, 3] = 1.0  # one pixel from it
    y = torch.zeros(2, dtype=torch.int64)
    network = Halves()
    made = turned_and_shifted(network, x, y, degrees=0.0, share=1 / 8)
    assert network(made).argmax(1).tolist() == [0, 1]
    torch.testing.assert_close(made[1], moved(x[1:], 0.0, 1 / 8, 0.0)[0], atol=3e-3, rtol=0)
    assert ((255 * made) - (255 * made).round()).abs().max() < 1e-3
    still = turned_and_shifted(network, x, y, degrees=0.0, share=0.0)
    assert torch.equal(still, x)
    assert turned_and_shifted(network, x[:0], y[:0]).shape == (0, 1, 8, 8)
