"""Names to things: literal tables, looked up with a suggestion when a name is close but wrong.

A table lives in a module that imports nothing heavy, so that listing, help and completion are instant;
what a name stands for is imported only when it is used.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from robustgen.errors import UsageError


@dataclass(frozen=True)
class Entry:
    """One line of a table: `target` is `"module:attribute"`, `help` what a list prints beside the name."""

    target: str
    help: str


def suggestion(name: str, known: Iterable[str], kind: str) -> str:
    """The sentence for an unknown `name`: the nearest known name if there is one, and all of them."""
    names = sorted(known)
    near = difflib.get_close_matches(name.lower(), names, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"unknown {kind} {name!r}: {hint}known: {', '.join(names)}"


def lookup(table: Mapping[str, Entry], name: str, kind: str) -> Entry:
    """The entry of `name`. Raises `UsageError` with the nearest name and the full list."""
    if name not in table:
        raise UsageError(suggestion(name, table, kind))
    return table[name]


def resolve(table: Mapping[str, Entry], name: str, kind: str) -> Any:
    """Import and return what `name` stands for."""
    module, _, attribute = lookup(table, name, kind).target.partition(":")
    return getattr(importlib.import_module(module), attribute)
