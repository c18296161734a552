"""Suites: which measurements there are, read from TOML. A suite is a list of products: data x victim x detector x seed.

name = "mine"
description = "What it is for, in one line."

[victims.plain]                      # options of a `classifier` cell, by a name of your own
[detectors.small-vae]                # options of a detector, by a name of your own; others go by their own names
detector = "vae"
preset = "fast"
[guards.both]                        # channels of detectors
perturbed = ["small-vae", "pca"]
[data]                               # names for paths
mine = "$HOME/data/mine.npz"
[board]                              # see `Board`

[[cells]]                            # may be repeated
kind = "adversarial"
data = "mine"
victim = "plain"
detector = ["small-vae", "pca", "both"]
seed = [0, 1, 2]
"""

from __future__ import annotations

import itertools
import math
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from importlib import resources
from pathlib import Path
from typing import Any, final, get_type_hints

from robustgen.bench import SUITES
from robustgen.bench.cell import Cell
from robustgen.bench.guarded import Adversarial
from robustgen.bench.kinds import KINDS
from robustgen.bench.naming import Names, detectors_of, guards_of, victims_of
from robustgen.bench.values import is_list, table, value_of
from robustgen.errors import DataError, UsageError
from robustgen.registry import resolve, suggestion

_ALWAYS = ("data", "protocol", "normal", "victim", "detector", "seed")  # in a row's name even where there is but one
_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*")  # that of a folder, by default
_TOP = ("name", "description", "get", "data", "victims", "detectors", "guards", "board", "cells")


@final
@dataclass(frozen=True)
class Board:
    """How the leaderboard ranks: by success at `eps` (in a suite by default the cells' headline) in `norm`; `reference`
    is the detector beside `victim` that a detector has to beat, drawn as a line.
    """

    norm: str = "linf"
    eps: float = 0.1
    victim: str = "adversarial"
    reference: str = "margin"


@final
@dataclass(frozen=True)
class Listed:
    """One measurement of a suite: what it measures, and where it stands in the suite's table."""

    cell: Cell
    axes: Mapping[str, str | int | float | bool]

    @property
    def label(self) -> str:
        """Its name: the kind and the places on all axes."""
        said = [f"seed {value}" if axis == "seed" else f"{value}" for axis, value in self.axes.items()]
        return f"{self.cell.kind}: {' / '.join(said)}"


@final
@dataclass(frozen=True)
class Suite:
    """A list of measurements. `get`: how to get the data that it needs."""

    name: str
    description: str
    cells: tuple[Listed, ...]
    get: str = ""
    board: Board = Board()


def find(name: str, *, limit: int | None = None, seed: int | None = None) -> Suite:
    """A suite that ships, by its name, or the user's own, by the path of its file; a shipped name wins.

    `limit`: at most so many test inputs a cell. `seed`: this one instead of the suite's. Raises `UsageError` for an
    unknown name or a file that is no suite.
    """
    if name in SUITES:
        text = resources.files("robustgen.bench").joinpath("suites", f"{name}.toml").read_text(encoding="utf-8")
        return parse(text, name, limit=limit, seed=seed)
    path = Path(name).expanduser()
    if path.suffix != ".toml" and not path.exists():
        raise UsageError(f"{suggestion(name, SUITES, 'suite')}; or give a .toml file of your own")
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"the suite {path} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    return parse(text, str(path), limit=limit, seed=seed)


def parse(text: str, where: str, *, limit: int | None = None, seed: int | None = None) -> Suite:
    """The suite that TOML `text` describes; `where` it stands is named in errors. Raises `UsageError`."""
    try:
        given = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{where} is not TOML: {error}") from error
    try:
        return _suite(given, limit, seed)
    except UsageError as error:
        raise UsageError(f"{where}: {error}") from error


