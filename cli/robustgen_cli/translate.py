"""`robustgen translate`: inputs as of another domain, or the photos that belong to conditions."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from robustgen_cli import options as o
from robustgen_cli import output
from robustgen_cli.loading import load_optional

if TYPE_CHECKING:
    from robustgen.data.source import DataSpec
    from robustgen.evaluation.translation import Translated

_DRAWN = 16


def register(app: typer.Typer) -> None:
    app.command("translate")(translate)


def translate(
    detector: o.Detector,
    data: o.Data,
    out: Annotated[
        Path,
        typer.Option(
            "--out", help="Draw them into this .png file, or write them to this .npz file.", show_default=False
        ),
    ],
    to: Annotated[
        str | None,
        typer.Option(
            "--to",
            help="The domain, for cycle-gan: normal (which purifies) or other.",
            autocompletion=o.among(("normal", "other")),
            show_default="normal",
        ),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option("--limit", min=1, help="Use N inputs only, evenly spread; 16 of them are drawn.", show_default=""),
    ] = None,
    model: o.OptionalModel = None,
    weights: o.Weights = None,
    mean: o.Mean = None,
    std: o.Std = None,
    trust: o.Trust = False,
    device: o.Device = "auto",
    batch_size: o.BatchSize = 500,
    json: o.Json = False,
    quiet: o.Quiet = False,
    force: o.Force = False,
) -> None:
    """Translate inputs with a cycle-gan, to the normal domain or to the other, or draw the photo that pair-gan expects
    for each condition.

    The .npz file is data again: x holds the translated inputs, y their labels. With --model the classifier's accuracy
    before and after is told, which needs labels.

    Example: robustgen translate cycle/ --data attacked.npz --model victim/ --out purified.npz
    """
    from robustgen import runtime
    from robustgen.artifacts import read_artifact, write_atomically
    from robustgen.data.load import load
    from robustgen.detectors.calibrated import CalibratedDetector
    from robustgen.evaluation.translation import as_translator
    from robustgen.evaluation.translation import translate as translated

    output.require_free_file(out, (".png", ".npz"), force)
    through = load_optional(model, weights, mean, std, trust)
    stored = read_artifact(detector, "detector").config.get("model")
    needed = through if stored is not None and stored["rebuild"] is None else None  # otherwise any classifier will do
    loaded = CalibratedDetector.load(detector, needed).to(runtime.device(device))
    as_translator(loaded.detector, loaded.name, to)  # says so now if it cannot
    named = loaded.spec if through is None or through.spec is None else through.spec
    source = load(data, like=replace(loaded.spec, classes=named.classes))
    rows = source.spread("test", limit)
    with output.counting(f"translating with {loaded.name}", len(rows), quiet) as progress:
        found = translated(loaded, source, rows, to, model=through, batch_size=batch_size, progress=progress)
        write = _write_picture if out.suffix == ".png" else _write_arrays
        write_atomically(out, partial(write, found=found, spec=source.spec), force)
    output.warn_skipped(source.skipped)
    summary = {
        "detector": loaded.name,
        "data": source.spec.name,
        "n": len(found.x),
        "to": found.to,
        "accuracy_before": None if found.accuracy is None else found.accuracy[0],
        "accuracy_after": None if found.accuracy is None else found.accuracy[1],
        "out": str(out),
    }
    if json:
        output.emit(summary)
        return
    told = []
    if found.accuracy is not None:
        told = [("accuracy", f"{found.accuracy[0]:.2%} before, {found.accuracy[1]:.2%} after")]
    output.facts(
        [
            ("translated", f"{len(found.x)} of {source.spec.name} to {found.to} by {loaded.name}"),
            *told,
            ("saved in", str(out)),
        ]
    )


def _write_picture(path: Path, found: Translated, spec: DataSpec) -> None:
    from robustgen.report.translations import translated_sheet

    translated_sheet(found, spec, _DRAWN).savefig(path, dpi=150, format="png")


def _write_arrays(path: Path, found: Translated, spec: DataSpec) -> None:
    import numpy as np

    arrays: dict[str, Any] = {"x": found.made.numpy()}
    if found.y is not None:
        arrays["y"] = found.y.numpy()
        if spec.classes:
            arrays["classes"] = np.array(spec.classes)
    with path.open("wb") as file:
        np.savez_compressed(file, **arrays)
