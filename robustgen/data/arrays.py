"""The user's .npy and .npz files. Arrays inside an archive are unpacked once, streaming, and mapped into memory
after."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from robustgen.data.array_source import ArraySource, pieces, table_source
from robustgen.data.cache import converted, file_sha256
from robustgen.data.form import MOST_CLASSES, class_numbers, given_splits, pool_splits, requested_shape
from robustgen.data.npy import Array, open_npy, open_npz, unpack
from robustgen.data.source import DataSpec
from robustgen.errors import DataError

INPUTS, LABELS, NAMES = ("x", "images", "data"), ("y", "labels", "label", "target"), ("classes", "class_names")


def load_npy(path: Path, size: tuple[int, int] | None = None, like: DataSpec | None = None) -> ArraySource:
    """A .npy file of inputs without labels. Raises `DataError` if it cannot be used."""
    sha256, x = file_sha256(path), open_npy(path)
    return _user_source(path.name, [x], None, (), sha256, size, like)


def load_npz(path: Path, size: tuple[int, int] | None = None, like: DataSpec | None = None) -> ArraySource:
    """A .npz file: `x` and perhaps `y`, or `x_train`, `x_test` and perhaps `y_train`, `y_test`. Raises `DataError`.

    `X`, `images` or `data` serve as `x`, `labels`, `label` or `target` as `y`, and `classes` may hold the class names.
    """
    sha256 = file_sha256(path)
    wanted = _members(path)

    def unpack_all(folder: Path) -> None:
        with open_npz(path) as archive:
            for key, member in wanted.items():
                unpack(archive, member, folder / f"{key}.npy")

    folder = converted(f"npz-{sha256}", unpack_all)
    arrays = {key: open_npy(folder / f"{key}.npy", f"{key} in {path.name}") for key in wanted}
    x = [arrays[key] for key in ("x", "x_train", "x_test") if key in arrays]
    y = [arrays[key] for key in ("y", "y_train", "y_test") if key in arrays]
    names = arrays.get("classes")
    if names is not None and (names.ndim != 1 or names.dtype.kind != "U"):
        names = None
    if y and len(y) != len(x):
        raise DataError(f"{path.name} has y_train or y_test but not both: add the other, or leave both out")
    labels = _labels(path.name, x, y) if y else None
    return _user_source(path.name, x, labels, () if names is None else tuple(names.tolist()), sha256, size, like)


def _members(path: Path) -> dict[str, str]:
    """Which members of the .npz are x, y, x_train, ...; other members are of no interest."""
    with open_npz(path) as archive:
        found = {name.removesuffix(".npy").lower(): name for name in archive.namelist() if name.endswith(".npy")}
    members: dict[str, str] = {}
    for key, aliases in (("x", INPUTS), ("y", LABELS)):
        for suffix in ("", "_train", "_test"):
            names = [found[alias + suffix] for alias in aliases if alias + suffix in found]
            if names:
                members[key + suffix] = names[0]
    if "x_train" in members and "x_test" in members:
        members = {key: name for key, name in members.items() if "_" in key}
    elif "x" in members:
        members = {key: name for key, name in members.items() if "_" not in key}
    else:
        raise DataError(
            f"{path.name} has the arrays {sorted(found)}: it needs x (and perhaps y), or x_train and "
            "x_test (and perhaps y_train and y_test)"
        )
    class_names = next((found[alias] for alias in NAMES if alias in found), None)
    return members if class_names is None else {**members, "classes": class_names}


def _labels(name: str, x: list[Array], y: list[Array]) -> npt.NDArray[np.int64]:
    """All labels as one array. Raises `DataError` unless they are one non-negative integer a row."""
    for part, labels in zip(x, y, strict=True):
        if labels.shape not in ((len(part),), (len(part), 1)):
            raise DataError(f"{name}: y has shape {labels.shape}, but one class number a row is needed, ({len(part)},)")
        if labels.dtype.kind not in "biuf" or not _whole(labels):
            raise DataError(
                f"{name}: y is of type {labels.dtype} with values that are not whole numbers: classes are "
                "numbered 0 to k-1"
            )
    joined = np.concatenate([labels.reshape(-1) for labels in y]).astype(np.int64)
    if joined.min() < 0 or joined.max() >= MOST_CLASSES:
        raise DataError(f"{name}: y goes from {joined.min()} to {joined.max()}: number the classes 0 to k-1")
    return joined


def _whole(labels: Array) -> bool:
    return labels.dtype.kind != "f" or bool(np.isfinite(labels).all() and (labels == np.floor(labels)).all())


def _user_source(
    name: str,
    x: list[Array],
    y: npt.NDArray[np.int64] | None,
    names: tuple[str, ...],
    sha256: str,
    size: tuple[int, int] | None,
    like: DataSpec | None,
) -> ArraySource:
    """Check what a user's file holds and put it into form."""
    if len({(part.shape[1:], part.dtype) for part in x}) > 1:
        raise DataError(
            f"{name}: x_train has inputs of shape {x[0].shape[1:]} of {x[0].dtype} and x_test "
            f"{x[1].shape[1:]} of {x[1].dtype}: they must agree"
        )
    n = sum(map(len, x))
    splits = given_splits(len(x[0]), len(x[1]), like) if len(x) == 2 else pool_splits(n, like)
    classes: tuple[str, ...] = ()
    if y is not None:
        k = int(y.max()) + 1
        own = names if len(names) >= k else tuple(map(str, range(k)))
        numbers, classes = class_numbers(own, like)
        y = numbers[y]
    if x[0].ndim == 2:
        return table_source(DataSpec(name, "table", x[0].shape[1:], classes, sha256=sha256), splits, x, y, size, like)
    own_shape = _image_shape(name, x[0])
    for part in x:
        _check_pixels(name, part)
    shape = requested_shape(name, own_shape, size, like, convert=False)
    return ArraySource(DataSpec(name, "image", shape, classes, sha256=sha256), splits, x, y)


