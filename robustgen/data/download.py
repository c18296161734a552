"""Files of the published sets: where torchvision says they are, where they lie here, and fetching what is missing."""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from robustgen.data.cache import data_folder, open_file
from robustgen.errors import DataError, MissingPackageError

DIRECTORY = {
    "mnist": "MNIST",
    "fashion-mnist": "FashionMNIST",
    "kmnist": "KMNIST",
    "cifar10": "CIFAR10",
    "cifar100": "CIFAR100",
    "svhn": "SVHN",
    "usps": "USPS",
}
"""The names of torchvision's classes, which are also the folders in which it keeps the MNIST family."""
SECONDS_TO_WAIT = 30.0


@dataclass(frozen=True)
class Published:
    """A file on the web: any of `urls` serves it. `md5` is the publisher's checksum."""

    filename: str
    md5: str
    urls: tuple[str, ...]


def published_files(name: str) -> list[Published]:
    """The files of a set as torchvision knows them, training files first. Raises `MissingPackageError` without
    torchvision."""
    try:
        from torchvision import datasets
    except ImportError as error:
        raise MissingPackageError(f"{name!r} is read with the package torchvision: pip install torchvision") from error
    known: Any = getattr(datasets, DIRECTORY[name])
    if hasattr(known, "resources"):
        return [Published(file, md5, tuple(mirror + file for mirror in known.mirrors)) for file, md5 in known.resources]
    if hasattr(known, "tgz_md5"):
        return [Published(known.filename, known.tgz_md5, (known.url,))]
    return [Published(file, md5, (url,)) for url, file, md5 in (known.split_list[split] for split in ("train", "test"))]


def place(name: str, file: Published) -> Path | None:
    """Where a file of the set lies already, or None. Raises `DataError` if it is not the published one."""
    root = data_folder()
    own = sorted((root / name).rglob(file.filename))
    for path in (*own, root / DIRECTORY[name] / file.filename, root / file.filename):
        if path.is_file():
            return checked(path, file)
    return None


def checked(path: Path, file: Published) -> Path:
    """The path, if the file there has the published checksum. Raises `DataError` if not."""
    with open_file(path) as stream:
        md5 = hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    if md5 != file.md5:
        raise DataError(
            f"{path} is damaged or another file: its MD5 is {md5}, the published one {file.md5}; delete it "
            "and try again"
        )
    return path


def fetch(name: str, file: Published) -> Path:
    """Download one file of the set into its folder, whole or not at all. Raises `DataError` if that fails."""
    from torchvision.datasets import utils

    folder = data_folder() / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".fetching-", dir=folder) as partial, _patience(SECONDS_TO_WAIT):
            reasons = []
            for url in file.urls:
                try:
                    utils.download_url(url, partial, file.filename, file.md5)
                    os.replace(Path(partial, file.filename), folder / file.filename)
                    return folder / file.filename
                except (OSError, RuntimeError) as error:  # URLError and timeouts are OSErrors
                    reasons.append(f"{url}: {error}")
    except OSError as error:
        reasons = [f"{folder} cannot be written: {error.strerror or error}"]
    missing = [other.filename for other in published_files(name) if not (folder / other.filename).is_file()]
    raise DataError(
        f"{name!r} could not be downloaded ({'; '.join(reasons)}): put {' and '.join(missing)} into "
        f"{folder}, or set ROBUSTGEN_DATA to the folder that holds them"
    )


@contextlib.contextmanager
def _patience(seconds: float) -> Iterator[None]:
    """Let no connection wait for longer than this: without it a firewall that drops packets hangs the download for
    ever."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
