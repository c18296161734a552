"""`robustgen sample`: new inputs from a generative detector."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from robustgen_cli import options as o
from robustgen_cli import output

if TYPE_CHECKING:
    from torch import Tensor

    from robustgen.data.source import DataSpec
    from robustgen.detectors.calibrated import Verdicts


def register(app: typer.Typer) -> None:
    app.command("sample")(sample)


def sample(
    detector: o.Detector,
    out: Annotated[
        Path,
        typer.Option(
            "--out", help="Draw them into this .png file, or write them to this .npz file.", show_default=False
        ),
    ],
    n: Annotated[int, typer.Option("--n", min=1, help="How many.")] = 16,
    device: o.Device = "auto",
    seed: o.Seed = 0,
    json: o.Json = False,
    quiet: o.Quiet = False,
    force: o.Force = False,
) -> None:
    """Draw new inputs from a detector that holds a generative model, and have it judge them.

    The .npz file is data again: x holds the inputs, a table's columns in their own units.

    Example: robustgen sample vae/ --n 64 --out samples.png
    """
    from robustgen import runtime
    from robustgen.artifacts import write_atomically
    from robustgen.detectors.calibrated import CalibratedDetector
    from robustgen.evaluation.sampling import draw

    output.require_free_file(out, (".png", ".npz"), force)
    loaded = CalibratedDetector.load(detector).to(runtime.device(device))
    with output.working():
        x = draw(loaded, n, seed)
        judged = loaded.judge(x)
        write = _write_picture if out.suffix == ".png" else _write_arrays
        write_atomically(out, partial(write, x=x, judged=judged, spec=loaded.spec), force)
    summary = {
        "detector": loaded.name,
        "data": loaded.spec.name,
        "n": n,
        "seed": seed,
        "flagged": int(judged.flagged.sum()),
        "fpr": loaded.threshold.fpr,
        "out": str(out),
    }
    if json:
        output.emit(summary)
        return
    expected = f"about {loaded.threshold.fpr * n:.1f} of as many normal inputs would be"
    output.facts(
        [
            ("samples", f"{n} by {loaded.name}, as of {loaded.spec.name}"),
            ("flagged", f"{summary['flagged']} by itself; {expected}"),
            ("saved in", str(out)),
        ]
    )


def _write_picture(path: Path, x: Tensor, judged: Verdicts, spec: DataSpec) -> None:
    from robustgen.errors import DataError
    from robustgen.evaluation.compression import unit
    from robustgen.report.samples import sample_sheet

    if spec.kind != "image":
        raise DataError(f"{spec.name!r} holds no images, so there is nothing to draw: write a .npz file")
    figure = sample_sheet(unit(x, spec), f"as of {spec.name}", judged.p_value.tolist(), judged.flagged.tolist())
    figure.savefig(path, dpi=150, format="png")


def _write_arrays(path: Path, x: Tensor, judged: Verdicts, spec: DataSpec) -> None:
    import numpy as np

    from robustgen.evaluation.sampling import in_own_units

    with path.open("wb") as file:
        np.savez_compressed(file, x=in_own_units(x, spec).numpy(), score=judged.score, p_value=judged.p_value)
