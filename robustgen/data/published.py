"""The built-in sets that are downloaded: found where the user put them, or fetched with torchvision's addresses and
checksums."""

from __future__ import annotations

import bz2
import dataclasses
import hashlib
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np

from robustgen.data.array_source import ArraySource, image_source
from robustgen.data.cache import converted, data_folder, file_sha256
from robustgen.data.cifar import cifar_parts
from robustgen.data.download import DIRECTORY, fetch, place, published_files
from robustgen.data.form import given_splits
from robustgen.data.idx import IdxSet, find_idx, idx_source
from robustgen.data.npy import NpyWriter, open_npy
from robustgen.errors import DataError

MNIST_SHAPES = ((60_000, 28, 28), (60_000,), (10_000, 28, 28), (10_000,))


def mnist() -> ArraySource:
    """Handwritten digits. Source: LeCun, Bottou, Bengio, Haffner, Proc. IEEE 86(11), 1998."""
    return _idx_family("mnist")


def fashion_mnist() -> ArraySource:
    """Clothes of ten kinds. Source: Xiao, Rasul, Vollgraf, arXiv:1708.07747, 2017."""
    return _idx_family("fashion-mnist")


def kmnist() -> ArraySource:
    """Cursive Japanese characters. Source: Clanuwat et al., arXiv:1812.01718, 2018."""
    return _idx_family("kmnist")


def cifar10() -> ArraySource:
    """Small photographs of ten kinds of object. Source: A. Krizhevsky, "Learning multiple layers of features", 2009."""
    return _converted("cifar10", cifar_parts)


def cifar100() -> ArraySource:
    """Small photographs of a hundred kinds of object. Source: as `cifar10`."""
    return _converted("cifar100", cifar_parts)


def svhn() -> ArraySource:
    """House numbers, cropped to a digit. Source: Netzer et al., NIPS workshop on deep learning, 2011."""
    return _converted("svhn", _svhn_parts)


def usps() -> ArraySource:
    """Digits from envelopes. Source: J. Hull, IEEE TPAMI 16(5), 1994, in the form of LIBSVM's data page."""
    return _converted("usps", _usps_parts)


def _idx_family(name: str) -> ArraySource:
    """A set of four IDX files: those the user has, or else downloaded ones."""
    for folder, own in ((data_folder() / name, True), (data_folder() / DIRECTORY[name], True), (data_folder(), False)):
        found = find_idx(folder, deep=own)
        if found is not None and (source := _named(found, name, own)) is not None:
            return source
    for file in published_files(name):
        if not (data_folder() / name / file.filename).is_file():
            fetch(name, file)
    found = find_idx(data_folder() / name)
    if found is None:
        raise DataError(f"the files of {name!r} in {data_folder() / name} are damaged: delete them and try again")
    source = _named(found, name, own=True)
    if source is None:
        raise DataError(f"the files in {data_folder() / name} are not those of {name!r}: delete them and try again")
    return source


def _named(found: IdxSet, name: str, own: bool) -> ArraySource | None:
    """The files as the set `name`; None if they lie in a folder that is not its `own` and are not certain to be it."""
    if found.shapes != MNIST_SHAPES and not own:
        return None
    if found.shapes != MNIST_SHAPES:
        raise DataError(
            f"{found.files[0].parent} has arrays of {found.shapes}, but {name!r} has {MNIST_SHAPES}: put "
            "its files there"
        )
    source, official = idx_source(found, name)
    if official == name or (official is None and name == "kmnist"):  # whose unpacked content has no checksum here
        return source
    if not own:
        return None
    if official is not None:
        raise DataError(
            f"the files in {found.files[0].parent} are those of {official!r}, not of {name!r}: put its own there"
        )
    warnings.warn(
        f"the files in {found.files[0].parent} are not the official {name!r}: they differ in content", stacklevel=4
    )
    return dataclasses.replace(source, spec=dataclasses.replace(source.spec, name=f"{name} (modified)"))


def _converted(name: str, write: Callable[[list[Path], Path], None]) -> ArraySource:
    """A set whose files `write` turns once into x_train.npy, y_train.npy, x_test.npy, y_test.npy and classes.npy."""
    files = published_files(name)

    def convert(folder: Path) -> None:
        write([place(name, file) or fetch(name, file) for file in files], folder)
        arrays = [file_sha256(path) for path in sorted(folder.glob("*.npy"))]
        (folder / "sha256").write_text(hashlib.sha256("".join(arrays).encode()).hexdigest())

    folder = converted(f"{name}-{'-'.join(file.md5 for file in files)}", convert)
    x = [open_npy(folder / f"x_{split}.npy") for split in ("train", "test")]
    y = np.concatenate([open_npy(folder / f"y_{split}.npy") for split in ("train", "test")]).astype(np.int64)
    classes = tuple(open_npy(folder / "classes.npy").tolist())
    return image_source(name, x, y, given_splits(len(x[0]), len(x[1])), classes, (folder / "sha256").read_text())


def _svhn_parts(files: list[Path], folder: Path) -> None:
    """MATLAB files: X (32, 32, 3, n) bytes, y (n, 1) with 10 for the digit 0."""
    from scipy.io import loadmat

    for path, split in zip(files, ("train", "test"), strict=True):
        content = loadmat(path)
        with NpyWriter(folder / f"x_{split}.npy", np.uint8, (3, 32, 32)) as x:
            for start in range(0, content["X"].shape[-1], 1000):
                x.append(content["X"][..., start : start + 1000].transpose(3, 2, 0, 1))
        np.save(folder / f"y_{split}.npy", content["y"].reshape(-1).astype(np.int64) % 10)
    np.save(folder / "classes.npy", np.array(list("0123456789")))


def _usps_parts(files: list[Path], folder: Path) -> None:
    """LIBSVM lines, packed: the class from 1 to 10, then 256 times index:value with values from -1 to 1."""
    for path, split in zip(files, ("train", "test"), strict=True):
        with (
            bz2.open(path, "rt", encoding="ascii") as lines,
            NpyWriter(folder / f"x_{split}.npy", np.uint8, (16, 16)) as x,
            NpyWriter(folder / f"y_{split}.npy", np.int64) as y,
        ):
            for line in lines:
                label, *cells = line.split()
                values = np.array([cell.partition(":")[2] for cell in cells], np.float32)
                x.append((values + 1) / 2 * 255)
                y.append([int(label) - 1])
    np.save(folder / "classes.npy", np.array(list("0123456789")))
