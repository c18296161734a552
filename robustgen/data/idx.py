"""The IDX files of the MNIST family, told apart by what is in them, not by their names.

Format: Y. LeCun, C. Cortes, C. Burges, "The MNIST database", http://yann.lecun.com/exdb/mnist/ ("FILE FORMATS").
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import struct
import zlib
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path

import numpy as np

from robustgen.data.array_source import ArraySource, image_source
from robustgen.data.cache import converted, file_sha256, open_file, require_room
from robustgen.data.folder import EXTENSIONS
from robustgen.data.form import given_splits
from robustgen.data.npy import CHUNK, MOST_PACKED, NpyWriter, open_npy
from robustgen.errors import DataError

UNSIGNED_BYTES = 8
OFFICIAL = {  # SHA-256 of the unpacked files: train images, train labels, test images, test labels
    "mnist": (
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    ),
    "fashion-mnist": (
        "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    ),
}
CLASSES = {
    "mnist": tuple("0123456789"),
    "fashion-mnist": (
        "T-shirt/top",
        "Trouser",
        "Pullover",
        "Dress",
        "Coat",
        "Sandal",
        "Shirt",
        "Sneaker",
        "Bag",
        "Ankle boot",
    ),
    "kmnist": ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"),
}


@dataclass(frozen=True)
class IdxSet:
    """Four files that belong together, in this order: train images, train labels, test images, test labels."""

    files: tuple[Path, Path, Path, Path]
    shapes: tuple[tuple[int, ...], ...]


def find_idx(folder: Path, *, deep: bool = True) -> IdxSet | None:
    """The first complete set of IDX files in one folder below `folder` (or in itself only), or None.

    Images have three axes and labels one; of two sets the larger is the training set.
    """
    for directory, folders, names in os.walk(folder):
        folders.sort()
        if not deep:
            folders.clear()
        shapes: dict[tuple[int, ...], Path] = {}
        for name in sorted(names, key=lambda name: (name.endswith(".gz"), name)):
            path = Path(directory, name)
            if path.suffix.lower() not in EXTENSIONS and path.is_file() and (shape := idx_shape(path)) is not None:
                shapes.setdefault(shape, path)
        images = sorted((shape for shape in shapes if len(shape) == 3), reverse=True)
        if len(images) == 2 and all((shape[0],) in shapes for shape in images):
            train, test = images
            keys = (train, (train[0],), test, (test[0],))
            return IdxSet((shapes[keys[0]], shapes[keys[1]], shapes[keys[2]], shapes[keys[3]]), keys)
    return None


def idx_shape(path: Path) -> tuple[int, ...] | None:
    """The shape of an IDX file of bytes, compressed or not; None if it is another kind of file, or cannot be read."""
    try:
        with _open(path) as stream:
            return _read_shape(stream)
    except (OSError, EOFError, zlib.error, DataError):
        return None


def idx_source(found: IdxSet, name: str) -> tuple[ArraySource, str | None]:
    """The set as a source, and the name of the official set that it equals bit by bit, if any. Raises `DataError`.

    `name` is what it is called if it equals none.
    """
    key = hashlib.sha256("".join(map(file_sha256, found.files)).encode()).hexdigest()

    def unpack_all(folder: Path) -> None:
        contents = [_unpack(path, folder / f"{i}.npy") for i, path in enumerate(found.files)]
        (folder / "contents.json").write_text(json.dumps(contents))

    folder = converted(f"idx-{key}", unpack_all)
    contents = tuple(json.loads((folder / "contents.json").read_text()))
    official = next((known for known, sums in OFFICIAL.items() if sums == contents), None)
    name = official or name
    train, train_labels, test, test_labels = (open_npy(folder / f"{i}.npy") for i in range(4))
    if train.shape[1:] != test.shape[1:]:
        raise DataError(
            f"{found.files[0]} has images of {train.shape[1:]} and {found.files[2]} of {test.shape[1:]}: "
            "they must agree"
        )
    y = np.concatenate([train_labels, test_labels]).astype(np.int64)
    classes = CLASSES.get(name, ())
    if y.max() >= len(classes):
        classes = tuple(map(str, range(int(y.max()) + 1)))
    sha256 = hashlib.sha256("".join(contents).encode()).hexdigest()
    return image_source(name, [train, test], y, given_splits(len(train), len(test)), classes, sha256), official


def _open(path: Path) -> BufferedReader | gzip.GzipFile:
    """The unpacked bytes of a file that may be gzip-compressed."""
    stream = open_file(path)
    packed = stream.read(2) == b"\x1f\x8b"
    stream.seek(0)
    if not packed:
        return stream
    stream.close()
    return gzip.GzipFile(path)


def _read_shape(stream: BufferedReader | gzip.GzipFile) -> tuple[int, ...] | None:
    magic = stream.read(4)
    if len(magic) < 4 or magic[:3] != bytes([0, 0, UNSIGNED_BYTES]) or magic[3] not in (1, 3):
        return None
    sizes = stream.read(4 * magic[3])
    return struct.unpack(f">{magic[3]}I", sizes) if len(sizes) == 4 * magic[3] else None


def _unpack(path: Path, target: Path) -> str:
    """Stream an IDX file into a .npy file; the SHA-256 of its unpacked bytes. Raises `DataError` if it is damaged."""
    digest = hashlib.sha256()
    try:
        with _open(path) as stream:
            shape = _read_shape(stream) or (0,)
            digest.update(bytes([0, 0, UNSIGNED_BYTES, len(shape)]) + struct.pack(f">{len(shape)}I", *shape))
            row = int(np.prod(shape[1:], dtype=object))
            left = shape[0] * row
            if not left or left > MOST_PACKED * path.stat().st_size:
                raise DataError(f"{path} is damaged: its header says shape {shape}")
            require_room(target.parent, left, str(path))
            with NpyWriter(target, np.uint8, shape[1:]) as out:
                while left and (chunk := stream.read(min(left, max(1, CHUNK // row) * row))):
                    left -= len(chunk)
                    digest.update(chunk)
                    out.append(np.frombuffer(chunk[: len(chunk) // row * row], np.uint8))
            if left or stream.read(1):
                raise DataError(
                    f"{path} is damaged: {'it ends early' if left else 'more follows'} than shape {shape} says"
                )
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path} is damaged: {error}") from error
    return digest.hexdigest()
