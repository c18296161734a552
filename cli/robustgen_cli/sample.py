"""`robustgen sample`: new inputs from a generative detector."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from robustgen_cli import options as o
from robustgen_cli import output

if TYPE_CHECKING:
    from torch import Tensor

    from robustgen.data.source import DataSpec
    from robustgen.detectors.calibrated import CalibratedDetector, Verdicts
    from robustgen.evaluation.frechet import FrechetDistance

_MOST_MIXED = 12


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
    truncation: Annotated[
        float,
        typer.Option(
            "--truncation",
            parser=o.number,
            metavar="FACTOR",
            help="Of gan and style-gan: below 1, nearer to the usual inputs, and more alike.",
        ),
    ] = 1.0,
    mixing: Annotated[
        bool,
        typer.Option(
            "--mix", help="Of style-gan: a grid of every two samples' styles mixed, --n of them (at most 12)."
        ),
    ] = False,
    label: Annotated[
        str | None,
        typer.Option(
            "--label",
            metavar="CLASS",
            help="Of detectors that know classes: inputs of this one, by its name or number; else of all in turn.",
            show_default=False,
        ),
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(
            "--against",
            metavar="DATA",
            help="Measure how far the samples are from these inputs: the Fréchet distance (FID).",
            show_default=False,
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            help="With --against: a classifier of the data, whose features count where those of FID are not at hand.",
            show_default=False,
        ),
    ] = None,
    device: o.Device = "auto",
    seed: o.Seed = 0,
    json: o.Json = False,
    quiet: o.Quiet = False,
    force: o.Force = False,
) -> None:
    """Draw new inputs from a detector that holds a generative model, and have it judge them.

    The .npz file is data again: x holds the inputs, a table's columns in their own units, and y the classes that were
    asked for. A Fréchet distance is printed
    with that of as many real inputs to other real ones: it depends on the features and on --n.

    Example: robustgen sample vae/ --n 64 --out samples.png
    """
    from robustgen import runtime
    from robustgen.artifacts import write_atomically
    from robustgen.detectors.calibrated import CalibratedDetector
    from robustgen.errors import UsageError
    from robustgen.evaluation.sampling import draw, drawn_labels, mix

    output.require_free_file(out, (".png", ".npz"), force)
    if model is not None and against is None:
        raise UsageError("--model names the features to compare by: give --against DATA too, or leave it out")
    if mixing and (n > _MOST_MIXED or truncation != 1 or against is not None or label is not None):
        raise UsageError(
            f"--mix draws a grid of at most --n {_MOST_MIXED}, without --truncation, --label and --against"
        )
    loaded = CalibratedDetector.load(detector).to(runtime.device(device))
    number = None if label is None else _class(loaded, label)
    with output.working():
        x = mix(loaded, n, seed).flatten(0, 1) if mixing else draw(loaded, n, seed, truncation, number)
        y = None if mixing else drawn_labels(loaded, n, number)
        distance = None if against is None else _distance(loaded, x, against, model)
        judged = loaded.judge(x)
        write = _write_picture if out.suffix == ".png" else _write_arrays
        write_atomically(out, partial(write, x=x, y=y, judged=judged, spec=loaded.spec, mixed=mixing), force)
    summary = {
        "detector": loaded.name,
        "data": loaded.spec.name,
        "n": len(x),
        "seed": seed,
        "truncation": truncation,
        "mixed": mixing,
        "label": number,
        "flagged": int(judged.flagged.sum()),
        "fpr": loaded.threshold.fpr,
        "frechet": None if distance is None else distance.to_json(),
        "out": str(out),
    }
    if json:
        output.emit(summary)
        return
    if distance is not None and distance.n < distance.dimensions:
        output.warn(
            [
                f"{distance.n} samples are fewer than the {distance.dimensions} features, so that even real inputs are "
                f"{distance.real:.3g} from each other: take --n {2 * distance.dimensions} or more where the data has "
                "twice as many"
            ],
            quiet,
        )
    expected = f"about {loaded.threshold.fpr * len(x):.1f} of as many normal inputs would be"
    output.facts(
        [
            ("samples", f"{len(x)} by {loaded.name}, as of {loaded.spec.name}"),
            ("flagged", f"{summary['flagged']} by itself; {expected}"),
            *(
                []
                if distance is None
                else [
                    ("Fréchet distance", f"{distance.distance:.4g} to {distance.n} of {against}"),
                    ("real to real", f"{distance.real:.4g}, as many each"),
                    ("features", f"{distance.dimensions} of {distance.features}"),
                ]
            ),
            ("saved in", str(out)),
        ]
    )


def _distance(loaded: CalibratedDetector, x: Tensor, against: str, model: str | None) -> FrechetDistance:
    from robustgen.data.load import load
    from robustgen.detectors.through import answer
    from robustgen.errors import DataError
    from robustgen.evaluation.frechet import compare, embedding
    from robustgen.models.load import load_model

    if loaded.spec.kind != "image":
        raise DataError(f"{loaded.spec.name!r} holds no images: a Fréchet distance is one of images' features")
    classifier = None if model is None else load_model(model)
    if classifier is not None:
        answer(classifier, loaded.spec, loaded.device)
    embed, features = embedding(classifier, loaded.device)
    source = load(against, like=loaded.spec)
    real = source.read(source.spread("test", 2 * len(x))).x
    return compare(x, real, embed, features)


def _class(loaded: CalibratedDetector, label: str) -> int:
    """The number of the class that `label` names, or is."""
    from robustgen.errors import UsageError

    classes = [str(name) for name in loaded.spec.classes]
    if label in classes:
        return classes.index(label)
    if label.isdecimal():
        return int(label)
    raise UsageError(f"{loaded.spec.name!r} has the classes {', '.join(classes) or 'none'}, but --label {label} came")


def _write_picture(path: Path, x: Tensor, y: Tensor | None, judged: Verdicts, spec: DataSpec, mixed: bool) -> None:
    from robustgen.errors import DataError
    from robustgen.evaluation.compression import unit
    from robustgen.report.samples import mixing_sheet, sample_sheet

    if spec.kind != "image":
        raise DataError(f"{spec.name!r} holds no images, so there is nothing to draw: write a .npz file")
    if spec.shape[0] not in (1, 3):
        raise DataError(f"images of {spec.shape[0]} channels cannot be drawn, only of 1 or 3: write a .npz file")
    if mixed:
        n = round(len(x) ** 0.5)
        figure = mixing_sheet(unit(x, spec).reshape(n, n, *x.shape[1:]))
    else:
        names = [] if y is None else [spec.classes[k] if k < len(spec.classes) else str(k) for k in y.tolist()]
        figure = sample_sheet(
            unit(x, spec), f"as of {spec.name}", judged.p_value.tolist(), judged.flagged.tolist(), names
        )
    figure.savefig(path, dpi=150, format="png")


def _write_arrays(path: Path, x: Tensor, y: Tensor | None, judged: Verdicts, spec: DataSpec, mixed: bool) -> None:
    import numpy as np

    from robustgen.evaluation.sampling import in_own_units

    with path.open("wb") as file:
        arrays: dict[str, Any] = {"x": in_own_units(x, spec).numpy(), "score": judged.score, "p_value": judged.p_value}
        np.savez_compressed(file, **(arrays if y is None else arrays | {"y": y.numpy()}))
