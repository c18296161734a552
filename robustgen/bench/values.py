"""Values of a TOML file against the types that are wanted."""

from __future__ import annotations

import types
from collections.abc import Mapping
from typing import Any, Literal, Union, get_args, get_origin

from robustgen.bench.limits import check
from robustgen.errors import UsageError
from robustgen.registry import suggestion

_WORDS: dict[Any, str] = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}


def table(given: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The table `name` of a file, empty if it is not there. Raises `UsageError` if it is something else."""
    found = given.get(name, {})
    if not isinstance(found, dict):
        raise UsageError(f"{name} must be a table, [{name}] or [{name}.NAME]")
    return found


def is_list(hint: Any) -> bool:
    """Whether a list is one value of this type, not several."""
    return any(get_origin(part) is tuple for part in _parts(hint))


def value_of(owner: str, word: str, value: Any, hints: Mapping[str, Any]) -> Any:
    """`value` as the type that `hints` declares for `word`, a key of `owner`, and within its limits. Raises
    `UsageError`.
    """
    found = _typed(owner, word, value, hints)
    check(owner, word, found)
    return found


def _typed(owner: str, word: str, value: Any, hints: Mapping[str, Any]) -> Any:
    if word not in hints:
        raise UsageError(suggestion(word, hints, f"key of {owner}"))
    parts = _parts(hints[word])
    for part in parts:
        if part is float and type(value) in (int, float):
            return float(value)
        if part in _WORDS and type(value) is part:
            return value
        if get_origin(part) is Literal and value in get_args(part):
            return value
        if get_origin(part) is tuple and isinstance(value, list):
            inner = {"item": get_args(part)[0]}
            return tuple(value_of(f"{owner}.{word}", "item", item, inner) for item in value)
    wanted = " or ".join(_said(part) for part in parts if part is not types.NoneType)
    raise UsageError(f"{word} of {owner}: {wanted} is needed, but {value!r} came")


def _said(part: Any) -> str:
    if get_origin(part) is Literal:
        return f"one of {', '.join(map(str, get_args(part)))}"
    return _WORDS.get(part, "a list")


def _parts(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
