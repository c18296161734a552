"""`robustgen demo`: the whole story on real data, in one page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from robustgen.data import DATA
from robustgen_cli import options as o
from robustgen_cli import output


def register(app: typer.Typer) -> None:
    app.command("demo")(demo)


def demo(
    data: Annotated[
        str,
        typer.Option(
            "--data", help="Labelled images: a data name, an image folder, .npz.", autocompletion=o.among(DATA)
        ),
    ] = "digits",
    out: Annotated[Path, typer.Option("--out", help="Directory for report.html and results.json.")] = Path(
        "robustgen-demo"
    ),
    eps: Annotated[
        float | None,
        typer.Option(
            "--eps",
            parser=o.number,
            metavar="NUMBER",
            help="Largest change of a pixel; by default by kind of image.",
            show_default=False,
        ),
    ] = None,
    fpr: Annotated[
        float,
        typer.Option("--fpr", parser=o.number, metavar="RATE", help="The share of normal inputs that may be flagged."),
    ] = 0.05,
    size: o.Size = None,
    device: o.Device = "auto",
    seed: o.Seed = 0,
    json: o.Json = False,
    quiet: o.Quiet = False,
    force: o.Force = False,
) -> None:
    """Train a classifier, fool it, fit detectors, calibrate them, and write a page that shows what they catch.

    Needs no download: scikit-learn's handwritten digits are built in.

    Example: robustgen demo --out my-demo/
    """
    from robustgen import demo as library
    from robustgen.artifacts import check_free, staged
    from robustgen.demo_page import write

    check_free(out, force)
    settings = library.Settings(data=data, eps=eps, fpr=fpr, seed=seed, device=device, size=size)
    with staged(out, force) as directory:
        with output.stages(quiet) as stage:
            outcome = library.run(settings, stage)
        write(directory, outcome)
    output.warn_skipped(outcome.results["skipped"], quiet)
    if json:
        output.emit(outcome.results)
        return
    output.table("How easily is it fooled?", ("", "accuracy", "95 % interval"), outcome.accuracy_rows())
    output.table(
        f"What is caught, at {fpr:.1%} false alarms (share of inputs flagged)",
        ("detector", *outcome.kinds),
        outcome.detection_rows(),
    )
    output.facts([("open", str((out / "report.html").resolve())), ("numbers", str((out / "results.json").resolve()))])
