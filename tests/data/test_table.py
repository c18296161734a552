"""Tables: CSV and Parquet read alike, and each kind of damage is named by line and column."""

from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np
import pytest
import torch

from robustgen.data.load import load
from robustgen.errors import DataError, MissingPackageError

noise = np.random.Generator(np.random.PCG64(0))


def csv(tmp_path: Path, text: str) -> str:
    (tmp_path / "a.csv").write_text(text, encoding="utf-8")
    return str(tmp_path / "a.csv")


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_columns_are_scaled_by_the_training_rows_in_float64(tmp_path: Path, delimiter: str) -> None:
    x = noise.normal(1.7e9, 100, (50, 2))  # times in seconds: float32 would keep one step in 128
    rows = [delimiter.join(map(repr, row.tolist())) for row in x]
    source = load(csv(tmp_path, "\n".join([f'"time"{delimiter}other', *rows, ""])))
    train = x[source.rows("train")]
    assert source.spec.columns == ("time", "other")
    assert source.spec.minimum == tuple(train.min(0))
    expected = (x - train.min(0)) / (train.max(0) - train.min(0))
    assert torch.equal(source.read(source.rows("all")).x, torch.from_numpy(expected.astype(np.float32)))
    assert source.read(source.rows("all")).y is None


@pytest.mark.parametrize(
    ("labels", "classes", "y"),
    [
        (["no", "yes", "no"], ("no", "yes"), [0, 1, 0]),
        (["2", "0", "2"], ("0", "1", "2"), [2, 0, 2]),
        (["1.0", "0.0", "1.0"], ("0", "1"), [1, 0, 1]),
        (["-1", "1", "-1"], ("-1", "1"), [0, 1, 0]),
        (["10", "-9", "2"], ("-9", "2", "10"), [2, 0, 1]),
    ],
)
@pytest.mark.parametrize("name", ["label", "Target", "CLASS", "y"])
def test_the_class_column(tmp_path: Path, name: str, labels: list[str], classes: tuple[str, ...], y: list[int]) -> None:
    source = load(csv(tmp_path, "\n".join([f"a,{name},b", *(f"{i},{label},{-i}" for i, label in enumerate(labels))])))
    assert source.spec.classes == classes
    assert source.spec.columns == ("a", "b")
    got = source.read(source.rows("all")).y
    assert got is not None
    assert got.tolist() == y


def test_later_tables_are_read_by_column_name(tmp_path: Path) -> None:
    spec = load(csv(tmp_path, "a,b,label\n0,10,x\n2,30,z\n1,20,z\n")).spec
    source = load(csv(tmp_path, "extra,b,label,a\nsome text,30,z,4\nmore,20,z,1\n"), like=spec)
    low, high = torch.tensor(spec.minimum), torch.tensor(spec.maximum)
    batch = source.read(source.rows("test"))
    assert torch.allclose(batch.x, (torch.tensor([[4.0, 30.0], [1.0, 20.0]]) - low) / (high - low))
    assert batch.y is not None
    assert batch.y.tolist() == [1, 1]
    assert source.spec.columns == ("a", "b")
    with pytest.raises(DataError, match="lacks the columns 'b'"):
        load(csv(tmp_path, "a\n1\n"), like=spec)


def test_a_constant_column_becomes_zero(tmp_path: Path) -> None:
    source = load(csv(tmp_path, "a,b\n" + "".join(f"{i},5\n" for i in range(20))))
    assert source.read(source.rows("all")).x[:, 1].tolist() == [0.0] * 20


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is empty"),
        ("a,b\n", "no rows"),
        ("1,2\n3,4\n", "must name the columns"),
        ("a,a\n1,2\n", "'a' appears twice"),
        (",a\n0,1\n", "column 1 has no name.*index=False"),
        ("a,b\n1,2\n3\n", "line 3: 1 cells, but the first line names 2"),
        ("a,b\n1,2\n\n3,4,5\n", "line 4: 3 cells"),
        ("a,b\n1,2\n3,\n", "line 3, column 'b': the cell is empty"),
        ("a,b\n1,\n", "line 2, column 'b': the cell is empty"),
        ("a,b\n1,2\nnan,4\n", "line 3, column 'a': 'nan' is not a finite number"),
        ("a,b\n1,2\n3,inf\n", "line 3, column 'b': 'inf' is not a finite number"),
        ("a,b\n1,2\n3,oops\n", "line 3, column 'b': 'oops' is not a finite number"),
        ("a,town,b,street\n1,x,2,y\n", "columns 'town', 'street' are not numbers.*drop these or encode"),
        ("a,label\n1,x\n2,\n", "line 3, column 'label': the class is empty"),
        ("label\nx\n", "no columns of numbers"),
    ],
)
def test_what_cannot_be_used_is_refused_by_line_and_column(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(DataError, match=says):
        load(csv(tmp_path, text))


def test_other_encodings_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes("a,größe\n1,2\n".encode("latin-1"))
    with pytest.raises(DataError, match="UTF-8"):
        load(str(tmp_path / "a.csv"))
    (tmp_path / "a.csv").write_bytes("a,größe\n1,2\n3,4\n".encode("utf-8-sig"))
    assert load(str(tmp_path / "a.csv")).spec.columns == ("a", "größe")


def test_many_pieces_make_one_table(tmp_path: Path) -> None:
    x = noise.random((10_000, 2))
    lines = [f"{a!r},{b!r},{i % 3}" for i, (a, b) in enumerate(x.tolist())]
    source = load(csv(tmp_path, "\n".join(["a,b,label", *lines])))
    batch = source.read(np.array([9_999, 4_096, 0]))
    low, high = np.array(source.spec.minimum), np.array(source.spec.maximum)
    assert np.allclose(batch.x.numpy(), (x[[9_999, 4_096, 0]] - low) / (high - low), atol=1e-6)
    assert batch.y is not None
    assert batch.y.tolist() == [0, 1, 0]


def test_parquet_reads_as_csv_does(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow", exc_type=ImportError)
    parquet = importlib.import_module("pyarrow.parquet")
    columns = {"a": list(range(20)), "b": [i / 7 for i in range(20)], "label": ["no", "yes"] * 10}
    parquet.write_table(pyarrow.table(columns), tmp_path / "a.parquet")
    text = "\n".join(["a,b,label", *(f"{a},{b!r},{c}" for a, b, c in zip(*columns.values(), strict=True))])
    one, two = load(str(tmp_path / "a.parquet")), load(csv(tmp_path, text))
    assert torch.equal(one.read(one.rows("all")).x, two.read(two.rows("all")).x)
    assert one.spec.classes == two.spec.classes
    parquet.write_table(pyarrow.table({"a": [1.0, None]}), tmp_path / "b.parquet")
    with pytest.raises(DataError, match="line 2, column 'a': the cell is empty"):
        load(str(tmp_path / "b.parquet"))
    (tmp_path / "c.parquet").write_text("no parquet")
    with pytest.raises(DataError, match="not a readable Parquet file"):
        load(str(tmp_path / "c.parquet"))


def test_without_pyarrow_the_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr("robustgen.data.table.importlib.import_module", missing)
    (tmp_path / "a.parquet").write_text("")
    with pytest.raises(MissingPackageError, match=r"robustgen\[parquet\]"):
        load(str(tmp_path / "a.parquet"))
