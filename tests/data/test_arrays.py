"""Arrays on disk: forms that are read, forms that are refused with a reason, and memory that stays small."""

from __future__ import annotations

import io
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from robustgen.data.load import load
from robustgen.data.source import DataSpec
from robustgen.errors import DataError

noise = np.random.Generator(np.random.PCG64(0))


def saved(tmp_path: Path, **arrays: Any) -> str:
    np.savez_compressed(tmp_path / "a.npz", **arrays)
    return str(tmp_path / "a.npz")


def everything(path: str, **form: Any) -> torch.Tensor:
    source = load(path, **form)
    return source.read(source.rows("all")).x


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((9, 6, 5), (1, 6, 5)),
        ((9, 3, 6, 5), (3, 6, 5)),
        ((9, 1, 6, 1), (1, 6, 1)),
    ],
)
def test_bytes_are_divided_by_255(tmp_path: Path, shape: tuple[int, ...], expected: tuple[int, ...]) -> None:
    x = noise.integers(0, 256, shape, np.uint8)
    got = everything(saved(tmp_path, x=x))
    assert got.shape == (9, *expected)
    assert torch.equal(got, torch.from_numpy(x.reshape(9, *expected)).float() / 255)


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", ">f4"])
def test_floats_in_the_unit_interval_stay_as_they_are(tmp_path: Path, dtype: str) -> None:
    x = noise.random((9, 1, 4, 4)).astype(dtype)
    np.save(tmp_path / "a.npy", x)
    assert np.array_equal(everything(str(tmp_path / "a.npy")).numpy(), x.astype(np.float32))
    assert torch.equal(everything(saved(tmp_path, x=x)), everything(str(tmp_path / "a.npy")))


def test_fortran_order_reads_the_same(tmp_path: Path) -> None:
    x = noise.random((9, 1, 4, 5), np.float32)
    assert torch.equal(everything(saved(tmp_path, x=np.asfortranarray(x))), torch.from_numpy(x))


def test_given_test_rows_stay_test_rows(tmp_path: Path) -> None:
    x, y = noise.integers(0, 256, (50, 4, 4), np.uint8), np.arange(50) % 4
    source = load(saved(tmp_path, x_train=x[:40], y_train=y[:40], x_test=x[40:], y_test=y[40:]))
    assert source.rows("test").tolist() == list(range(40, 50))
    assert len(source.rows("calibration")) == 4
    batch = source.read(np.array([45, 3, 39, 40]))
    assert torch.equal(batch.x[:, 0], torch.from_numpy(x[[45, 3, 39, 40]]).float() / 255)
    assert batch.y is not None
    assert batch.y.tolist() == [1, 3, 3, 0]


def test_other_names_of_arrays_and_class_names(tmp_path: Path) -> None:
    images, labels = np.zeros((4, 5, 5), np.uint8), np.array([0, 1, 1, 0], np.uint8)
    source = load(saved(tmp_path, images=images, labels=labels, classes=np.array(["cat", "dog"]), group=np.arange(4)))
    assert source.spec.classes == ("cat", "dog")
    path = saved(tmp_path, images=images, labels=labels, classes=np.array(["dog", "cat"]))
    swapped = load(path, like=source.spec)
    y = swapped.read(swapped.rows("all")).y
    assert y is not None
    assert y.tolist() == [1, 0, 0, 1]


def test_tables_are_scaled_by_the_training_rows(tmp_path: Path) -> None:
    x = noise.normal(100, 5, (60, 3))
    x[:, 1] = 7
    source = load(saved(tmp_path, X=x, y=np.arange(60) % 2))
    train = x[source.rows("train")]
    assert source.spec.minimum == tuple(train.min(0))
    scaled = source.read(source.rows("all")).x.double().numpy()
    width = np.array([1, np.inf, 1]) * (train.max(0) - train.min(0) + np.array([0, 1, 0]))
    assert np.allclose(scaled, (x - train.min(0)) / width, atol=1e-6)
    shifted = load(saved(tmp_path, x=x + 50), like=source.spec)
    assert shifted.read(shifted.rows("all")).x[:, 0].min() > 1


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"x": np.zeros((5, 8, 8, 3), np.uint8)}, r"channels last.*transpose\(0, 3, 1, 2\)"),
        ({"x": np.full((5, 1, 4, 4), 200.0)}, r"must lie in \[0, 1\].*x / 255"),
        ({"x": np.full((5, 1, 4, 4), -1.0)}, r"\(x \+ 1\) / 2"),
        ({"x": np.zeros((5, 1, 4, 4), np.int64)}, "uint8"),
        ({"x": np.array([[[0.1]], [[np.nan]]])}, "NaN or infinite value in row 1"),
        ({"x": np.array([[0.1, 1], [2, np.inf]])}, "NaN or infinite value in row 1, column 1"),
        ({"x": np.zeros((0, 4))}, r"^x in \S+\.npz is empty: its shape is \(0, 4\)"),
        ({"x": np.zeros(4)}, "shape"),
        ({"x": np.array([["a", "b"]])}, "real numbers"),
        ({"x": np.zeros((3, 2), complex)}, "real numbers"),
        ({"x": np.array([{1}, [2]], dtype=object)}, "Python objects"),
        ({"x": np.zeros((4, 2)), "y": np.zeros(3, int)}, "one class number a row"),
        ({"x": np.zeros((4, 2)), "y": np.array([0.5, 1, 2, 3])}, "whole numbers"),
        ({"x": np.zeros((4, 2)), "y": np.array(list("abcd"))}, "whole numbers"),
        ({"x": np.zeros((4, 2)), "y": np.array([-1, 1, 1, 1])}, "0 to k-1"),
        ({"x": np.zeros((2, 2)), "y": np.array([0, 2**40])}, "0 to k-1"),
        ({"a": np.zeros((4, 2))}, r"has the arrays \['a'\]: it needs x"),
        ({"x_train": np.zeros((4, 2)), "x_test": np.zeros((4, 3))}, "must agree"),
        ({"x_train": np.zeros((4, 2)), "x_test": np.zeros((4, 2)), "y_train": np.zeros(4, int)}, "but not both"),
    ],
)
def test_what_cannot_be_used_is_refused_with_the_reason(tmp_path: Path, arrays: dict[str, Any], says: str) -> None:
    with pytest.raises(DataError, match=says):
        load(saved(tmp_path, **arrays))


