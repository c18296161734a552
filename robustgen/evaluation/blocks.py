"""What a long attack keeps on disk: a file per block of inputs while it runs, two archives when it is done."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from robustgen.data.npy import write_header
from robustgen.errors import ArtifactError


def write_block(path: Path, arrays: Mapping[str, Any]) -> None:
    """One block's arrays as an uncompressed npz file."""
    with path.open("wb") as file:
        np.savez(file, **arrays)


def read_block(path: Path) -> dict[str, npt.NDArray[Any]]:
    """A block's arrays, without its adversarial inputs. Raises `ArtifactError` if it cannot be read."""
    try:
        with np.load(path, allow_pickle=False) as block:
            return {key: block[key] for key in block.files if key != "x_adv"}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise ArtifactError(f"{path} cannot be read ({error}): delete its folder and start the run again") from error


def write_samples(directory: Path, samples: Mapping[str, npt.NDArray[Any]]) -> None:
    """From the blocks in `directory`: `samples.npz` (one array per property) and `adversarials.npz` (x, y), which
    `--data` takes.
    """
    arrays: dict[str, Any] = dict(samples)
    np.savez_compressed(directory / "samples.npz", **arrays)
    with zipfile.ZipFile(directory / "adversarials.npz", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        _write_member(archive, "x", len(samples["y"]), stored(directory, "x_adv"))
        _write_member(archive, "y", len(samples["y"]), stored(directory, "y"))
    for block in directory.glob("block-*.npz"):
        block.unlink()


def stored(directory: Path, key: str) -> Iterator[npt.NDArray[Any]]:
    """One array of every block in `directory`, in the rows' order; `x_adv` are the adversarial inputs."""
    for path in sorted(directory.glob("block-*.npz")):
        with np.load(path, allow_pickle=False) as block:
            yield block[key]


def _write_member(archive: zipfile.ZipFile, name: str, n: int, parts: Iterator[npt.NDArray[Any]]) -> None:
    """An array as a member of an npz file, part by part: only one of them is in memory at a time."""
    with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
        for number, part in enumerate(parts):
            if not number:
                write_header(member, part.dtype, (n, *part.shape[1:]))
            member.write(np.ascontiguousarray(part).tobytes())
