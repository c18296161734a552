"""Successes of an attack to look at: the pictures before and after, read back from a run's directory and its data."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robustgen.data.npy import read_header
from robustgen.data.source import Source
from robustgen.report.strips import adversarial_strip
from robustgen.report.tally import Samples, chosen, names_for

_MOST = 8


@dataclass(frozen=True)
class Examples:
    """A few inputs of a run: `rows` (k,), their places in the per-sample arrays; `clean` and `adversarial`, (k, c, h,
    w) in [0, 1].
    """

    rows: NDArray[np.int64]
    clean: NDArray[Any]
    adversarial: NDArray[Any]


def find_examples(directory: Path, samples: Samples, source: Source, most: int = _MOST) -> Examples | None:
    """The first success of each class in turn, then the next ones, from a run's blocks or from its finished archive.

    None when there is nothing to show: no success, inputs that are not grey or RGB images, or no stored adversarials.
    """
    rows = chosen(samples, most)
    if source.spec.kind != "image" or source.spec.shape[0] not in (1, 3) or not len(rows) or "index" not in samples:
        return None
    adversarial = _adversarials(directory, rows)
    clean = source.read(np.asarray(samples["index"][rows], dtype=np.int64))
    if adversarial is None or len(clean) != len(rows):
        return None
    low, width = source.spec.low, source.spec.high - source.spec.low
    return Examples(rows, (clean.x.numpy() - low) / width, (adversarial - low) / width)


def _adversarials(directory: Path, rows: NDArray[np.int64]) -> NDArray[Any] | None:
    """The adversarial inputs at `rows`, ascending, without holding more than a block of them."""
    blocks = sorted(directory.glob("block-*.npz"))
    if not blocks:
        return _from_archive(directory / "adversarials.npz", rows)
    found, start = [], 0
    for path in blocks:
        with np.load(path, allow_pickle=False) as block:
            count = len(block["index"])
            here = rows[(rows >= start) & (rows < start + count)] - start
            if len(here):
                found.append(block["x_adv"][here])
        start += count
    return np.concatenate(found) if sum(map(len, found)) == len(rows) else None


def _from_archive(path: Path, rows: NDArray[np.int64]) -> NDArray[Any] | None:
    if not path.is_file():
        return None
    with zipfile.ZipFile(path) as archive, archive.open("x.npy") as stream:
        header = read_header(stream, archive.getinfo("x.npy").file_size, str(path))
        if rows[-1] >= header.shape[0]:
            return None
        each = header.nbytes // header.shape[0]
        found = []
        for row in rows:
            stream.seek(header.offset + int(row) * each)
            found.append(np.frombuffer(stream.read(each), header.dtype).reshape(header.shape[1:]))
    return np.stack(found)


def save_examples(directory: Path, source: Source, most: int = _MOST) -> Path | None:
    """Write `examples.png` into a run's `directory`: successes of its first block (see `find_examples`): clean,
    adversarial, difference.

    Returns its path, or None when there is nothing to show: no success, or inputs that are not grey or RGB images.
    """
    with np.load(min(directory.glob("block-*.npz")), allow_pickle=False) as block:
        samples = {key: block[key] for key in ("index", "y", "clean_prediction", "prediction", "success")}
    found = find_examples(directory, samples, source, most)
    if found is None:
        return None
    y, before, after = (samples[key][found.rows] for key in ("y", "clean_prediction", "prediction"))
    names = names_for(source.spec.classes, samples) if source.spec.classes else None
    figure = adversarial_strip(found.clean, found.adversarial, y, before, after, names=names)
    path = directory / "examples.png"
    figure.savefig(path, dpi=150)
    return path
