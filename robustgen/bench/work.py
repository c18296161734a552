"""Running one cell: whole on disk at the end, or not there at all."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import final

from robustgen.artifacts import is_artifact, read_artifact, staged
from robustgen.bench.cell import Cell, Means, Work, config, key
from robustgen.bench.places import open_data
from robustgen.bench.store import Store
from robustgen.data.source import Source
from robustgen.errors import ArtifactError


@final
@dataclass(frozen=True)
class Job:
    """A cell to run: the key it is stored under, the keys of those it needs, what to call it, and the data's hashes.

    `asked`: it is one of the suite's own measurements, not only needed by one.
    """

    cell: Cell
    key: str
    label: str
    needs: tuple[str, ...]
    identities: dict[str, str]
    asked: bool


@final
@dataclass(frozen=True)
class Ended:
    """What became of a job: `error` is None if it is done now; `seconds` that it took."""

    key: str
    seconds: float
    error: str | None = None


source_of = lru_cache(maxsize=4)(open_data)
"""Data by name, opened once a process."""


def _source(name: str) -> Source:
    found: Source = source_of(name)
    return replace(found)  # what one cell notes as skipped is not another's


def run_job(job: Job, root: Path, means: Means, progress: Callable[[float], None]) -> Ended:
    """Run the cell and store what it finds; a failure is stored beside, never raised (but for interruptions)."""
    store, began = Store(root), time.perf_counter()
    try:
        if store.read(job.key) is not None:  # another run has done it meanwhile
            return Ended(job.key, 0.0)
    except ArtifactError:
        store.drop(job.key)
    place = partial(_place, store, job)
    try:
        with staged(store.place(job.key), False, job.key) as directory:
            found = job.cell.run(Work(directory, place, _source, means, progress))
            seconds = time.perf_counter() - began
            store.write(directory, config(job.cell, job.identities) | {"title": job.label}, found, seconds, means)
    except Exception as error:  # noqa: BLE001 - one cell's failure must not stop the others
        said = f"{type(error).__name__}: {error}"
        if isinstance(error, ArtifactError) and _drop_damaged(store, job.needs):
            said += "; it was removed, and the same command makes it anew"
        store.fail(job.key, job.label, said, traceback.format_exc())
        return Ended(job.key, time.perf_counter() - began, said)
    store.forgive(job.key)
    return Ended(job.key, seconds)


def _drop_damaged(store: Store, needed: Iterable[str]) -> bool:
    """Forget finished cells whose artifact cannot be read any more; whether there was one."""
    damaged = list[str]()
    for name in needed:
        try:
            if is_artifact(store.place(name)):
                read_artifact(store.place(name))
        except ArtifactError:
            damaged.append(name)
            store.drop(name)
    return bool(damaged)


def _place(store: Store, job: Job, cell: Cell) -> Path:
    return store.place(key(cell, job.identities))
