"""`robustgen encode`: the codes of inputs."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from robustgen_cli import options as o
from robustgen_cli import output


def register(app: typer.Typer) -> None:
    app.command("encode")(encode)


def encode(
    detector: o.Detector,
    inputs: o.Inputs,
    out: Annotated[
        Path | None, typer.Option("--out", help="Write the codes to this .npz or .csv file.", show_default=False)
    ] = None,
    limit: o.Limit = None,
    device: o.Device = "auto",
    batch_size: o.BatchSize = 500,
    json: o.Json = False,
    quiet: o.Quiet = False,
    force: o.Force = False,
) -> None:
    """Write the code that a detector makes of each input, with its score and, where there is one, its class.

    The .npz file is data again: x holds the codes, y the classes.

    Example: robustgen encode detector/ photos/ --out codes.npz
    """
    from robustgen import runtime
    from robustgen.artifacts import write_atomically
    from robustgen.data.load import load
    from robustgen.detectors.calibrated import CalibratedDetector
    from robustgen.errors import UsageError
    from robustgen.evaluation.encoding import encode as encode_all
    from robustgen.evaluation.encoding import write_codes

    if out is None:
        raise UsageError("nothing to write: give --out codes.npz or codes.csv")
    output.require_free_file(out, (".npz", ".csv"), force)
    loaded = CalibratedDetector.load(detector).to(runtime.device(device))
    width = loaded.codes().width
    source = load(inputs, like=loaded.spec)
    rows = source.rows("test")[:limit]
    with output.counting(f"encoding with {loaded.name}", len(rows), quiet) as progress:
        found = encode_all(loaded, source, rows, batch_size, progress)
    write_atomically(out, partial(write_codes, found=found, source=source, form=out.suffix[1:]), force)
    output.warn_skipped(source.skipped)
    summary = {
        "detector": loaded.name,
        "data": source.spec.name,
        "data_sha256": source.spec.sha256,
        "n": len(found.code),
        "width": width,
        "out": str(out),
    }
    if json:
        output.emit(summary)
        return
    output.facts([("codes", f"{len(found.code)} of {width} values each, by {loaded.name}"), ("saved in", str(out))])
