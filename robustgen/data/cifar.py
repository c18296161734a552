"""The CIFAR archives, which hold pickles: read by an unpickler that makes arrays and nothing else."""

from __future__ import annotations

import importlib
import io
import pickle
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from robustgen.data.npy import NpyWriter
from robustgen.errors import DataError

ROW = (3, 32, 32)
TRAIN = ("data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5", "train")
TEST, META = ("test_batch", "test"), ("batches.meta", "meta")
MULTIARRAY = "numpy._core.multiarray"
NEEDED = {
    ("numpy.core.multiarray", "_reconstruct"): MULTIARRAY,
    (MULTIARRAY, "_reconstruct"): MULTIARRAY,
    ("numpy", "ndarray"): "numpy",
    ("numpy", "dtype"): "numpy",
    ("_codecs", "encode"): "_codecs",
}
"""What an array's pickle names, and where it is today."""


class ArrayUnpickler(pickle.Unpickler):
    """Unpickles arrays, lists, dictionaries and text. Anything else in the file could run code and is refused."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in NEEDED:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which is not an array")
        return getattr(importlib.import_module(NEEDED[module, name]), name)


def cifar_parts(files: list[Path], folder: Path) -> None:
    """Turn the archive of CIFAR-10 or CIFAR-100 into x_train.npy, y_train.npy, x_test.npy, y_test.npy and
    classes.npy."""
    with (
        NpyWriter(folder / "x_train.npy", np.uint8, ROW) as x_train,
        NpyWriter(folder / "x_test.npy", np.uint8, ROW) as x_test,
        NpyWriter(folder / "y_train.npy", np.int64) as y_train,
        NpyWriter(folder / "y_test.npy", np.int64) as y_test,
    ):
        for member, content in _members(files[0]):
            if member in META:
                classes = content.get("label_names") or content["fine_label_names"]
                np.save(folder / "classes.npy", np.array(classes, np.str_))
            else:
                x, y = (x_train, y_train) if member in TRAIN else (x_test, y_test)
                x.append(content["data"])
                y.append(content.get("labels") or content["fine_labels"])


def _members(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The pickles of the archive by name: training batches in their order, test, names."""
    try:
        with tarfile.open(path) as archive:
            wanted = {Path(member.name).name: member for member in archive if member.isfile()}
            for name in (*TRAIN, *TEST, *META):
                if name in wanted and (stream := archive.extractfile(wanted[name])) is not None:
                    yield name, ArrayUnpickler(io.BytesIO(stream.read()), encoding="latin1").load()
    except (tarfile.TarError, EOFError, zlib.error, pickle.UnpicklingError, KeyError, ValueError) as error:
        raise DataError(f"{path} is damaged: {error}") from error
