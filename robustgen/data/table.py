"""Tables of numbers with named columns: CSV and Parquet files, converted once, streaming, and mapped into memory
after."""

from __future__ import annotations

import csv
import hashlib
import importlib
import json
import math
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from robustgen.data.array_source import ArraySource, table_source
from robustgen.data.cache import converted, file_sha256, unreadable
from robustgen.data.form import MOST_CLASSES, class_numbers, pool_splits, require_kind
from robustgen.data.npy import NpyWriter, open_npy
from robustgen.data.source import DataSpec
from robustgen.errors import DataError, MissingPackageError

CLASS_COLUMNS = ("label", "target", "class", "y")
DELIMITERS = (",", ";", "\t")
ROWS_AT_ONCE = 4096


@dataclass
class Layout:
    """Which of a table's columns are inputs, and which one is the class; and the classes met so far, by first
    appearance."""

    names: list[str]
    inputs: list[int]
    label: int | None
    classes: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Piece:
    """A few rows of a table: cells as they stand in the file, column by column, and the line or row of each."""

    columns: Sequence[Sequence[Any]]
    lines: Sequence[int]


def load_csv(path: Path, size: tuple[int, int] | None = None, like: DataSpec | None = None) -> ArraySource:
    """A CSV file whose first line names its columns, separated by comma, semicolon or tab. Raises `DataError`.

    A column named label, target, class or y holds the class; all others must be numbers.
    """
    return _load(path, *_csv(path), size, like)


def load_parquet(path: Path, size: tuple[int, int] | None = None, like: DataSpec | None = None) -> ArraySource:
    """A Parquet file, by the rules of CSV. Raises `DataError`, and `MissingPackageError` without pyarrow."""
    return _load(path, *_parquet(path), size, like)


def _load(
    path: Path, names: list[str], pieces: Iterator[Piece], size: tuple[int, int] | None, like: DataSpec | None
) -> ArraySource:
    require_kind(path.name, "table", like)
    wanted = like.columns if like is not None else ()
    layout = _layout(path, names, wanted)
    sha256 = file_sha256(path)
    key = hashlib.sha256(json.dumps([sha256, path.suffix.lower(), wanted]).encode()).hexdigest()
    folder = converted(f"table-{key}", lambda folder: _convert(path, layout, pieces, folder))
    x = open_npy(folder / "x.npy")
    y: npt.NDArray[np.int64] | None = None
    classes: tuple[str, ...] = ()
    if layout.label is not None:
        own = tuple(json.loads((folder / "classes.json").read_text(encoding="utf-8")))
        numbers, classes = class_numbers(own, like)
        y = numbers[open_npy(folder / "y.npy")]
    columns = tuple(names[i] for i in layout.inputs)
    spec = DataSpec(path.name, "table", x.shape[1:], classes, sha256=sha256, columns=columns)
    return table_source(spec, pool_splits(len(x), like), [x], y, size, like)


def _layout(path: Path, names: list[str], wanted: tuple[str, ...]) -> Layout:
    """Raises `DataError` if the columns are unnamed, named twice, or lack one that is wanted."""
    unnamed = [i + 1 for i, name in enumerate(names) if not name]
    if unnamed:
        raise DataError(
            f"{path}: column {unnamed[0]} has no name: name it in the first line, or leave it out "
            "(index=False in pandas)"
        )
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DataError(
            f"{path}: the column name {twice[0]!r} appears twice: the first line must name the columns, "
            "each in its own way"
        )
    missing = [name for name in wanted if name not in names]
    if missing:
        raise DataError(
            f"{path} lacks the columns {', '.join(map(repr, missing))}: it must have all {len(wanted)} "
            "that were trained on"
        )
    found = {name.lower(): i for i, name in reversed(list(enumerate(names))) if name not in wanted}
    label = next((found[name] for name in CLASS_COLUMNS if name in found), None)
    inputs = [names.index(name) for name in wanted] or [i for i in range(len(names)) if i != label]
    if not inputs:
        raise DataError(f"{path} has no columns of numbers besides the class")
    return Layout(names, inputs, label)


def _convert(path: Path, layout: Layout, pieces: Iterator[Piece], folder: Path) -> None:
    labels = array("q")
    with NpyWriter(folder / "x.npy", np.float64, (len(layout.inputs),)) as out:
        for piece in pieces:
            out.append(np.stack([_numbers(path, layout, piece, i, first=not out.n) for i in layout.inputs], 1))
            if layout.label is not None:
                labels.extend(_class_codes(path, layout, piece, layout.label))
    if not out.n:
        raise DataError(f"{path} has no rows below the line that names the columns")
    if layout.label is not None:
        classes, numbers = _ordered(list(layout.classes))
        np.save(folder / "y.npy", numbers[np.frombuffer(labels, np.int64)])
        (folder / "classes.json").write_text(json.dumps(classes), encoding="utf-8")


