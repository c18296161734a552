"""Labels that go with inputs, whatever these come from, and through what knows nothing of labels."""

from __future__ import annotations

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from robustgen.data.hold_out import hold_out
from robustgen.data.labelled import LabelledRows, unpacked
from robustgen.data.load import load
from robustgen.data.rows import as_rows
from robustgen.errors import DataError

X = torch.arange(24.0).reshape(12, 2) / 24
Y = torch.arange(12) % 3


@pytest.mark.parametrize(
    "data",
    [
        TensorDataset(X, Y),
        DataLoader(TensorDataset(X, Y), batch_size=5),
        [(X[:7], Y[:7]), (X[7:], Y[7:])],
    ],
    ids=["dataset", "loader", "list"],
)
def test_pairs_give_each_input_its_label(data: object) -> None:
    batches = list(as_rows(data).pairs(4))  # type: ignore[arg-type]
    assert all(len(x) <= 4 for x, _ in batches)
    assert torch.equal(torch.cat([x for x, _ in batches]), X)
    assert torch.equal(torch.cat([y for _, y in batches]), Y)


def test_a_sources_labels_come_shuffled_with_its_inputs() -> None:
    source = load("digits")
    known = {
        tuple(x.flatten().tolist()): int(y) for b in source.batches("train", 500) for x, y in zip(b.x, b.y, strict=True)
    }
    shuffled = list(as_rows(source).pairs(300, torch.Generator().manual_seed(0)))
    assert sum(len(x) for x, _ in shuffled) == len(source.rows("train"))
    for x, y in shuffled:
        assert [known[tuple(row.flatten().tolist())] for row in x] == y.tolist()


def test_a_limit_holds_for_pairs() -> None:
    for data in (TensorDataset(X, Y), [(X[:7], Y[:7]), (X[7:], Y[7:])]):
        assert sum(len(x) for x, _ in as_rows(data, limit=9).pairs(4)) == 9


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (X, "carry no labels"),
        (TensorDataset(X), "carry no labels"),
        ([X[:5], X[5:]], "carry no labels"),
        ([(X, Y.float())], "whole numbers from 0"),
        (TensorDataset(X, Y - 1), "whole numbers from 0"),
    ],
)
def test_inputs_without_labels_are_refused(data: object, says: str) -> None:
    with pytest.raises(DataError, match=says):
        list(as_rows(data).pairs(4))  # type: ignore[arg-type]


def test_labels_go_through_what_knows_nothing_of_them() -> None:
    images = torch.rand(200, 1, 3, 3, generator=torch.Generator().manual_seed(0))
    labels = (images[:, 0, 0, 0] > 0.5).long()
    packed = LabelledRows(as_rows(TensorDataset(images, labels)))
    assert (packed.shape, len(packed)) == ((10,), 200)
    kept, held = hold_out(packed)
    assert len(kept) + len(held) == 200
    for rows in (kept, held):
        for batch in rows.batches(64, torch.Generator().manual_seed(1)):
            x, y = unpacked(batch, (1, 3, 3))
            assert x.shape[1:] == (1, 3, 3)
            assert torch.equal(y, (x[:, 0, 0, 0] > 0.5).long())
