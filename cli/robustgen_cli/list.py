"""`robustgen list`: what there is, by name."""

from __future__ import annotations

from typing import Annotated

import typer

from robustgen.attacks import ATTACKS
from robustgen.attacks.art_names import ART, PREFIX
from robustgen.bench import SUITES
from robustgen.data import DATA
from robustgen.detectors import DETECTORS
from robustgen.detectors.art_names import ART_DETECTORS
from robustgen.detectors.auto import AUTO, AUTO_HELP
from robustgen.detectors.pyod_names import PREFIX as PYOD_PREFIX
from robustgen.detectors.pyod_names import PYOD, installed
from robustgen.errors import UsageError
from robustgen.models import ARCHITECTURES
from robustgen.registry import Entry, suggestion
from robustgen_cli import options as o
from robustgen_cli import output
from robustgen_cli.attack_adaptive import NAMES as ADAPTIVE

TABLES = {
    "attacks": {
        **ATTACKS,
        ADAPTIVE[0]: Entry(
            "", "those who know a guard's detectors: attacks on classifier and detectors together (--guard)"
        ),
        **{f"{PREFIX}{name}": Entry("", help) for name, help in ART.items()},
    },
    "detectors": {
        AUTO: Entry("", AUTO_HELP),
        **DETECTORS,
        **{f"{PREFIX}{name}": entry for name, entry in ART_DETECTORS.items()},
        **({f"{PYOD_PREFIX}{name}": Entry("", help) for name, help in PYOD.items()} if installed() else {}),
    },
    "data": DATA,
    "models": {
        **ARCHITECTURES,
        "torchvision:NAME": Entry("", "any classification network of torchvision, by its name there"),
    },
    "suites": {name: Entry("", help) for name, help in SUITES.items()},
}


def register(app: typer.Typer) -> None:
    app.command("list")(list_names)


def list_names(
    kind: Annotated[
        str | None,
        typer.Argument(
            metavar="KIND",
            help="attacks, detectors, data, models or suites; all of them if left out.",
            autocompletion=o.among(TABLES),
            show_default=False,
        ),
    ] = None,
    json: o.Json = False,
) -> None:
    """List attacks, detectors, data sets, model architectures and benchmark suites, with a line on each.

    Example: robustgen list attacks
    """
    if kind is not None and kind not in TABLES:
        raise UsageError(suggestion(kind, TABLES, "list"))
    chosen = {name: TABLES[name] for name in TABLES if kind in (None, name)}
    if json:
        import json as encoder
        import sys

        plain = {
            name: [{"name": key, "help": entry.help} for key, entry in entries.items()]
            for name, entries in chosen.items()
        }
        sys.stdout.write(encoder.dumps(plain, indent=2) + "\n")
        return
    for name, entries in chosen.items():
        prefix, what, others = {
            "attacks": (PREFIX, "an attack of ART", ART),
            "detectors": (PYOD_PREFIX, "a detector of PyOD", PYOD),
        }.get(name, (" ", "", {}))
        lines = {key: entry.help for key, entry in entries.items() if not key.startswith(prefix)}
        if len(lines) < len(entries):
            lines[f"{prefix}NAME"] = f"{what} by its name there ({len(others)}, --json says more on each): " + (
                ", ".join(others)
            )
        width = max(len(key) for key in lines)
        output.heading(name)
        output.facts([(f"  {key:<{width}}", help) for key, help in lines.items()])