def _numbers(path: Path, layout: Layout, piece: Piece, i: int, first: bool) -> npt.NDArray[np.float64]:
    """One column of a piece. Raises `DataError` that names the line and column of what is not a finite number."""
    try:
        values = np.array(piece.columns[i], np.float64)
    except (ValueError, TypeError, OverflowError):
        values = np.array([_number(cell) for cell in piece.columns[i]])
    bad = np.flatnonzero(~np.isfinite(values))
    if not len(bad):
        return values
    if first and _is_text(piece.columns[i][0]):
        texts = [layout.names[j] for j in layout.inputs if _is_text(piece.columns[j][0])]
        raise DataError(
            f"{path}: the columns {', '.join(map(repr, texts))} are not numbers: only numeric columns are "
            "read so far, "
            "so drop these or encode them as numbers first (a class column is to be named label)"
        )
    cell, where = piece.columns[i][bad[0]], f"{path}, line {piece.lines[bad[0]]}, column {layout.names[i]!r}"
    if cell is None or not str(cell).strip():
        raise DataError(f"{where}: the cell is empty: fill or drop such rows first")
    raise DataError(f"{where}: {str(cell)!r} is not a finite number: fill or drop such rows first")


def _number(cell: Any) -> float:
    """A cell's value; NaN if it is not a number."""
    try:
        return float(cell)
    except (ValueError, TypeError, OverflowError):
        return float("nan")


def _is_text(cell: Any) -> bool:
    """Whether a cell holds something that is neither a number nor missing."""
    text = "" if cell is None else str(cell).strip().lower()
    return text.lstrip("+-") not in ("", "na", "n/a", "nan", "null", "none", "?") and math.isnan(_number(cell))


def _class_codes(path: Path, layout: Layout, piece: Piece, label: int) -> Iterator[int]:
    """Each row's class as a code, numbered by first appearance."""
    for cell, line in zip(piece.columns[label], piece.lines, strict=True):
        text = "" if cell is None else str(cell).strip()
        if not text:
            raise DataError(
                f"{path}, line {line}, column {layout.names[label]!r}: the class is empty: fill or drop such rows first"
            )
        yield layout.classes.setdefault(text, len(layout.classes))


def _ordered(texts: list[str]) -> tuple[list[str], npt.NDArray[np.int64]]:
    """The classes in order, and the number of each text in it. Whole numbers from 0 stand for themselves, with all
    between."""
    values = [_number(text) for text in texts]
    if all(value.is_integer() and 0 <= value < MOST_CLASSES for value in values):
        numbers = np.array(values, np.int64)
        return [str(i) for i in range(int(numbers.max()) + 1)], numbers
    classes = sorted(texts, key=lambda text: (_number(text), text) if not math.isnan(_number(text)) else (np.inf, text))
    return classes, np.array([classes.index(text) for text in texts], np.int64)


def _csv(path: Path) -> tuple[list[str], Iterator[Piece]]:
    lines = _csv_lines(path)
    header = next(lines, None)
    if header is None:
        raise DataError(f"{path} is empty: its first line must name the columns")
    names = [name.strip() for name in header[1]]
    if all(not math.isnan(_number(name)) for name in names):
        raise DataError(f"{path}: the first line holds numbers only: it must name the columns")
    return names, _csv_pieces(path, lines, len(names))


def _csv_pieces(path: Path, lines: Iterator[tuple[int, list[str]]], width: int) -> Iterator[Piece]:
    rows: list[list[str]] = []
    numbers: list[int] = []
    for line, row in lines:
        if len(row) != width:
            raise DataError(f"{path}, line {line}: {len(row)} cells, but the first line names {width} columns")
        rows.append(row)
        numbers.append(line)
        if len(rows) == ROWS_AT_ONCE:
            yield Piece(list(zip(*rows, strict=True)), numbers)
            rows, numbers = [], []
    if rows:
        yield Piece(list(zip(*rows, strict=True)), numbers)


def _csv_lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    """The rows that are not blank, each with the number of the line it ends on."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            first = file.readline()
            file.seek(0)
            delimiter = max(DELIMITERS, key=lambda d: len(next(csv.reader([first], delimiter=d), [])))
            reader = csv.reader(file, delimiter=delimiter)
            for row in reader:
                if row:
                    yield reader.line_num, row
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not text in UTF-8: {error}") from error
    except csv.Error as error:
        raise DataError(f"{path} is not a readable CSV file: {error}") from error
    except OSError as error:
        raise unreadable(path, error) from error


def _parquet(path: Path) -> tuple[list[str], Iterator[Piece]]:
    try:
        parquet = importlib.import_module("pyarrow.parquet")
    except ImportError as error:
        raise MissingPackageError(
            "Parquet files are read with the package pyarrow: pip install 'robustgen[parquet]'"
        ) from error
    try:
        file = parquet.ParquetFile(path)
    except OSError as error:
        raise unreadable(path, error) from error
    except ValueError as error:  # ArrowInvalid
        raise DataError(f"{path} is not a readable Parquet file: {error}") from error
    return list(file.schema_arrow.names), _parquet_pieces(path, file)


def _parquet_pieces(path: Path, file: Any) -> Iterator[Piece]:
    start = 1
    try:
        for batch in file.iter_batches(ROWS_AT_ONCE):
            if len(batch):
                yield Piece([column.to_pylist() for column in batch.columns], range(start, start + len(batch)))
            start += len(batch)
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is damaged: {error}") from error
