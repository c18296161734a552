"""Rows held out by their own values."""

from __future__ import annotations

import pytest
import torch

from robustgen.data.hold_out import hold_out
from robustgen.data.rows import Rows, as_rows


def every(rows: Rows, generator: torch.Generator | None = None) -> torch.Tensor:
    return torch.cat(list(rows.batches(64, generator)))


@pytest.mark.parametrize("in_memory", [True, False])
def test_the_sides_are_disjoint_and_complete_in_any_order(
    in_memory: bool, monkeypatch: pytest.MonkeyPatch, generator: torch.Generator
) -> None:
    if not in_memory:
        monkeypatch.setattr("robustgen.data.hold_out._IN_MEMORY", 10)
    x = torch.arange(1500.0)[:, None] / 1500
    x = torch.cat([x, x[:300]])  # copies stay together
    kept, held = hold_out(as_rows(x))
    assert len(kept) == len(every(kept))
    assert len(kept) + len(held) == 1800
    assert 120 < len(held) < 240
    assert not set(every(kept)[:, 0].tolist()) & set(every(held)[:, 0].tolist())
    torch.testing.assert_close(torch.cat([every(kept), every(held)]).sort(0).values, x.sort(0).values)
    shuffled = every(kept, torch.Generator().manual_seed(1))
    assert not torch.equal(shuffled, every(kept))
    torch.testing.assert_close(shuffled.sort(0).values, every(kept).sort(0).values)
    other = hold_out(as_rows(x.flip(0)))[1]
    torch.testing.assert_close(every(other).sort(0).values, every(held).sort(0).values)


def test_at_most_so_many_are_held_out() -> None:
    x = torch.rand(5000, 3, generator=torch.Generator().manual_seed(0))
    assert 60 < len(hold_out(as_rows(x), most=100)[1]) < 150


def test_few_rows_serve_both_ends() -> None:
    x = torch.rand(20, 3, generator=torch.Generator().manual_seed(0))
    kept, held = hold_out(as_rows(x))
    assert len(kept) == len(held) == 20
