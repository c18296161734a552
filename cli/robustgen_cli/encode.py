"""`robustgen encode`: the codes of inputs."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast, get_args

import typer

from robustgen_cli import options as o
from robustgen_cli import output

if TYPE_CHECKING:
    from robustgen.data.source import Source
    from robustgen.detectors.calibrated import CalibratedDetector
    from robustgen.evaluation.encoding import Encoded
    from robustgen.evaluation.projection import Layout


def register(app: typer.Typer) -> None:
    app.command("encode")(encode)


def encode(
    detector: o.Detector,
    inputs: o.Inputs,
    out: Annotated[
        Path | None, typer.Option("--out", help="Write the codes to this .npz or .csv file.", show_default=False)
    ] = None,
    drawing: Annotated[
        Path | None,
        typer.Option(
            "--map",
            help="Draw where the codes lie, by class and by score, into this .png, .svg or .html file.",
            show_default=False,
        ),
    ] = None,
    layout: Annotated[
        str,
        typer.Option(
            "--layout",
            help="Of the map: pca, or t-sne, which is slow and keeps neighbours together.",
            autocompletion=o.among(("pca", "t-sne")),
        ),
    ] = "pca",
    limit: o.Limit = None,
    device: o.Device = "auto",
    seed: o.Seed = 0,
    batch_size: o.BatchSize = 500,
    json: o.Json = False,
    quiet: o.Quiet = False,
    force: o.Force = False,
) -> None:
    """Write the code that a detector makes of each input, with its score and, where there is one, its class.

    The .npz file is data again: x holds the codes, y the classes.

    Example: robustgen encode detector/ photos/ --out codes.npz --map map.png
    """
    from robustgen import runtime
    from robustgen.artifacts import write_atomically
    from robustgen.data.load import load
    from robustgen.detectors.calibrated import CalibratedDetector
    from robustgen.errors import UsageError
    from robustgen.evaluation.encoding import encode as encode_all
    from robustgen.evaluation.encoding import write_codes
    from robustgen.evaluation.projection import Layout
    from robustgen.registry import suggestion

    if out is None and drawing is None:
        raise UsageError("nothing to write: give --out codes.npz or codes.csv, or --map map.png, or both")
    if layout not in get_args(Layout):
        raise UsageError(suggestion(layout, get_args(Layout), "layout"))
    for path, forms in ((out, (".npz", ".csv")), (drawing, (".png", ".svg", ".html"))):
        if path is not None:
            output.require_free_file(path, forms, force)
    loaded = CalibratedDetector.load(detector).to(runtime.device(device))
    width = loaded.codes().width
    source = load(inputs, like=loaded.spec)
    rows = source.rows("test")[:limit]
    with output.counting(f"encoding with {loaded.name}", len(rows), quiet) as advance:
        found = encode_all(loaded, source, rows, batch_size, advance)
    if drawing is not None:
        with output.stages(quiet) as progress:
            progress(f"laying out the map ({layout})", 0.1)
            draw = partial(
                _write_map, detector=loaded, found=found, source=source, layout=cast("Layout", layout), seed=seed
            )
            write_atomically(drawing, partial(draw, form=drawing.suffix[1:]), force)
    if out is not None:
        write_atomically(out, partial(write_codes, found=found, source=source, form=out.suffix[1:]), force)
    output.warn_skipped(source.skipped)
    summary = {
        "detector": loaded.name,
        "data": source.spec.name,
        "data_sha256": source.spec.sha256,
        "n": len(found.code),
        "width": width,
        "out": None if out is None else str(out),
        "map": None if drawing is None else str(drawing),
    }
    if json:
        output.emit(summary)
        return
    saved = [str(path) for path in (out, drawing) if path is not None]
    output.facts(
        [("codes", f"{len(found.code)} of {width} values each, by {loaded.name}"), ("saved in", ", ".join(saved))]
    )


def _write_map(
    path: Path, detector: CalibratedDetector, found: Encoded, source: Source, layout: Layout, seed: int, form: str
) -> None:
    from robustgen.report.canvas import svg
    from robustgen.report.codes_page import codes_map, codes_page
    from robustgen.report.page import render

    if form == "html":
        path.write_text(render(codes_page(detector, found, source, layout, seed)), encoding="utf-8")
        return
    figure = codes_map(detector, found, source, layout, seed)
    if form == "svg":
        path.write_text(svg(figure), encoding="utf-8")
    else:
        figure.savefig(path, dpi=150, format="png")
