"""The nearest of a bank of training inputs, by definition, whatever was asked of the bank before."""

from __future__ import annotations

import gc

import torch
from torch import Tensor

from robustgen.detectors import neighbours
from robustgen.detectors.neighbours import nearest


def by_definition(x: Tensor, bank: Tensor, k: int) -> tuple[Tensor, Tensor]:
    found = torch.cdist(x.double(), bank.double()).sort(1)
    return found.values[:, :k].float(), found.indices[:, :k]


def agrees(x: Tensor, bank: Tensor, k: int) -> None:
    distances, which = nearest(x, bank, k)
    values, indices = by_definition(x, bank, k)
    torch.testing.assert_close(distances, values)
    assert torch.equal(which, indices)


def test_it_is_what_sorting_all_distances_gives(generator: torch.Generator) -> None:
    for offset in (0.0, 1000.0):  # far from the origin, where squares have no digits left
        bank = torch.rand(300, 20, generator=generator) + offset
        agrees(torch.rand(40, 20, generator=generator) + offset, bank, 7)


def test_a_bank_that_was_changed_in_place_is_looked_at_anew(generator: torch.Generator) -> None:
    bank, x = torch.rand(50, 4, generator=generator), torch.rand(9, 4, generator=generator)
    agrees(x, bank, 3)
    bank.add_(torch.rand(50, 4, generator=generator))
    agrees(x, bank, 3)
    bank[7] = x[0]
    agrees(x, bank, 3)
    bank.resize_(30, 4)
    agrees(x, bank, 3)
    bank.data = torch.rand(60, 4, generator=generator)
    agrees(x, bank, 3)


def test_what_is_kept_of_a_bank_goes_with_it(generator: torch.Generator) -> None:
    gc.collect()
    before = len(neighbours._MOVED)
    banks = [torch.rand(50, 4, generator=generator) for _ in range(3)]
    for bank in banks:
        agrees(torch.rand(9, 4, generator=generator), bank, 3)
        agrees(torch.rand(2, 4, generator=generator), bank, 3)
    assert len(neighbours._MOVED) == before + 3
    del bank, banks
    gc.collect()
    assert len(neighbours._MOVED) == before


def test_banks_of_inference_mode_have_neighbours_too(generator: torch.Generator) -> None:
    x = torch.rand(9, 4, generator=generator)
    with torch.inference_mode():
        bank = torch.rand(50, 4)
        agrees(x, bank, 3)
        agrees(x, bank, 3)
