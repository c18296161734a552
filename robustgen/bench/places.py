"""Data that a suite names: built-in names, or paths in which $VARIABLES may stand."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

from robustgen.data import DATA
from robustgen.data.cache import file_sha256
from robustgen.data.load import load
from robustgen.data.source import DataSpec, Source
from robustgen.errors import DataError, RobustgenError

_VARIABLE = re.compile(r"\$(\w+|\{\w+\})")


def expand(name: str) -> str:
    """`name` with the environment's values in the place of $VARIABLES. Raises `DataError` for one that is not set."""
    full = os.path.expandvars(name)
    missing = _VARIABLE.search(full)
    if missing is not None:
        variable = missing[0].strip("${}")
        raise DataError(f"{name}: the variable {variable} is not set: set it to the folder that holds the data")
    return full


def open_data(name: str, like: DataSpec | None = None) -> Source:
    """The data that `name` stands for, as `robustgen.data.load.load` opens it."""
    return load(expand(name), like=like)


def identity(name: str) -> str:
    """The hash of the data. Raises `DataError` or `UsageError` if it is not there or cannot be used."""
    path = Path(expand(name))
    if name not in DATA and path.is_file():
        return file_sha256(path)
    return open_data(name).spec.sha256


def identities(names: Iterable[str], hint: str = "", lenient: bool = False) -> dict[str, str]:
    """The hash of each. Raises `DataError` that names all that are missing, with `hint` on how to get them, unless
    `lenient`: then they are left out.
    """
    found, missing = {}, []
    for name in dict.fromkeys(names):
        try:
            found[name] = identity(name)
        except RobustgenError as error:
            missing.append(str(error))
    if missing and not lenient:
        told = "; ".join(dict.fromkeys(missing))
        raise DataError(f"the suite needs data that is not here: {told}{f'; {hint}' if hint else ''}")
    return found
