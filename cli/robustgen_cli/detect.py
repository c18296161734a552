"""`robustgen detect`: which of these inputs are not normal?"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from robustgen_cli import options as o
from robustgen_cli import output
from robustgen_cli.loading import load_named

FLAGGED = 3
_SHOWN = 20


def register(app: typer.Typer) -> None:
    app.command("detect")(detect)


def detect(
    detector: Annotated[
        Path, typer.Argument(metavar="DETECTOR", help="A directory made by 'robustgen fit'.", show_default=False)
    ],
    inputs: Annotated[
        str,
        typer.Argument(
            metavar="INPUT",
            help="A folder of images, an image, .npz, .npy, .csv, .parquet, or a data name.",
            autocompletion=o.complete_data,
            show_default=False,
        ),
    ],
    out: Annotated[
        Path | None, typer.Option("--out", help="Write every row to this .csv or .jsonl file.", show_default=False)
    ] = None,
    fpr: Annotated[
        float | None,
        typer.Option(
            "--fpr", parser=o.number, metavar="RATE", help="Another false-alarm rate than it was fitted with."
        ),
    ] = None,
    limit: o.Limit = None,
    model: o.OptionalModel = None,
    weights: o.Weights = None,
    mean: o.Mean = None,
    std: o.Std = None,
    trust: o.Trust = False,
    device: o.Device = "auto",
    batch_size: o.BatchSize = 500,
    json: Annotated[bool, typer.Option("--json", help="One JSON object a line on stdout for every input.")] = False,
    quiet: o.Quiet = False,
    force: o.Force = False,
) -> None:
    """Score inputs: anomaly score, p-value and verdict for each. Exit code 3 if any is flagged, 0 if none is.

    Example: robustgen detect detector/ photos/ --out scores.csv
    """
    from robustgen import runtime
    from robustgen.artifacts import write_atomically
    from robustgen.data.load import load
    from robustgen.detectors.calibrated import CalibratedDetector
    from robustgen.errors import DataError, UsageError
    from robustgen.evaluation.detection import detect as judge
    from robustgen.evaluation.detection import write_verdicts

    if out is not None and out.suffix not in (".csv", ".jsonl"):
        raise UsageError(f"--out {out} ends in neither .csv nor .jsonl: choose one")
    if out is not None and out.exists() and not force:
        raise UsageError(f"--out {out} exists already: choose another name, or overwrite it with --force")
    through = None
    if model is not None:
        through = load_named(model, weights, mean, std, trust)
    where = runtime.device(device)
    loaded = CalibratedDetector.load(detector, through).to(where)
    if fpr is not None:
        loaded = loaded.at(fpr)
    source = load(inputs, like=loaded.spec)
    rows = judge(loaded, source, batch_size=batch_size, limit=limit)
    counts = {"n": 0, "flagged": 0}
    shown: list[Any] = []

    def watched() -> Any:
        with output.counting(
            f"detecting with {loaded.name}", len(source.rows("test")[:limit]), quiet or json
        ) as progress:
            for verdict in rows:
                counts["n"] += 1
                counts["flagged"] += verdict.flagged
                progress(1)
                if json:
                    write_verdicts(sys.stdout, [verdict], "jsonl")
                elif len(shown) < _SHOWN or (verdict.flagged and len(shown) < 2 * _SHOWN):
                    shown.append(verdict)
                yield verdict

    if out is None:
        for _ in watched():
            pass
    else:

        def write(path: Path) -> None:
            with path.open("w", newline="", encoding="utf-8") as file:
                write_verdicts(file, watched(), out.suffix[1:])

        write_atomically(out, write, force)
    output.warn_skipped(source.skipped, quiet and not json)
    if not counts["n"]:
        raise DataError(f"none of the inputs in {inputs} could be read: {len(source.skipped)} were skipped")
    if not json:
        output.table(
            f"{loaded.name}, threshold {loaded.threshold.value:.6g} at {loaded.threshold.fpr:.2%} false alarms",
            ("input", "score", "p-value", "verdict"),
            [(v.input, f"{v.score:.6g}", f"{v.p_value:.4g}", "FLAGGED" if v.flagged else "normal") for v in shown],
        )
        output.facts(
            [
                (
                    "flagged",
                    f"{counts['flagged']} of {counts['n']} inputs; about {loaded.threshold.fpr * counts['n']:.1f} "
                    "would be if all were normal",
                ),
                *(
                    [
                        (
                            "rows",
                            f"{len(shown)} of {counts['n']} shown"
                            + (f", all in {out}" if out else "; --out FILE.csv keeps them all"),
                        )
                    ]
                    if counts["n"] > len(shown)
                    else []
                ),
            ]
        )
    if counts["flagged"]:
        raise typer.Exit(FLAGGED)
