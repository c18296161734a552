"""Rows: whatever inputs come from, they are gone through alike, again and again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from robustgen.data.load import load
from robustgen.data.rows import as_rows
from robustgen.errors import DataError, UsageError

X = torch.rand(23, 2, 3, generator=torch.Generator().manual_seed(0))
Y = torch.arange(23)


class Items(Dataset[Tensor]):
    def __getitem__(self, index: int) -> Tensor:
        return X[index]

    def __len__(self) -> int:
        return len(X)


class Stream(IterableDataset[Tensor]):
    def __iter__(self) -> Iterator[Tensor]:
        return iter(X)


class Once:
    """Claims to be iterable, but is so once."""

    def __init__(self) -> None:
        self.left = iter([X, X])

    def __iter__(self) -> Iterator[Tensor]:
        return self.left


FORMS: list[Callable[[], Any]] = [
    lambda: X,
    lambda: Items(),
    lambda: TensorDataset(X, Y),
    lambda: DataLoader(TensorDataset(X, Y), 7),
    lambda: list(X.chunk(6)),
    lambda: DataLoader(Stream(), 5),
]


@pytest.mark.parametrize("make", FORMS)
@pytest.mark.parametrize("batch_size", [1, 6, 23, 100])
def test_all_forms_give_the_same_rows_twice(make: Callable[[], Any], batch_size: int) -> None:
    rows = as_rows(make())
    assert len(rows) == 23
    assert rows.shape == (2, 3)
    for _ in range(2):
        batches = list(rows.batches(batch_size))
        assert torch.equal(torch.cat(batches), X)
        assert {len(b) for b in batches[:-1]} <= {batch_size}
        assert len(batches[-1]) <= batch_size


@pytest.mark.parametrize("make", FORMS)
@pytest.mark.parametrize("limit", [1, 9, 50])
def test_a_limit_takes_the_first(make: Callable[[], Any], limit: int) -> None:
    rows = as_rows(make(), limit=limit)
    assert len(rows) == min(limit, 23)
    assert torch.equal(torch.cat(list(rows.batches(4))), X[:limit])


@pytest.mark.parametrize("make", FORMS[:3])
def test_a_generator_shuffles_all_the_rows(make: Callable[[], Any]) -> None:
    rows = as_rows(make())
    one, two = (torch.cat(list(rows.batches(4, torch.Generator().manual_seed(seed)))) for seed in (1, 1))
    assert torch.equal(one, two)
    assert not torch.equal(one, X)
    assert torch.equal(one.flatten(1).sum(1).sort().values, X.flatten(1).sum(1).sort().values)


def test_a_source_gives_one_split() -> None:
    source = load("digits")
    for split in ("train", "test"):
        rows = as_rows(source, split)
        assert len(rows) == len(source.rows(split))
        assert rows.shape == (1, 8, 8)
        assert torch.equal(torch.cat(list(rows.batches(100))), source.read(source.rows(split)).x)
    assert len(torch.cat(list(as_rows(source, limit=7).batches(5)))) == 7


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (torch.zeros(3, 2, dtype=torch.uint8), "must be floating"),
        (torch.tensor([[0.0], [float("nan")]]), "the first in row 1 of 2"),
        (torch.zeros(0, 2), "at least one row"),
        (torch.zeros(4), "at least one row"),
        ([], "no batches"),
        (TensorDataset(torch.zeros(0, 2)), "no rows"),
        ([torch.zeros(2, 3).long()], "must be floating"),
        (["text"], "must be tensors"),
    ],
)
def test_inputs_that_cannot_be_used(data: Any, says: str) -> None:
    with pytest.raises(DataError, match=says):
        as_rows(data)


def test_later_batches_are_checked_too() -> None:
    for later, says in ((torch.full((2, 3), torch.inf), "finite"), (torch.zeros(2, 4), "one shape")):
        with pytest.raises(DataError, match=says):
            list(as_rows([torch.zeros(2, 3), later]).batches(2))


@pytest.mark.parametrize("data", [iter([X]), (x for x in [X]), Stream(), X.numpy()])
def test_what_cannot_be_gone_through_again_is_refused(data: Any) -> None:
    with pytest.raises(UsageError):
        as_rows(data)


def test_what_turns_out_to_be_iterable_once_is_found() -> None:
    rows = as_rows(Once())
    list(rows.batches(50))
    with pytest.raises(UsageError, match="iterated once only"):
        list(rows.batches(50))


def test_sizes_must_be_positive() -> None:
    with pytest.raises(UsageError, match="limit"):
        as_rows(X, limit=0)
    with pytest.raises(UsageError, match="batch_size"):
        list(as_rows(X).batches(0))
