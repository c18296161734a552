"""`robustgen fit`: a calibrated detector."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from robustgen.detectors import DETECTORS
from robustgen.detectors.art_names import ART_DETECTORS, PREFIX
from robustgen.detectors.auto import AUTO, choice
from robustgen_cli import options as o
from robustgen_cli import output
from robustgen_cli.loading import load_optional
from robustgen_cli.parameters import settings

if TYPE_CHECKING:
    from robustgen.data.source import Source
    from robustgen.detectors.calibrated import CalibratedDetector


def register(app: typer.Typer) -> None:
    app.command("fit")(fit)


def fit(
    name: Annotated[
        str,
        typer.Argument(
            metavar="DETECTOR",
            help="One of 'robustgen list detectors', art:NAME, pyod:NAME, or auto: by the shape of the data.",
            autocompletion=o.among([AUTO, *DETECTORS, *(f"{PREFIX}{name}" for name in ART_DETECTORS)]),
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
    preset: Annotated[
        str | None,
        typer.Option(
            "--preset",
            metavar="fast|default|best",
            help="How long to train, for detectors that are trained in steps.",
            show_default="default",
        ),
    ] = None,
    epochs: o.Epochs = None,
    features: Annotated[
        Path | None,
        typer.Option(
            "--features",
            metavar="DETECTOR",
            help="Look at the code of this detector, made by fit, instead of the input itself.",
            show_default=False,
        ),
    ] = None,
    other: Annotated[
        str | None,
        typer.Option(
            "--other",
            metavar="DATA|attack:NAME:EPS[:NORM]",
            help="The second domain, for cycle-gan: other data, or what an attack on --model makes of the training "
            "inputs, such as attack:pgd:0.1.",
            show_default=False,
        ),
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

    A killed run goes on from its last checkpoint when the same command is given again. With --model it judges what
    enters a layer of that classifier instead of the input itself (conditional-vae, conditional-gan and gat: the input
    against the class that the classifier predicts; cycle-gan: what it says before and after purifying), and with
    --features the code of another detector, such as an autoencoder.

    Example: robustgen fit autoencoder --data fashion-mnist --fpr 0.05 --out detector/
    """
    from robustgen import runtime
    from robustgen.artifacts import RESULTS, check_free, read_artifact, staged, to_json
    from robustgen.data.load import load
    from robustgen.detectors.calibrated import CalibratedDetector
    from robustgen.detectors.making import accepts, declared, make
    from robustgen.errors import UsageError
    from robustgen.evaluation.domains import check_other, with_other
    from robustgen.evaluation.robustness import fingerprint

    check_free(out, force)
    where = runtime.device(device)
    if features is not None and model is not None:
        raise UsageError("--model and --features are both given: a detector looks through one of them")
    codec = None if features is None else CalibratedDetector.load(features)
    chosen = name == AUTO
    if chosen:  # its options are known only once the data are
        through = load_optional(model, weights, mean, std, trust, layer)
        source = load(data, size=size)
        name = choice(source.spec.shape if through is None and codec is None else (1,))
    given = {"preset": preset, "epochs": o.count_of(epochs)}
    for option in [option for option, value in given.items() if value is not None and not accepts(name, option)]:
        said = f"--{option} is how long a detector trains, and {name} has no such option"
        if not chosen:
            raise UsageError(f"{said}: leave it out")
        output.warn([f"{said}: it is left out"], quiet)
        given[option] = None
    options = settings(name, declared(name), given, param, elsewhere=("seed",)) | (
        {"seed": seed} if accepts(name, "seed") else {}
    )
    check_other(make(name, options), name, other)  # checked before anything is loaded
    if not chosen:
        through = load_optional(model, weights, mean, std, trust, layer)
        source = load(data, size=size)
    if other is not None:
        with output.counting(f"making the inputs of {other}", None, quiet) as counted:
            source = with_other(source, other, through, seed, counted)
    key = fingerprint(
        command="fit",
        detector=name,
        options=options,
        data=source.spec.sha256,
        model=None if through is None else through.sha256,
        layer=layer,
        features=None if features is None else read_artifact(features, "detector").sha256,
        device=str(where),
    )
    with staged(out, force, key) as directory:
        checkpoint = directory / "checkpoint.pt"
        with output.epochs(f"fitting {name}", quiet) as progress:
            fitted = CalibratedDetector.fit(
                name,
                source,
                fpr=fpr,
                options=options,
                model=through,
                layer=layer,
                codec=codec,
                device=where,
                batch_size=batch_size,
                checkpoint=checkpoint,
                progress=progress,
            )
        summary = fitted.summary() | {"skipped": dict(source.skipped)}
        fitted.save(directory)
        _save_report(directory, fitted, source, seed, quiet)
        (directory / RESULTS).write_text(to_json(summary), encoding="utf-8")
        checkpoint.unlink(missing_ok=True)
    output.warn_skipped(source.skipped, quiet)
    if fitted.raw is not None:
        output.warn(fitted.raw.warnings, quiet)
    output.warn([f"training: {warning}" for warning in summary["training_warnings"]], quiet)
    tested = fitted.self_test
    if tested is not None:
        output.warn([f"self-test: {warning}" for warning in tested.warnings], quiet)
    if json:
        output.emit(summary)
        return
    facts = summary["facts"]
    eyes = "" if codec is None else f"codes of {codec.name} on "
    output.facts(
        [
            (
                "detector",
                f"{name}{f' (by {AUTO})' if chosen else ''} on {eyes}{source.spec.name}, {summary['n_train']} training "
                f"and {summary['n_calibration']} calibration inputs",
            ),
            ("threshold", f"{summary['threshold']:.6g}: flags at most {fpr:.2%} of normal inputs in expectation"),
            *([("training", summary["training"])] if summary["training"] else []),
            *([("facts", ", ".join(f"{name} {value:.4g}" for name, value in facts.items()))] if facts else []),
            ("saved in", str(out)),
            ("report", str(out / "report.html")),
        ]
    )
    if fitted.raw is not None:
        output.table(
            f"AUROC of made-up foreign inputs against {fitted.raw.n} held-out ones",
            ("foreign inputs", "raw likelihood (-ELBO)", "this score"),
            [(kind, f"{value:.3f}", f"{fitted.raw.score[kind]:.3f}") for kind, value in fitted.raw.raw.items()],
        )
        output.facts([("why", fitted.raw.reason)])
    if tested is not None:
        output.table(
            f"self-test on anomalies made of {tested.n} calibration inputs",
            ("made-up anomalies", "AUROC"),
            [(kind, f"{value:.3f}") for kind, value in tested.auroc.items()],
        )


def _save_report(directory: Path, fitted: CalibratedDetector, source: Source, seed: int, quiet: bool) -> None:
    from robustgen.report.detector_page import detector_page
    from robustgen.report.page import render

    with output.stages(quiet) as stage:
        command = shlex.join(["robustgen", *sys.argv[1:]])
        page = detector_page(fitted, source, command, seed, lambda what: stage(f"report: {what}", 0.5))
        (directory / "report.html").write_text(render(page), encoding="utf-8")
