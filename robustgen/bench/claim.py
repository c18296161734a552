"""Whose results a folder holds: a suite goes on only in its own."""

from __future__ import annotations

from robustgen.artifacts import check_free, digest, to_json
from robustgen.bench.cell import config
from robustgen.bench.store import SUITE, Store
from robustgen.bench.suite import Suite
from robustgen.errors import UsageError


class _Named(dict[str, str]):
    """Data stands for itself: what a suite asks for does not depend on what is in its data."""

    def __missing__(self, name: str) -> str:
        return name


def definition(suite: Suite) -> str:
    """The hash of what a suite asks for."""
    asked = [[listed.label, config(listed.cell, _Named())] for listed in suite.cells]
    return digest(to_json(asked).encode())[:24]


def claim(suite: Suite, store: Store, resume: bool, write: bool = True) -> None:
    """Make the store the suite's own. Raises `UsageError` if it holds another suite's results, or another version's
    without `resume`, or is a folder of something else.
    """
    found = store.suite()
    if found is None:
        check_free(store.root, force=False)
    else:
        other = found.get("name")
        if other != suite.name and not resume:
            raise UsageError(
                f"--out {store.root} holds the suite {other!r}: choose another, or go on there with --resume"
            )
        if found.get("definition") != definition(suite) and not resume:
            raise UsageError(
                f"--out {store.root} holds {other!r} with other cells or settings: choose another, or go on there with "
                "--resume (cells that have not changed are kept)"
            )
    if write:
        about = {"name": suite.name, "description": suite.description, "definition": definition(suite)}
        (store.root / "cells").mkdir(parents=True, exist_ok=True)
        store.write_file(SUITE, to_json(about | {"cells": [listed.label for listed in suite.cells]}) + "\n")
