"""`robustgen show`: what is in this artifact or result?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from robustgen_cli import options as o
from robustgen_cli import output


def register(app: typer.Typer) -> None:
    app.command("show")(show)


def show(
    artifact: Annotated[
        Path,
        typer.Argument(metavar="ARTIFACT", help="A directory made by train, fit, attack or demo.", show_default=False),
    ],
    json: o.Json = False,
) -> None:
    """Verify an artifact's hashes and say what it is; for an attack's or the demo's directory, show its results.

    Example: robustgen show detector/
    """
    from robustgen.artifacts import describe

    found = describe(artifact)
    if json:
        output.emit(found)
        return
    output.facts([(key, _line(value)) for key, value in _flat(found)])


def _flat(values: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Nested names joined by dots; what is empty is left out."""
    pairs: list[tuple[str, Any]] = []
    for key, value in values.items():
        if isinstance(value, dict):
            pairs += _flat(value, f"{prefix}{key}.")
        elif value not in (None, [], ""):
            pairs.append((f"{prefix}{key}", value))
    return pairs


def _line(value: Any) -> str:
    if isinstance(value, list) and len(value) > 12:
        return f"{', '.join(map(str, value[:10]))}, ... ({len(value)})"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
