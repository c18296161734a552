"""Folders for what is downloaded, and for what is converted once so that it can be mapped into memory ever after."""

from __future__ import annotations

import functools
import hashlib
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from io import BufferedReader
from pathlib import Path

from robustgen.errors import DataError


def data_folder() -> Path:
    """Where downloaded and converted data lie: `ROBUSTGEN_DATA` if set, else `robustgen` in the user's cache folder."""
    chosen = os.environ.get("ROBUSTGEN_DATA")
    if chosen:
        return Path(chosen).expanduser()
    if sys.platform == "win32":
        cache = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        cache = Path.home() / "Library" / "Caches"
    else:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "robustgen"


def converted(key: str, write: Callable[[Path], None]) -> Path:
    """The folder of files that `write` makes from the data named by `key`, made now unless it exists already.

    `key` says everything the files depend on (a hash of the content). They are written to a hidden folder that is then
    renamed, so that a folder that exists is complete. Where the data folder cannot be written, a temporary one is used.
    """
    for root in (_converted_root(), *_temporary_roots):
        if (root / key).is_dir():
            return root / key
    root, making = _new_folder(key)
    done = root / key
    try:
        write(making)
        os.rename(making, done)
    except OSError as error:
        if not done.is_dir():  # else another process converted the same data meanwhile
            raise DataError(
                f"cannot convert data into {root}: {error.strerror or error}; free some space, or set "
                "ROBUSTGEN_DATA to a folder with room"
            ) from error
    finally:
        shutil.rmtree(making, ignore_errors=True)
    return done


def require_room(folder: Path, size: int, name: str) -> None:
    """Raise `DataError` unless the disk of `folder` has `size` bytes free."""
    free = shutil.disk_usage(folder).free
    if size > free:
        raise DataError(
            f"{name} unpacks to {size:,} bytes and the disk of {folder} has {free:,} left: "
            "free some space, or set ROBUSTGEN_DATA to a folder with room"
        )


def open_file(path: Path) -> BufferedReader:
    """Open a file for reading. Raises `DataError` with one clear line if that is not possible."""
    try:
        return path.open("rb")
    except OSError as error:
        raise unreadable(path, error) from error


def unreadable(path: Path, error: OSError) -> DataError:
    """The `DataError` for a file or folder that could not be opened or read."""
    if isinstance(error, FileNotFoundError):
        return DataError(f"no such file: {path}")
    if isinstance(error, IsADirectoryError):
        return DataError(f"{path} is a folder, a file was expected")
    if isinstance(error, PermissionError):
        return DataError(f"no permission to read {path}")
    return DataError(f"cannot read {path}: {error.strerror or error}")


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal: what `sha256sum` prints."""
    with open_file(path) as file:
        try:
            return hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise unreadable(path, error) from error


def _converted_root() -> Path:
    return data_folder() / "converted"


def _new_folder(key: str) -> tuple[Path, Path]:
    """A root that can be written, and a fresh hidden folder in it."""
    root = _converted_root()
    try:
        root.mkdir(parents=True, exist_ok=True)
        return root, Path(tempfile.mkdtemp(prefix=".making-", dir=root))
    except OSError:
        root = Path(_temporary().name)
        return root, Path(tempfile.mkdtemp(prefix=".making-", dir=root))


_temporary_roots: list[Path] = []


@functools.cache
def _temporary() -> tempfile.TemporaryDirectory[str]:
    """A folder that lives as long as this process."""
    folder = tempfile.TemporaryDirectory(prefix="robustgen-", ignore_cleanup_errors=True)
    _temporary_roots.append(Path(folder.name))
    return folder
