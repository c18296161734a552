"""Options of one attack or detector, from text to the types that its class declares."""

from __future__ import annotations

import inspect
import json
import types
from collections.abc import Collection, Mapping, Sequence
from dataclasses import is_dataclass
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import typer

from robustgen.errors import UsageError
from robustgen.registry import suggestion
from robustgen_cli.options import number

_WORDS: dict[Any, str] = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text",
    tuple: "numbers separated by commas",
    dict: "a JSON object",
    types.NoneType: "none",
}


def settings(
    name: str,
    kind: type | Mapping[str, Any],
    given: Mapping[str, Any],
    pairs: Sequence[str] | None,
    elsewhere: Collection[str] = (),
) -> dict[str, Any]:
    """The options of `kind`, which is called `name`: those `given` (None = not given) and `NAME=VALUE` `pairs`.

    `kind`: a class, or the types of the options by name. `elsewhere`: what the command decides itself. Raises
    `UsageError` for an option that `kind` does not have, one given twice, or a value of another type.
    """
    declared = kind if isinstance(kind, Mapping) else _hints(kind)
    hints = {key: hint for key, hint in declared.items() if key not in elsewhere}
    chosen = {key: value for key, value in given.items() if value is not None}
    texts: dict[str, str] = {}
    for pair in pairs or ():
        option, equals, text = pair.partition("=")
        if not equals or not option:
            raise UsageError(f"--param takes NAME=VALUE, but {pair!r} came")
        option = option.replace("-", "_")
        if option in texts or option in chosen:
            raise UsageError(f"option {option!r} is given twice: give it once")
        texts[option] = text
    for option in (*chosen, *texts):
        if option not in hints:
            known = suggestion(option, hints, f"option of {name}") if hints else f"{name} has no option {option!r}"
            raise UsageError(known if hints else f"{known}, nor any other: leave it out")
    return chosen | {option: _value(option, text, hints[option]) for option, text in texts.items()}


def _hints(kind: type) -> dict[str, Any]:
    """The constructor's arguments that can be written as text, with their types."""
    declared = get_type_hints(kind if is_dataclass(kind) else kind.__init__)  # type: ignore[misc]
    names = [name for name in inspect.signature(kind).parameters if name in declared]
    return {name: declared[name] for name in names if all(_is_plain(part) for part in _parts(declared[name]))}


def _parts(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)


def _is_plain(part: Any) -> bool:
    return part in _WORDS or get_origin(part) is Literal


def _value(option: str, text: str, hint: Any) -> Any:
    for part in _parts(hint):
        try:
            return _read(text, part)
        except (ValueError, typer.BadParameter):
            continue
    wanted = " or ".join(
        f"one of {', '.join(get_args(part))}" if get_origin(part) is Literal else _WORDS[part] for part in _parts(hint)
    )
    raise UsageError(f"--param {option}={text}: {wanted} is needed")


def _read(text: str, part: Any) -> Any:
    """`text` as a value of one plain type. Raises `ValueError` or `typer.BadParameter`."""
    if part is float:
        return number(text)
    if part in (int, str):
        return part(text)
    if part is tuple:
        return tuple(int(item) if item.strip().lstrip("+-").isdigit() else number(item) for item in text.split(","))
    if part is dict:
        return _read_object(text)
    choices: dict[str, Any] = {choice: choice for choice in get_args(part)}
    if part is bool:
        choices = {"true": True, "false": False}
    elif part is types.NoneType:
        choices = {"none": None}
    if text.lower() not in choices:
        raise ValueError(text)
    return choices[text.lower()]


def _read_object(text: str) -> dict[str, Any]:
    value = json.loads(text)  # its error is a ValueError
    if not isinstance(value, dict):
        raise ValueError(text)
    return value
