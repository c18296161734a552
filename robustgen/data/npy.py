"""The .npy and .npz formats, read without trust: headers are checked against what comes, and nothing is unpickled.

Format: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html, version 1.0.
"""

from __future__ import annotations

import math
import os
import struct
import tokenize
import warnings
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from robustgen.data.cache import open_file, require_room
from robustgen.errors import DataError

Array = npt.NDArray[Any]
HEADER = 256
"""Bytes of the headers written here: the same for every shape, so that the row count can be filled in last."""
MOST_PACKED = 1100
"""No deflate stream unpacks to more than 1032 times its size (zlib's technical notes): a claim beyond that is a lie."""
CHUNK = 1 << 20
BAD_HEADER = (
    ValueError,
    TypeError,
    KeyError,
    SyntaxError,
    RecursionError,
    MemoryError,
    OverflowError,
    tokenize.TokenError,
)
"""What numpy lets through from Python's own parser when a header is not a dictionary."""


@dataclass(frozen=True)
class Header:
    """What a .npy file says it holds; `offset` is where the values begin."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    fortran: bool
    offset: int

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


def read_header(stream: IO[bytes], size: int, name: str) -> Header:
    """The header at the stream's start. Raises `DataError` unless header and values together take `size` bytes."""
    try:
        version = np.lib.format.read_magic(stream)
        if version != (1, 0):
            raise DataError(
                f"{name} is .npy version {version[0]}.{version[1]}: only arrays of plain numbers (version 1.0) are read"
            )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a header written by Python 2 is fine
            shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
    except (*BAD_HEADER, EOFError, zlib.error, zipfile.BadZipFile) as error:
        raise DataError(f"{name} is not a readable .npy array: {error}") from error
    if dtype.hasobject or dtype.fields is not None:
        raise DataError(
            f"{name} holds Python objects or records (dtype {dtype}), which are not read: save it as plain "
            "numbers, for example with x.astype('float32')"
        )
    header = Header(dtype, shape, fortran, stream.tell())
    if min(shape, default=1) < 0 or header.offset + header.nbytes != size:
        raise DataError(
            f"{name} is damaged: its header says shape {shape} of {dtype}, {header.nbytes:,} bytes, "
            f"but {size - header.offset:,} bytes follow"
        )
    return header


def write_header(stream: IO[bytes], dtype: np.dtype[Any], shape: tuple[int, ...], fortran: bool = False) -> None:
    """Write a header of exactly `HEADER` bytes at the stream's position."""
    text = repr({"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": fortran, "shape": shape}).encode()
    stream.write(b"\x93NUMPY\x01\x00" + struct.pack("<H", HEADER - 10) + text.ljust(HEADER - 11) + b"\n")


def open_npy(path: Path, name: str | None = None) -> Array:
    """A .npy file as a read-only array that is mapped into memory, not read. Raises `DataError`, which calls it `name`,
    if it is damaged or empty."""
    with open_file(path) as stream:
        header = read_header(stream, os.fstat(stream.fileno()).st_size, name or str(path))
    if not header.nbytes:
        raise DataError(f"{name or path} is empty: its shape is {header.shape}")
    order: Any = "F" if header.fortran else "C"
    return np.memmap(path, header.dtype, "r", header.offset, header.shape, order)


def open_npz(path: Path) -> zipfile.ZipFile:
    """A .npz file's archive. Raises `DataError` if it is not one."""
    try:
        open_file(path).close()
        return zipfile.ZipFile(path)
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise DataError(f"{path} is not a readable .npz archive: {error}") from error


def unpack(archive: zipfile.ZipFile, member: str, target: Path) -> None:
    """Stream one array of a .npz into a .npy file. Raises `DataError` if it is damaged or claims more than can be in
    it."""
    info, name = archive.getinfo(member), f"{member.removesuffix('.npy')} in {archive.filename or 'the .npz'}"
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise DataError(f"{name} is packed in a way that .npz files are not: save it with numpy.savez_compressed")
    if info.file_size > MOST_PACKED * info.compress_size + HEADER:
        raise DataError(
            f"{name} claims to unpack from {info.compress_size:,} to {info.file_size:,} bytes, which no "
            "array does: refused"
        )
    require_room(target.parent, info.file_size, name)
    try:
        with archive.open(info) as stream, target.open("wb") as out:
            header = read_header(stream, info.file_size, name)
            write_header(out, header.dtype, header.shape, header.fortran)
            left = header.nbytes
            while chunk := stream.read(CHUNK):
                left -= len(chunk)
                out.write(chunk)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise DataError(f"{name} is damaged: {error}") from error
    if left:
        raise DataError(f"{name} is damaged: {left:,} bytes of {header.nbytes:,} are missing")


class NpyWriter:
    """Writes a .npy file row by row; how many there are need not be known before. A context manager."""

    def __init__(self, path: Path, dtype: npt.DTypeLike, row_shape: tuple[int, ...] = ()) -> None:
        self.dtype, self.row_shape, self.n = np.dtype(dtype), row_shape, 0
        self._file = path.open("wb")
        write_header(self._file, self.dtype, (0, *row_shape))

    def append(self, rows: npt.ArrayLike) -> None:
        """Add rows, (n, *row_shape), converted to the dtype."""
        values = np.ascontiguousarray(rows, self.dtype).reshape(-1, *self.row_shape)
        self._file.write(values.tobytes())
        self.n += len(values)

    def __enter__(self) -> NpyWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._file:
            self._file.seek(0)
            write_header(self._file, self.dtype, (self.n, *self.row_shape))
