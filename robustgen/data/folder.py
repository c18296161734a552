"""Folders of images: with a subfolder a class, flat without classes, or with such folders below train and test."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from robustgen.data.cache import open_file, unreadable
from robustgen.data.form import class_numbers, pool_splits, requested_shape
from robustgen.data.picture import decode, look
from robustgen.data.source import Batch, DataSpec, Indices, Source, split_rows
from robustgen.errors import DataError

EXTENSIONS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")
SPLIT_FOLDERS = {
    "train": "train",
    "test": "test",
    "val": "calibration",
    "valid": "calibration",
    "validation": "calibration",
    "calibration": "calibration",
}
HASHED = 1 << 16


@dataclass
class FolderSource(Source):
    """Image files, decoded when read; `files` are relative to `root`, `y` is one class number a file."""

    root: Path
    files: list[str]
    y: npt.NDArray[np.int64] | None

    def _read(self, rows: Indices) -> Batch:
        pixels, kept = [], []
        for row in rows.tolist():
            try:
                pixels.append(decode(self.root / self.files[row], self.spec.shape))
                kept.append(row)
            except DataError as error:
                self.skipped[self.files[row]] = str(error)
        x = torch.from_numpy(np.stack(pixels) if pixels else np.empty((0, *self.spec.shape), np.float32))
        y = None if self.y is None else torch.from_numpy(self.y[kept])
        return Batch(x, y, torch.tensor(kept, dtype=torch.int64))

    def label(self, row: int) -> str:
        return self.files[row]


def load_folder(path: Path, size: tuple[int, int] | None = None, like: DataSpec | None = None) -> FolderSource:
    """A folder of images. Raises `DataError` if there are none that can be read.

    Subfolders are classes, unless images lie beside them: then there are no classes. Where `train` and `test` (and
    perhaps `val`) are among the subfolders, these are the splits and the classes lie below them.
    """
    skipped: dict[str, str] = {}
    files = list(_images(path, skipped))
    tops = {file.split("/")[0] for file in files if "/" in file}
    layered = {"train", "test"} <= tops
    if layered:
        skipped |= dict.fromkeys(sorted(tops - set(SPLIT_FOLDERS)), "beside train and test, but not a split")
        files = [file for file in files if "/" in file and file.split("/")[0] in SPLIT_FOLDERS]
    source = _source(path.resolve().name, path, files, size, like, skipped, depth=1 if layered else 0)
    if layered and like is None:
        source.splits = _layered_splits(source.files)
    return source


def load_image(path: Path, size: tuple[int, int] | None = None, like: DataSpec | None = None) -> FolderSource:
    """A single image file as a source of one row, which is of the test split. Raises `DataError` if it cannot be
    read."""
    open_file(path).close()
    skipped: dict[str, str] = {}
    try:
        source = _source(path.name, path.parent, [path.name], size, like, skipped, depth=0)
        decode(path, source.spec.shape)
    except DataError as error:
        raise DataError(f"cannot use the image {path}: {skipped.get(path.name, error)}") from error
    nothing = np.empty(0, np.int64)
    source.splits = {"train": nothing, "calibration": nothing, "test": np.zeros(1, np.int64)}
    return source


def _images(root: Path, skipped: dict[str, str]) -> Iterator[str]:
    """All image files below the folder, sorted, as paths relative to it with forward slashes; hidden ones are left
    out."""
    seen: set[str] = set()

    def refused(error: OSError) -> None:
        if Path(error.filename) == root:
            raise unreadable(root, error)
        skipped[Path(error.filename).relative_to(root).as_posix()] = "no permission to read it"

    for directory, folders, names in os.walk(root, onerror=refused, followlinks=True):
        real = os.path.realpath(directory)
        folders[:] = [] if real in seen else sorted(name for name in folders if not name.startswith("."))
        if real in seen:  # links in a circle
            continue
        seen.add(real)
        for name in sorted(names):
            if name.lower().endswith(EXTENSIONS) and not name.startswith("."):
                yield Path(directory, name).relative_to(root).as_posix()


def _source(
    name: str,
    root: Path,
    files: list[str],
    size: tuple[int, int] | None,
    like: DataSpec | None,
    skipped: dict[str, str],
    depth: int,
) -> FolderSource:
    """The files as a source whose classes are the folders at `depth` below the root."""
    digest, sizes, grey, kept = hashlib.sha256(), Counter[tuple[int, int]](), True, []
    for file in files:
        try:
            seen = look(root / file)
            digest.update(_fingerprint(root / file, file))
        except DataError as error:
            skipped[file] = str(error)
            continue
        sizes[seen.size] += 1
        grey = grey and seen.grey
        kept.append(file)
    if not kept:
        reasons = ""
        if skipped:
            first, reason = next(iter(skipped.items()))
            reasons = f": {len(skipped)} cannot be used, the first, {first}, because {reason}"
        raise DataError(f"no images in {root}{reasons}; images are {' '.join(e[1:] for e in EXTENSIONS)}")
    shape = requested_shape(name, (1 if grey else 3, *sizes.most_common(1)[0][0]), size, like, convert=True)
    if shape[0] not in (1, 3):
        raise DataError(
            f"image files can be read as grey or RGB, but {shape} is needed, as in {like.name if like else name!r}"
        )
    parts = [file.split("/") for file in kept]
    y: npt.NDArray[np.int64] | None = None
    classes: tuple[str, ...] = ()
    if all(len(part) > depth + 1 for part in parts):
        own = tuple(sorted({part[depth] for part in parts}))
        numbers, classes = class_numbers(own, like)
        y = numbers[[own.index(part[depth]) for part in parts]]
    spec = DataSpec(name, "image", shape, classes, sha256=digest.hexdigest())
    return FolderSource(spec, pool_splits(len(kept), like), root, kept, y, skipped=skipped)


def _fingerprint(path: Path, name: str) -> bytes:
    """What stands for a file in the hash of the folder: its name, its size and its first 64 KiB."""
    with open_file(path) as stream:
        size = os.fstat(stream.fileno()).st_size
        return hashlib.sha256(f"{name}\0{size}\0".encode(errors="surrogateescape") + stream.read(HASHED)).digest()


def _layered_splits(files: list[str]) -> dict[str, Indices]:
    """Splits by the first folder; without a calibration folder, 10 % of train is for calibration."""
    which = np.array([SPLIT_FOLDERS[file.split("/")[0]] for file in files])
    splits = {split: np.flatnonzero(which == split).astype(np.int64) for split in ("train", "calibration", "test")}
    if not len(splits["calibration"]):
        cut = split_rows(len(splits["train"]), {"calibration": 0.1, "train": 0.9})
        splits["calibration"], splits["train"] = splits["train"][cut["calibration"]], splits["train"][cut["train"]]
    return splits
