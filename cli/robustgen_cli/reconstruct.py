"""`robustgen reconstruct`: a detector's code as lossy compression."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from robustgen_cli import options as o
from robustgen_cli import output

if TYPE_CHECKING:
    from robustgen.evaluation.rate import RateDistortion


def register(app: typer.Typer) -> None:
    app.command("reconstruct")(reconstruct)


def reconstruct(
    detector: o.Detector,
    inputs: o.Inputs,
    out: o.Out,
    bits: Annotated[
        o.Counts,
        typer.Option(
            "--bits",
            parser=o.counts,
            metavar="B[,B,...]",
            help="Bits of one code value: 1 to 16, or 32 to keep it as it is; one or more.",
        ),
    ] = "2,4,8,32",  # type: ignore[assignment]
    limit: Annotated[int, typer.Option("--limit", min=1, help="Use N inputs only, evenly spread.")] = 1000,
    device: o.Device = "auto",
    batch_size: o.BatchSize = 500,
    json: o.Json = False,
    quiet: o.Quiet = False,
    force: o.Force = False,
) -> None:
    """Compress inputs to a detector's code and bring them back: bits an input beside those of the input itself, zlib
    and PNG, and the error that is left, at each precision of the code.

    Example: robustgen reconstruct detector/ photos/ --bits 4,8 --out reconstructed/
    """
    from robustgen import runtime
    from robustgen.artifacts import RESULTS, check_free, staged, to_json
    from robustgen.data.load import load
    from robustgen.detectors.calibrated import CalibratedDetector
    from robustgen.evaluation.rate import rate_distortion, write_arrays

    check_free(out, force)
    loaded = CalibratedDetector.load(detector).to(runtime.device(device))
    loaded.codes()  # says so now if there is no code
    source = load(inputs, like=loaded.spec)
    with staged(out, force) as directory:
        rows = source.spread("test", limit)
        with output.counting(f"reconstructing with {loaded.name}", len(rows), quiet) as progress:
            found = rate_distortion(loaded, source, rows, bits, batch_size, progress)
        summary = found.summary()
        write_arrays(directory, found)
        if found.pictures:
            from robustgen.report.reconstructed import reconstructed_strip

            reconstructed_strip(found).savefig(directory / "pictures.png", dpi=150)
        (directory / RESULTS).write_text(to_json(summary), encoding="utf-8")
    output.warn_skipped(source.skipped)
    if json:
        output.emit(summary)
        return
    _show(found, summary)
    output.facts([("saved in", str(out))])


def _show(found: RateDistortion, summary: dict[str, Any]) -> None:
    raw = summary["lossless"]["raw"]
    rows = [
        ("as it is" if name == "raw" else name, f"{each:,.0f}", f"{raw / each:.3g}x", "0", "exact", "")
        for name, each in summary["lossless"].items()
    ]
    rows += [
        (
            f"code at {point['bits']}",
            f"{point['rate']:,.0f}",
            f"{raw / point['rate']:.3g}x",
            f"{point['mse']:.4g}",
            "exact" if point["mse"] == 0 else f"{point['psnr']:.2f}",
            "" if point["ssim"] is None else f"{point['ssim']:.4f}",
        )
        for point in summary["precisions"]
    ]
    output.table(
        f"{found.detector}: {summary['n']} inputs of {summary['data']} in {summary['width']} code values each",
        ("form", "bits an input", "smaller", "MSE", "PSNR dB", "SSIM"),
        rows,
    )
