"""The downloaded sets: found by content where the user put them, fetched whole or not at all, running no code."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import os
import pickle
import struct
import tarfile
import urllib.error
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision

from robustgen.data import published
from robustgen.data.idx import CLASSES, OFFICIAL
from robustgen.data.load import load
from robustgen.data.source import DataSpec
from robustgen.errors import DataError

noise = np.random.Generator(np.random.PCG64(0))


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">I{array.ndim}I", 0x800 + array.ndim, *array.shape) + array.astype(np.uint8).tobytes()


def write_idx(folder: Path, n_train: int, n_test: int, size: int = 28, packed: bool = True) -> list[np.ndarray]:
    """Four files with names that say nothing."""
    folder.mkdir(parents=True, exist_ok=True)
    arrays = []
    for name, shape in zip("dcba", ((n_train, size, size), (n_train,), (n_test, size, size), (n_test,)), strict=True):
        array = noise.integers(0, 10, shape, np.uint8) if n_train < 1000 else np.zeros(shape, np.uint8)
        arrays.append(array)
        content = idx(array)
        (folder / (name + (".gz" if packed else ""))).write_bytes(gzip.compress(content, 1) if packed else content)
    return arrays


@pytest.mark.parametrize("packed", [True, False])
def test_a_folder_of_idx_files_is_read_by_content(tmp_path: Path, packed: bool) -> None:
    arrays = write_idx(tmp_path / "mine" / "raw", 40, 12, 5, packed)
    source = load(str(tmp_path / "mine"))
    assert (source.spec.name, source.spec.shape, len(source.spec.classes)) == ("mine", (1, 5, 5), 10)
    assert {name: len(rows) for name, rows in source.splits.items()} == {"train": 36, "calibration": 4, "test": 12}
    batch = source.read(source.rows("all"))
    assert torch.equal(batch.x[:, 0], torch.from_numpy(np.concatenate(arrays[::2])).float() / 255)
    assert batch.y is not None
    assert np.array_equal(batch.y.numpy(), np.concatenate(arrays[1::2]))
    assert len(load(str(tmp_path / "mine"), like=source.spec).rows("test")) == 52


@pytest.mark.parametrize("damage", [lambda b: b[:-5], lambda b: b + b"more"])
def test_damaged_idx_files_are_an_error(tmp_path: Path, damage: Any) -> None:
    write_idx(tmp_path / "mine", 40, 12, 5, packed=False)
    (tmp_path / "mine" / "b").write_bytes(damage((tmp_path / "mine" / "b").read_bytes()))
    with pytest.raises(DataError, match="is damaged"):
        load(str(tmp_path / "mine"))


def test_cut_and_lying_compressed_files_are_an_error(tmp_path: Path) -> None:
    write_idx(tmp_path / "mine", 40, 12, 5)
    whole = (tmp_path / "mine" / "b.gz").read_bytes()
    (tmp_path / "mine" / "b.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="is damaged"):
        load(str(tmp_path / "mine"))
    (tmp_path / "mine" / "b.gz").write_bytes(gzip.compress(struct.pack(">4I", 0x803, 12, 2**31, 2**31)))
    with pytest.raises(DataError, match="its header says shape"):
        load(str(tmp_path / "mine"))


@pytest.mark.parametrize("place", ["fashion-mnist/x", "FashionMNIST/raw"])
def test_own_files_are_found_and_told_from_the_official_ones(data_folder: Path, place: str) -> None:
    write_idx(data_folder / place, 60_000, 10_000)
    with pytest.warns(UserWarning, match="not the official 'fashion-mnist'"):
        source = load("fashion-mnist")
    assert source.spec.name == "fashion-mnist (modified)"
    assert source.spec.shape == (1, 28, 28)


def test_a_set_without_a_known_checksum_is_taken_as_it_is(data_folder: Path) -> None:
    write_idx(data_folder, 60_000, 10_000, packed=False)
    source = load("kmnist")
    assert source.spec.name == "kmnist"
    assert source.spec.classes == CLASSES["kmnist"]
    splits = {name: len(rows) for name, rows in source.splits.items()}
    assert splits == {"train": 54_000, "calibration": 6_000, "test": 10_000}
    with pytest.raises(DataError, match="could not be downloaded"):  # in no folder of its own: must be certain
        load("mnist")


def test_files_of_another_size_or_set_are_an_error(data_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_idx(data_folder / "mnist", 40, 12)
    with pytest.raises(DataError, match=r"\(40, 28, 28\).*but 'mnist' has"):
        load("mnist")
    write_idx(data_folder / "kmnist", 60_000, 10_000, packed=False)
    sums = tuple(hashlib.sha256((data_folder / "kmnist" / name).read_bytes()).hexdigest() for name in "dcba")
    monkeypatch.setitem(OFFICIAL, "mnist", sums)
    with pytest.raises(DataError, match="are those of 'mnist', not of 'kmnist'"):
        load("kmnist")


def test_class_names_are_torchvisions() -> None:
    assert list(CLASSES["fashion-mnist"]) == torchvision.datasets.FashionMNIST.classes
    assert list(CLASSES["kmnist"]) == torchvision.datasets.KMNIST.classes


@pytest.mark.parametrize(
    ("name", "missing"),
    [
        ("mnist", "train-images-idx3-ubyte.gz and train-labels-idx1-ubyte.gz and t10k-images-idx3-ubyte.gz and t10k"),
        ("cifar10", "cifar-10-python.tar.gz"),
        ("cifar100", "cifar-100-python.tar.gz"),
        ("svhn", "train_32x32.mat and test_32x32.mat"),
        ("usps", r"usps.bz2 and usps.t.bz2"),
    ],
)
def test_offline_the_missing_files_and_their_place_are_named(data_folder: Path, name: str, missing: str) -> None:
    with pytest.raises(DataError) as caught:
        load(name)
    assert f"put {missing}" in str(caught.value)
    assert str(data_folder / name) in str(caught.value)
    assert "no network in tests" in str(caught.value)
    assert not [path for path in data_folder.rglob("*") if path.is_file()]


def test_a_broken_download_leaves_nothing(data_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(url: str, root: str, filename: str, md5: str) -> None:
        Path(root, filename).write_bytes(b"half")
        raise urllib.error.URLError("cut")

    monkeypatch.setattr(torchvision.datasets.utils, "download_url", breaks)
    with pytest.raises(DataError, match="could not be downloaded"):
        load("usps")
    assert not [path for path in data_folder.rglob("*") if path.is_file()]


def serve(monkeypatch: pytest.MonkeyPatch, files: dict[str, bytes]) -> None:
    """Let downloads write these files, and let them be the published ones."""

    def download(url: str, root: str, filename: str, md5: str) -> None:
        Path(root, filename).write_bytes(files[filename])

    monkeypatch.setattr(torchvision.datasets.utils, "download_url", download)
    monkeypatch.setattr("robustgen.data.download.checked", lambda path, file: path)


def tar(members: dict[str, Any]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        for name, content in members.items():
            data = pickle.dumps(content, protocol=2)
            info = tarfile.TarInfo(f"folder/{name}")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return stream.getvalue()


def test_cifar_is_read_from_its_pickles(data_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    x = noise.integers(0, 256, (60, 3072), np.uint8)
    batches = {f"data_batch_{i + 1}": {"data": x[10 * i : 10 * i + 10], "labels": [i] * 10} for i in reversed(range(5))}
    names = {"label_names": [f"name {i}" for i in range(10)]}
    test = {"data": x[50:], "labels": [9] * 10}
    serve(monkeypatch, {"cifar-10-python.tar.gz": tar({**batches, "test_batch": test, "batches.meta": names})})
    source = load("cifar10")
    batch = source.read(source.rows("all"))
    assert torch.equal(batch.x, torch.from_numpy(x.reshape(60, 3, 32, 32)).float() / 255)
    assert batch.y is not None
    assert batch.y.tolist() == [i for i in (0, 1, 2, 3, 4, 9) for _ in range(10)]
    assert source.spec.classes == tuple(names["label_names"])
    assert source.rows("test").tolist() == list(range(50, 60))
    (data_folder / "cifar10" / "cifar-10-python.tar.gz").unlink()
    assert load("cifar10").spec == source.spec  # converted once, the archive is needed no more


class Attack:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, ("echo owned",)


def test_a_pickle_that_runs_code_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    serve(monkeypatch, {"cifar-100-python.tar.gz": tar({"train": Attack()})})
    with pytest.raises(DataError, match=r"damaged: it names .*system, which is not an array"):
        load("cifar100")


def test_usps_and_svhn_are_converted(monkeypatch: pytest.MonkeyPatch) -> None:
    import scipy.io

    values = noise.integers(0, 256, (3, 256)) / 127.5 - 1
    cells = [" ".join(f"{i + 1}:{v:.6f}" for i, v in enumerate(row)) for row in values]
    lines = "".join(f"{k + 1} {row}\n" for k, row in enumerate(cells))
    x = noise.integers(0, 256, (32, 32, 3, 5), np.uint8)
    stream = io.BytesIO()
    scipy.io.savemat(stream, {"X": x, "y": np.array([[10], [1], [2], [3], [9]], np.uint8)})
    packed = bz2.compress(lines.encode())
    files = {"usps.bz2": packed, "usps.t.bz2": packed}
    serve(monkeypatch, files | dict.fromkeys(["train_32x32.mat", "test_32x32.mat"], stream.getvalue()))
    digits = load("usps")
    batch = digits.read(digits.rows("test"))
    assert torch.allclose(batch.x.flatten(1).double(), torch.from_numpy((values + 1) / 2), atol=1 / 255)
    assert batch.y is not None
    assert batch.y.tolist() == [0, 1, 2]
    numbers = load("svhn", like=DataSpec("old", "image", (3, 32, 32)))
    batch = numbers.read(numbers.rows("test"))
    assert torch.equal(batch.x, torch.from_numpy(x.transpose(3, 2, 0, 1).copy()).float() / 255)
    assert batch.y is not None
    assert batch.y.tolist() == [0, 1, 2, 3, 9]


def test_a_file_that_is_not_the_published_one_is_named(data_folder: Path) -> None:
    (data_folder / "usps").mkdir(parents=True)
    (data_folder / "usps" / "usps.bz2").write_bytes(b"other")
    with pytest.raises(DataError, match=r"usps\.bz2 is damaged or another file: its MD5 is"):
        load("usps")


@pytest.mark.skipif("ROBUSTGEN_FASHION_MNIST" not in os.environ, reason="names a folder with the official files")
def test_the_official_set_is_known_by_its_content(monkeypatch: pytest.MonkeyPatch, data_folder: Path) -> None:
    data_folder.mkdir()
    (data_folder / "fashion-mnist").symlink_to(os.environ["ROBUSTGEN_FASHION_MNIST"])
    source = load("fashion-mnist")
    assert source.spec.name == "fashion-mnist"
    assert load(os.environ["ROBUSTGEN_FASHION_MNIST"]).spec == source.spec
    labels = torch.cat([batch.y for batch in source.batches("test", 1000) if batch.y is not None])
    assert labels.bincount().tolist() == [1000] * 10


@pytest.mark.skipif("ROBUSTGEN_EXTRA_DATA" not in os.environ, reason="names a folder with further data")
def test_the_official_mnist_is_known_by_its_content(data_folder: Path) -> None:
    with np.load(Path(os.environ["ROBUSTGEN_EXTRA_DATA"], "mnist", "mnist.npz"), allow_pickle=False) as arrays:
        (data_folder / "mnist").mkdir(parents=True)
        for name in arrays.files:
            (data_folder / "mnist" / name).write_bytes(idx(arrays[name]))
    assert published.mnist().spec.name == "mnist"
