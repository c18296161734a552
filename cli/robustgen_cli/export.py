"""`robustgen export`: a guard as a program for other run-times."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from robustgen_cli import options as o
from robustgen_cli import output
from robustgen_cli.loading import load_optional


def register(app: typer.Typer) -> None:
    app.command("export")(export)


def export(
    guard: Annotated[
        Path, typer.Argument(metavar="GUARD", help="A directory made by 'robustgen guard'.", show_default=False)
    ],
    out: Annotated[Path, typer.Option("--out", help="A .onnx or .pt2 file.", show_default=False)],
    data: o.Data,
    limit: Annotated[int, typer.Option("--limit", min=2, help="Inputs that program and guard are compared on.")] = 200,
    model: o.OptionalModel = None,
    weights: o.Weights = None,
    mean: o.Mean = None,
    std: o.Std = None,
    trust: o.Trust = False,
    json: o.Json = False,
    quiet: o.Quiet = False,
    force: o.Force = False,
) -> None:
    """Write a guard as one program, .onnx or .pt2 (torch.export), and check on data that it decides as the guard does.

    The program takes inputs in the data's range and gives logits, scores and which inputs are accepted.

    Example: robustgen export guard/ --out guard.onnx --data fashion-mnist
    """
    from robustgen.artifacts import write_atomically
    from robustgen.data.load import load
    from robustgen.guard import Guard
    from robustgen.guard.export import FORMS, Parity
    from robustgen.guard.export import export as write

    output.require_free_file(out, FORMS, force)
    loaded = Guard.load(guard, load_optional(model, weights, mean, std, trust))
    source = load(data, like=loaded.spec)
    x = source.read(source.spread("test", limit)).x
    found: list[Parity] = []

    def save(temporary: Path) -> None:
        named = temporary.with_suffix(out.suffix)  # the ending says which form
        try:
            found.append(write(loaded, named, x))
            named.replace(temporary)
        finally:
            named.unlink(missing_ok=True)

    with output.stages(quiet) as stage:
        stage(f"exporting {loaded.name}", 0.3)
        write_atomically(out, save, force)
    (parity,) = found
    if json:
        output.emit({"guard": loaded.name, "out": str(out), **asdict(parity)})
        return
    output.facts(
        [
            ("exported", f"{loaded.name} to {out}"),
            (
                "compared on",
                f"{parity.n} inputs: {parity.decisions} decisions differ, logits by at most {parity.logits:.2g}, "
                f"scores by {parity.score:.2g} (relative)",
            ),
        ]
    )