def _image_shape(name: str, x: Array) -> tuple[int, ...]:
    if x.ndim == 3:
        return (1, *x.shape[1:])
    if x.ndim != 4:
        raise DataError(
            f"{name}: x has shape {x.shape}: inputs are (n, columns), (n, height, width) or (n, channels, "
            "height, width)"
        )
    if x.shape[3] in (1, 3, 4) and x.shape[1] not in (1, 3, 4):
        raise DataError(
            f"{name}: x has shape {x.shape}, channels last: save it with channels first, x.transpose(0, 3, 1, 2)"
        )
    return x.shape[1:]


def _check_pixels(name: str, x: Array) -> None:
    """Raise `DataError` unless the images are bytes, or floats in [0, 1] (to a rounding error)."""
    if x.dtype in (np.uint8, np.bool_):
        return
    if x.dtype.kind != "f":
        raise DataError(f"{name}: images are of type {x.dtype}: save them as uint8 (0 to 255) or as floats in [0, 1]")
    least, most = np.inf, -np.inf
    for start, rows in pieces(x):
        if not np.isfinite(rows).all():
            row = np.flatnonzero(~np.isfinite(rows).reshape(len(rows), -1).all(1))[0]
            raise DataError(f"{name} has a NaN or infinite value in row {start + row}: drop or fill such rows first")
        least, most = min(least, float(rows.min())), max(most, float(rows.max()))
    if least < -1e-6 or most > 1 + 1e-6:
        what = (
            "(x + 1) / 2"
            if -1 <= least < 0 and most <= 1
            else "x / 255"
            if least >= 0 and most <= 255
            else "(x - low) / (high - low)"
        )
        raise DataError(
            f"{name}: float images must lie in [0, 1], these go from {least:g} to {most:g}: save {what} instead"
        )