def _suite(given: dict[str, Any], limit: int | None, seed: int | None) -> Suite:
    for word in given:
        if word not in _TOP:
            raise UsageError(suggestion(word, _TOP, "key of a suite"))
    blocks = given.get("cells")
    if not isinstance(blocks, list) or not blocks or not all(isinstance(block, dict) for block in blocks):
        raise UsageError("a suite needs [[cells]], at least one: what is to be measured")
    name, described = given.get("name"), given.get("description", "")
    if not isinstance(name, str) or not name or not isinstance(described, str):
        raise UsageError("a suite needs a name, and its description is text")
    if not _NAME.fullmatch(name):
        raise UsageError(f"name: letters, digits, '-', '_' and '.' are needed, no '.' first, but {name!r} came")
    names = Names(
        data={word: str(path) for word, path in table(given, "data").items()},
        victims=victims_of(table(given, "victims")),
        detectors=detectors_of(table(given, "detectors")),
        guards=guards_of(table(given, "guards")),
    )
    listed = tuple(cell for block in blocks for cell in _product(block, names, limit, seed))
    labels = [cell.label for cell in listed]
    twice = next((label for label in labels if labels.count(label) > 1), None)
    if twice is not None:
        raise UsageError(f"two cells are called {twice!r}: leave one out, or tell them apart by a key")
    return Suite(name, described, listed, str(given.get("get", "")), _board(table(given, "board"), listed))


def _board(given: Mapping[str, Any], listed: Sequence[Listed]) -> Board:
    hints = get_type_hints(Board)
    found = replace(Board(), **{word: value_of("board", word, value, hints) for word, value in given.items()})
    if found.norm not in ("linf", "l2"):
        raise UsageError(f"norm of board: linf or l2 is needed, which are attacked, but {found.norm!r} came")
    tried = {one.label: _sizes(one.cell) for one in listed if isinstance(one.cell, Adversarial)}
    headlines = sorted({sizes[0] for sizes in tried.values()})
    if "eps" not in given and headlines:
        if found.norm != "linf" or len(headlines) > 1:
            why = f"headline is {' and '.join(f'{size:g}' for size in headlines)} (linf)"
            raise UsageError(f"the cells' {why}: say by eps of [board] at which size ({found.norm}) they are ranked")
        return replace(found, eps=headlines[0])
    for label, sizes in tried.items() if found.norm == "linf" else ():
        if not any(math.isclose(found.eps, size) for size in sizes):
            told = ", ".join(f"{size:g}" for size in sorted(set(sizes)))
            raise UsageError(
                f"eps of board is {found.eps:g}, but {label!r} is attacked at {told} alone: rank by one of these, or "
                "add it to eps of the cells"
            )
    return found


def _sizes(cell: Adversarial) -> tuple[float, ...]:
    """The headline, and further sizes in Linf that are attacked."""
    return (cell.headline, *cell.eps, *cell.adaptive)


def _product(block: dict[str, Any], names: Names, limit: int | None, seed: int | None) -> list[Listed]:
    """The cells of one [[cells]]: one for each combination of the values of keys that were given lists."""
    given = dict(block)
    kind_name = given.pop("kind", None)
    if not isinstance(kind_name, str):
        raise UsageError(f"each of [[cells]] needs a kind: one of {', '.join(sorted(KINDS))}")
    kind: type[Cell] = resolve(KINDS, kind_name, "kind of cell")
    hints = get_type_hints(kind)
    known = [part.name for part in fields(kind)]
    for word in given:
        if word not in known:
            raise UsageError(suggestion(word, known, f"key of a cell of kind {kind_name}"))
    if seed is not None and "seed" in known:
        given["seed"] = seed
    axes = [word for word, value in given.items() if isinstance(value, list) and not is_list(hints[word])]
    empty = next((word for word in axes if not given[word]), None)
    if empty is not None:
        raise UsageError(f"{empty} of a cell of kind {kind_name} is an empty list: give at least one value")
    cells = []
    for values in itertools.product(*(given[word] for word in axes)):
        chosen = given | dict(zip(axes, values, strict=True))
        shown = [word for word in (*_ALWAYS, *axes) if word in chosen]
        cell = names.build(kind, chosen, hints)
        if limit is not None:
            counts = {word: getattr(cell, word) for word in known if word in ("n", "n_adaptive")}
            cell = replace(cell, **{word: limit if n is None else min(limit, n) for word, n in counts.items()})
        cells.append(Listed(cell, {word: chosen[word] for word in dict.fromkeys(shown)}))
    return cells
