"""One way in: a built-in name, or the path of what the user has."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from robustgen.data import DATA
from robustgen.data.array_source import reshaped
from robustgen.data.arrays import load_npy, load_npz
from robustgen.data.cache import unreadable
from robustgen.data.edges import with_edges, without_edges
from robustgen.data.folder import EXTENSIONS, load_folder, load_image
from robustgen.data.form import pool_splits
from robustgen.data.idx import find_idx, idx_source
from robustgen.data.pairs import forms, paired
from robustgen.data.source import DataSpec, Source
from robustgen.data.table import load_csv, load_parquet
from robustgen.errors import DataError, UsageError
from robustgen.registry import resolve, suggestion

Reader = Callable[[Path, tuple[int, int] | None, DataSpec | None], Source]
READERS: dict[str, Reader] = {
    ".npz": load_npz,
    ".npy": load_npy,
    ".csv": load_csv,
    ".tsv": load_csv,
    ".parquet": load_parquet,
    **dict.fromkeys(EXTENSIONS, load_image),
}
FORMS = (
    "or give a folder of images or IDX files, an image file, a .npz or .npy array, a .csv or .parquet table, "
    "edges:DATA or pairs:A,B"
)


def load(spec: str, *, size: tuple[int, int] | None = None, like: DataSpec | None = None) -> Source:
    """Open the data that `spec` names: a built-in name, or a path. A built-in name wins over a file: write `./mnist`
    for that.

    `size` (height, width) is what images are resized to. `like` is the spec of an earlier source, whose form is to be
    met: images are converted and resized to its shape (arrays must have it), a table's columns are picked by name and
    scaled as there, and class names that it knows get its numbers; the user's own rows are then all of the split
    "test". Labels are comparable with those of `like` only where `source.spec.classes == like.classes`.

    `edges:DATA` are the images of DATA, each below its edge map, `pairs:A,B` those of B below those of A with the same
    file names: images whose first channels are a condition that the others belong to.

    Raises `UsageError` if there is no such name or form, and `DataError` if the data cannot be used.
    """
    kind, colon, rest = spec.partition(":")
    if colon and kind == "edges":
        return with_edges(load(rest, size=size, like=None if like is None else without_edges(like)))
    if colon and kind == "pairs":
        return _open_pairs(rest, size, like)
    if spec in DATA:
        return reshaped(resolve(DATA, spec, "data")(), size, like)
    path = Path(spec).expanduser()
    try:
        is_folder, exists = path.is_dir(), path.exists()
    except OSError as error:
        raise unreadable(path, error) from error
    if is_folder:
        return _open_folder(path, size, like)
    reader = READERS.get(path.suffix.lower())
    if reader is not None:
        return reader(path, size, like)
    if exists:
        raise DataError(f"{spec!r} is not of a form that is read: give a built-in name ({', '.join(DATA)}), {FORMS}")
    if path.name != spec:
        raise DataError(f"no such file or folder: {spec}; {FORMS}")
    raise UsageError(f"{suggestion(spec, DATA, 'data')}; {FORMS}")


def _open_pairs(names: str, size: tuple[int, int] | None, like: DataSpec | None) -> Source:
    first, comma, second = names.partition(",")
    if not comma or not first or not second:
        raise UsageError(f"pairs:{names} does not name two sets of images: write pairs:CONDITIONS,PHOTOS")
    likes = (None, None) if like is None else forms(like)
    conditions = load(first, size=size, like=likes[0])
    photos = load(second, size=size or (None if like else conditions.spec.shape[1:]), like=likes[1])  # type: ignore[arg-type]  # (h, w)
    return paired(conditions, photos, like)


def _open_folder(path: Path, size: tuple[int, int] | None, like: DataSpec | None) -> Source:
    found = find_idx(path)
    if found is None:
        return load_folder(path, size, like)
    source, _ = idx_source(found, path.resolve().name)
    source = reshaped(source, size, like)
    if like is not None:
        source.splits = pool_splits(sum(map(len, source.x)), like)
    return source
