"""A cell: one measurement, a pure function of its configuration, and what must be done before it."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import Field, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, final

import numpy.typing as npt
import torch

from robustgen.artifacts import to_json
from robustgen.attacks.passes import Precision
from robustgen.data.source import Source

ASIDE = {"aside": True}
"""Metadata of a field that only tells cells apart in a suite: the result does not depend on it."""

LATER = {"later": True}
"""Metadata of a field that came after results had been stored: while it has its default, these stay what they are."""


class Found(NamedTuple):
    """What a cell measured: plain values for JSON, and arrays, one value an input where there are inputs."""

    metrics: dict[str, Any]
    arrays: Mapping[str, npt.NDArray[Any]] = {}


@final
@dataclass(frozen=True)
class Means:
    """What cells are run with, of which their results do not depend but for rounding: the device, and the `precision`
    of searches by attackers who know the detector (see `Attack`).
    """

    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    precision: Precision = "float32"


@final
@dataclass(frozen=True)
class Work:
    """What a cell is given to run with: the folder to leave files in, where what it needs was left, and data by name.

    `progress` takes the share done, in [0, 1].
    """

    directory: Path
    place: Callable[[Cell], Path]
    source: Callable[[str], Source]
    means: Means = field(default_factory=Means)
    progress: Callable[[float], None] = lambda share: None

    @property
    def device(self) -> torch.device:
        return self.means.device


@dataclass(frozen=True)
class Cell(ABC):
    """Subclasses are frozen dataclasses: their fields are the configuration, and fields that hold cells are what must
    be done before.
    """

    kind: ClassVar[str]
    version: ClassVar[int] = 1
    """Raised when the same configuration would now give another result: what is stored is then run again."""

    @property
    def sources(self) -> tuple[str, ...]:
        """The data that it reads, by name or path."""
        return ()

    @property
    def prepares(self) -> tuple[Cell, ...]:
        """Further cells that must be done before, which follow from the configuration."""
        return ()

    @property
    def relies_on(self) -> Mapping[str, Any]:
        """What else decides the result: settings of robustgen's own that a field only names."""
        return {}

    @property
    @abstractmethod
    def title(self) -> str:
        """What it is, on one line."""

    @abstractmethod
    def run(self, work: Work) -> Found:
        """Measure; may leave files in `work.directory`. Raises what the work raises."""


def needs(cell: Cell) -> Iterator[Cell]:
    """The cells that must be done before `cell`, direct ones only."""
    yield from cell.prepares
    for part in fields(cell):
        yield from _cells(getattr(cell, part.name))


def _cells(value: Any) -> Iterator[Cell]:
    if isinstance(value, Cell):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _cells(inner)
    elif isinstance(value, tuple | list):
        for inner in value:
            yield from _cells(inner)


def deep(cell: Cell) -> Iterator[Cell]:
    """The cell and all that it needs, however deep."""
    yield cell
    for needed in needs(cell):
        yield from deep(needed)


def config(cell: Cell, identities: Mapping[str, str]) -> dict[str, Any]:
    """All that the result depends on, as plain values: a needed cell stands as its key, data as its hash.

    `identities`: the hash of each of `cell.sources`, so that data may move, and changed data is other data.
    """

    def plain(value: Any) -> Any:
        if isinstance(value, Cell):
            return {"cell": key(value, identities)}
        if is_dataclass(value):
            return settings(value)
        if isinstance(value, Mapping):
            return {str(name): plain(inner) for name, inner in value.items()}
        if isinstance(value, tuple | list):
            return [plain(inner) for inner in value]
        if isinstance(value, str) and value in cell.sources:
            return {"data": identities[value]}
        return value

    def settings(owner: Any) -> dict[str, Any]:
        def counts(part: Field[Any]) -> bool:
            later = part.metadata.get("later") and getattr(owner, part.name) == part.default
            return not (later or part.metadata.get("aside"))

        return {part.name: plain(getattr(owner, part.name)) for part in fields(owner) if counts(part)}

    more = {"relies_on": plain(cell.relies_on)} if cell.relies_on else {}
    return {"kind": cell.kind, "version": cell.version, "settings": settings(cell), **more}


def key(cell: Cell, identities: Mapping[str, str]) -> str:
    """The hash of `config`, under which the result is stored; the order of names does not matter."""
    return hashlib.sha256(to_json(config(cell, identities)).encode()).hexdigest()[:24]
