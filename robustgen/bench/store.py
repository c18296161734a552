"""What is done, on disk: a folder a cell, named by the hash of its configuration, whole or not there at all.

OUT/suite.json                what the suite is, and the key of each cell
OUT/cells/KEY/config.json     the configuration, the hashes of the two files below, seconds, machine, versions
OUT/cells/KEY/metrics.json    what was measured
OUT/cells/KEY/arrays.npz      per-sample arrays, where there are any
OUT/cells/KEY.failed.json     why a cell could not be done, until it is
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, final

import numpy as np
import numpy.typing as npt

from robustgen.artifacts import digest, staged, to_json, write_atomically
from robustgen.bench.cell import Found, Means
from robustgen.data.cache import file_sha256
from robustgen.errors import ArtifactError, UsageError
from robustgen.runtime import describe, versions

FORMAT = 1
CONFIG, METRICS, ARRAYS, SUITE = "config.json", "metrics.json", "arrays.npz", "suite.json"


@final
@dataclass(frozen=True)
class Stored:
    """A finished cell: its configuration, what was measured, and what it took."""

    path: Path
    config: dict[str, Any]
    metrics: dict[str, Any]
    seconds: float

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """The per-sample arrays. Raises `ArtifactError` if they are damaged."""
        place = self.path / ARRAYS
        if not place.is_file() or file_sha256(place) != self.config["files"].get(ARRAYS):
            raise ArtifactError(f"{place} is missing or damaged: remove {self.path} and run the suite again")
        with np.load(place, allow_pickle=False) as found:
            return dict(found)


@final
@dataclass(frozen=True)
class Store:
    """The folder of a suite's results."""

    root: Path

    def place(self, key: str) -> Path:
        """The folder of a cell."""
        return self.root / "cells" / key

    def read(self, key: str) -> Stored | None:
        """The cell if it is done. Raises `ArtifactError` if it is there but damaged."""
        place = self.place(key)
        if not place.exists():
            return None
        again = f"the result in {place} is damaged"
        try:
            config = json.loads((place / CONFIG).read_text(encoding="utf-8"))
            files, seconds = dict(config["files"]), float(config["seconds"])
            text = (place / METRICS).read_bytes()
        except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
            raise ArtifactError(f"{again} ({type(error).__name__}: {error})") from error
        if digest(text) != files.get(METRICS):
            raise ArtifactError(f"{again}: {METRICS} is not what was written")
        if ARRAYS in files and not (place / ARRAYS).is_file():
            raise ArtifactError(f"{again}: {ARRAYS} is missing")
        return Stored(place, config, json.loads(text), seconds)

    def write(self, directory: Path, config: dict[str, Any], found: Found, seconds: float, means: Means) -> None:
        """Write what a cell found into `directory`, a staged one; the configuration comes last."""
        text = to_json(found.metrics).encode()
        (directory / METRICS).write_bytes(text)
        files = {METRICS: digest(text)}
        if found.arrays:
            values: dict[str, Any] = dict(found.arrays)
            write_atomically(directory / ARRAYS, lambda path: _savez(path, values), force=True)
            files[ARRAYS] = file_sha256(directory / ARRAYS)
        whole = config | {
            "format": FORMAT,
            "files": files,
            "seconds": seconds,
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
            "device": describe(means.device),
            "precision": means.precision,
            "versions": versions(),
        }
        (directory / CONFIG).write_text(to_json(whole), encoding="utf-8")

    def existing(self) -> Store:
        """This store. Raises `UsageError` if it holds no results."""
        if not (self.root / "cells").is_dir():
            raise UsageError(f"{self.root} holds no results of 'robustgen bench': name what was its --out")
        return self

    def take(self, other: Store, keys: Iterable[str]) -> int:
        """Copy those of the cells `keys` that are done in `other` and not here, with what they left behind, and return
        how many. Raises `ArtifactError` for a damaged cell there.
        """
        taken = 0
        for key in keys:
            if self.place(key).exists() or other.read(key) is None:
                continue
            with staged(self.place(key)) as directory:
                shutil.copytree(other.place(key), directory, dirs_exist_ok=True)
            taken += 1
        return taken

    def drop(self, key: str) -> None:
        """Forget a damaged cell."""
        shutil.rmtree(self.place(key), ignore_errors=True)

    def _failure(self, key: str) -> Path:
        return self.root / "cells" / f"{key}.failed.json"

    def fail(self, key: str, title: str, error: str, traceback: str) -> None:
        """Say why a cell could not be done."""
        values = {"title": title, "error": error, "traceback": traceback}
        write_atomically(self._failure(key), lambda path: path.write_text(to_json(values), encoding="utf-8"), True)

    def failure(self, key: str) -> str | None:
        """Why the cell could not be done when it was last tried, or None."""
        try:
            return str(json.loads(self._failure(key).read_text(encoding="utf-8"))["error"])
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError):
            return "it failed, and the record of why is damaged"

    def forgive(self, key: str) -> None:
        """Forget that the cell failed: it is done now."""
        self._failure(key).unlink(missing_ok=True)

    def suite(self) -> Mapping[str, Any] | None:
        """What was last run here, or None. Raises `ArtifactError` if that cannot be read."""
        try:
            found = json.loads((self.root / SUITE).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, RecursionError) as error:
            raise ArtifactError(
                f"{self.root / SUITE} cannot be read ({error}): remove it, or choose another"
            ) from error
        return found if isinstance(found, dict) else {}

    def write_file(self, name: str, text: str) -> None:
        """A file beside the cells, in the place of an earlier one."""
        write_atomically(self.root / name, partial(_write_text, text=text), force=True)


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def _savez(path: Path, values: dict[str, Any]) -> None:
    with path.open("wb") as file:
        np.savez_compressed(file, **values)