def test_arrays_must_have_the_shape_unless_a_size_is_asked_for(tmp_path: Path) -> None:
    path, like = saved(tmp_path, x=noise.random((5, 1, 6, 6))), DataSpec("old", "image", (1, 4, 4))
    with pytest.raises(DataError, match=r"\(1, 6, 6\), but \(1, 4, 4\) is needed.*ask for size"):
        load(path, like=like)
    assert load(path, like=like, size=(4, 4)).spec.shape == (1, 4, 4)
    with pytest.raises(DataError, match=r"\(3, 6, 6\) is needed"):
        load(path, like=DataSpec("old", "image", (3, 6, 6)))


@pytest.mark.parametrize("keep", [0, 5, 60, 200, -1])
def test_cut_files_are_damaged_not_crashes(tmp_path: Path, keep: int) -> None:
    np.save(tmp_path / "a.npy", noise.random((20, 1, 4, 4)))
    whole = Path(saved(tmp_path, x=noise.random((20, 1, 4, 4))))
    for path in (tmp_path / "a.npy", whole):
        path.write_bytes(path.read_bytes()[:keep])
        with pytest.raises(DataError, match=r"damaged|not a readable"):
            load(str(path))


def test_a_flipped_byte_in_an_archive_is_found(tmp_path: Path) -> None:
    path = Path(saved(tmp_path, x=noise.random((20, 1, 4, 4))))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"damaged|not a readable"):
        load(str(path))


def npy_bytes(shape: tuple[int, ...], values: int) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": "|u1", "fortran_order": False, "shape": shape})
    return stream.getvalue() + bytes(values)


@pytest.mark.parametrize("shape", [(10**15, 28, 28), (2**62, 2**62), (9, 9)])
def test_a_lying_header_allocates_nothing(tmp_path: Path, data_folder: Path, shape: tuple[int, ...]) -> None:
    (tmp_path / "a.npy").write_bytes(npy_bytes(shape, 100))
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("x.npy", npy_bytes(shape, 100))
    for name in ("a.npy", "a.npz"):
        with pytest.raises(DataError, match="damaged: its header says"):
            load(str(tmp_path / name))
    assert not list((data_folder / "converted").iterdir())


def test_a_decompression_bomb_is_refused_by_its_claim(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", npy_bytes((10, 10), 100))
    content = (tmp_path / "a.npz").read_bytes()
    at = content.rindex(b"PK\x01\x02") + 24  # the unpacked size in the central directory
    (tmp_path / "a.npz").write_bytes(content[:at] + (2**31).to_bytes(4, "little") + content[at + 4 :])
    with pytest.raises(DataError, match="refused"):
        load(str(tmp_path / "a.npz"))


def test_memory_does_not_grow_with_the_data(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "a.npz", x=np.zeros((25_000, 1, 64, 64), np.uint8))  # 100 MB
    np.lib.format.open_memmap(tmp_path / "b.npy", "w+", np.float32, (6_000, 1, 64, 64)).flush()  # 100 MB, sparse
    tracemalloc.start()
    try:
        for name in ("a.npz", "b.npy"):
            source = load(str(tmp_path / name))
            assert len(next(source.batches("train", 100))) == 100
        assert tracemalloc.get_traced_memory()[1] < 40e6
    finally:
        tracemalloc.stop()


def test_an_archive_is_unpacked_once(tmp_path: Path, data_folder: Path) -> None:
    path = saved(tmp_path, x=noise.random((20, 1, 4, 4)))
    load(path)
    made = {p: p.stat().st_mtime_ns for p in (data_folder / "converted").rglob("*")}
    Path(path).rename(tmp_path / "b.npz")
    load(str(tmp_path / "b.npz"))
    assert {p: p.stat().st_mtime_ns for p in (data_folder / "converted").rglob("*")} == made


def test_without_a_writable_data_folder_a_temporary_one_serves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("ROBUSTGEN_DATA", str(tmp_path / "file"))
    assert everything(saved(tmp_path, x=noise.random((20, 1, 4, 4)))).shape == (20, 1, 4, 4)
