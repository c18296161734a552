"""Readings in one unit."""

from __future__ import annotations

import pytest
import torch

from robustgen.detectors.units import Units, robust_units
from robustgen.errors import UsageError


def test_each_reading_counts_by_its_own_spread() -> None:
    held_out = torch.stack([torch.arange(101.0), 1000 * torch.arange(101.0)])
    units = Units("b+a", ("a", "b"))
    units.prepare(held_out)
    centre, scale = robust_units(held_out)
    x = torch.tensor([[50.0, 75.0], [50_000.0, 75_000.0]])
    torch.testing.assert_close(units(x), ((x - centre[:, None]) / scale[:, None]).sum(0))
    assert units(x)[0] == 0
    torch.testing.assert_close(units(x)[1], torch.tensor(2 * 25 / (1.4826 * 25)))


def test_one_alone_keeps_its_unit() -> None:
    units = Units("a", ("a", "b"))
    units.prepare(torch.rand(1, 9))
    x = torch.rand(1, 4)
    assert torch.equal(units(x), x[0])


def test_names_are_checked() -> None:
    for names, words in (("c", "made of a, b"), ("a+a", "counts once"), ("", "''")):
        with pytest.raises(UsageError, match=words):
            Units(names, ("a", "b"))
