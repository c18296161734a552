"""`robustgen fit`: a calibrated detector."""

from __future__ import annotations

from typing import Annotated

import typer

from robustgen.detectors import DETECTORS
from robustgen_cli import options as o
from robustgen_cli import output
from robustgen_cli.loading import load_optional
from robustgen_cli.parameters import settings


def register(app: typer.Typer) -> None:
    app.command("fit")(fit)


def fit(
    name: Annotated[
        str,
        typer.Argument(
            metavar="DETECTOR",
            help="One of 'robustgen list detectors'.",
            autocompletion=o.among(DETECTORS),
            show_default=False,
        ),
    ],
    data: o.Data,
    out: o.Out,
    fpr: Annotated[
        float,
        typer.Option("--fpr", parser=o.number, metavar="RATE", help="The share of normal inputs that may be flagged."),
    ] = 0.05,
    model: o.OptionalModel = None,
    layer: Annotated[
        str | None,
        typer.Option("--layer", help="With --model: whose input to look at; by default its last linear layer."),
    ] = None,
    param: o.Params = None,
    weights: o.Weights = None,
    mean: o.Mean = None,
    std: o.Std = None,
    trust: o.Trust = False,
    size: o.Size = None,
    device: o.Device = "auto",
    seed: o.Seed = 0,
    batch_size: o.BatchSize = 500,
    json: o.Json = False,
    quiet: o.Quiet = False,
    force: o.Force = False,
) -> None:
    """Train a detector on normal inputs and calibrate it on held-out ones, so that at most the given share of normal
    inputs is flagged.

    With --model it judges what enters a layer of that classifier instead of the input itself.

    Example: robustgen fit autoencoder --data fashion-mnist --fpr 0.05 --out detector/
    """
    from robustgen import runtime
    from robustgen.artifacts import RESULTS, check_free, staged, to_json
    from robustgen.data.load import load
    from robustgen.detectors.calibrated import CalibratedDetector, accepts, make
    from robustgen.registry import resolve

    check_free(out, force)
    where = runtime.device(device)
    kind = resolve(DETECTORS, name, "detector")
    options = settings(name, kind, {}, param, elsewhere=("seed",)) | ({"seed": seed} if accepts(name, "seed") else {})
    make(name, options)  # checked before anything is loaded
    through = load_optional(model, weights, mean, std, trust, layer)
    source = load(data, size=size)
    with staged(out, force) as directory:
        with output.epochs(f"fitting {name}", quiet) as progress:
            fitted = CalibratedDetector.fit(
                name,
                source,
                fpr=fpr,
                options=options,
                model=through,
                layer=layer,
                device=where,
                batch_size=batch_size,
                progress=progress,
            )
        summary = fitted.summary() | {"skipped": dict(source.skipped)}
        fitted.save(directory)
        (directory / RESULTS).write_text(to_json(summary), encoding="utf-8")
    output.warn_skipped(source.skipped, quiet)
    tested = fitted.self_test
    if tested is not None:
        output.warn([f"self-test: {warning}" for warning in tested.warnings], quiet)
    if json:
        output.emit(summary)
        return
    output.facts(
        [
            (
                "detector",
                f"{name} on {source.spec.name}, {summary['n_train']} training and {summary['n_calibration']} "
                "calibration inputs",
            ),
            ("threshold", f"{summary['threshold']:.6g}: flags at most {fpr:.2%} of normal inputs in expectation"),
            ("saved in", str(out)),
        ]
    )
    if tested is not None:
        output.table(
            f"self-test on anomalies made of {tested.n} calibration inputs",
            ("made-up anomalies", "AUROC"),
            [(kind, f"{value:.3f}") for kind, value in tested.auroc.items()],
        )
