"""`robustgen detect`: which of these inputs are not normal?"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TextIO

import typer

from robustgen.data import DATA
from robustgen_cli import options as o
from robustgen_cli import output
from robustgen_cli.loading import load_judge, load_optional

if TYPE_CHECKING:
    from robustgen.evaluation.detection import Judge, Verdict
    from robustgen.evaluation.explanation import Explanations

FLAGGED = 3
_SHOWN = 20


def register(app: typer.Typer) -> None:
    app.command("detect")(detect)


def detect(
    detector: Annotated[
        str,
        typer.Argument(
            metavar="DETECTOR",
            help="A directory made by 'robustgen fit' or 'robustgen guard'; leave it out with --guard.",
            show_default=False,
        ),
    ],
    inputs: Annotated[
        str | None,
        typer.Argument(
            metavar="INPUT",
            help="A folder of images, an image, .npz, .npy, .csv, .parquet, or a data name.",
            autocompletion=o.among(DATA),
            show_default=False,
        ),
    ] = None,
    guard: Annotated[
        Path | None,
        typer.Option("--guard", help="A directory made by 'robustgen guard'.", show_default=False),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Write every row to this .csv or .jsonl file.", show_default=False)
    ] = None,
    fpr: Annotated[
        float | None,
        typer.Option(
            "--fpr", parser=o.number, metavar="RATE", help="Another false-alarm rate than it was fitted with."
        ),
    ] = None,
    update: Annotated[
        bool,
        typer.Option(
            "--update",
            help="Let a detector that counts (simhash) take in each batch once it is judged, and keep what it learnt.",
        ),
    ] = False,
    explain: Annotated[
        Path | None,
        typer.Option(
            "--explain",
            help="Directory for explanations of what is flagged: heat-maps of images, columns of tables, one page.",
            show_default=False,
        ),
    ] = None,
    explain_all: Annotated[
        bool, typer.Option("--explain-all", help="With --explain: explain normal inputs too.")
    ] = False,
    explain_most: Annotated[
        int | None,
        typer.Option("--explain-most", min=1, help="With --explain: at most N inputs, 100 by default."),
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

    A guard says which class it predicts too, and of what it rejects what is the matter with it.

    Example: robustgen detect detector/ photos/ --out scores.csv --explain why/

    Example: robustgen detect --guard guard/ photos/
    """
    from robustgen import runtime
    from robustgen.artifacts import check_free, read_artifact, write_atomically
    from robustgen.data.load import load
    from robustgen.detectors.calibrated import CalibratedDetector
    from robustgen.detectors.streaming import as_streaming
    from robustgen.errors import UsageError
    from robustgen.evaluation.detection import detect as judge
    from robustgen.evaluation.detection import familiarity, write_back
    from robustgen.evaluation.explanation import Explanations

    path, inputs = _places(detector, inputs, guard)
    if out is not None and out.suffix not in (".csv", ".jsonl"):
        raise UsageError(f"--out {out} ends in neither .csv nor .jsonl: choose one")
    if out is not None and out.exists() and not force:
        raise UsageError(f"--out {out} exists already: choose another name, or overwrite it with --force")
    if update:
        check_free(path, force=True)  # it will be replaced
    if explain is None and (explain_all or explain_most is not None):
        raise UsageError("--explain-all and --explain-most say what is explained: give --explain DIR too")
    if explain is not None:
        check_free(explain, force, "--explain")
    through = load_optional(model, weights, mean, std, trust)
    where = runtime.device(device)
    before = read_artifact(path, "detector").sha256 if update else ""
    loaded = stored = load_judge(path, through, "guard" if guard is not None else None).to(where)
    if update:
        assert isinstance(loaded, CalibratedDetector)  # its artifact said so
        as_streaming(loaded.detector, loaded.name)  # says so now if it cannot take in anything
    if fpr is not None:
        loaded = loaded.at(fpr)
    source = load(inputs, like=loaded.spec)
    explanations = (
        None if explain is None else Explanations(loaded, explain, most=explain_most or 100, everything=explain_all)
    )
    verdicts = judge(
        loaded,
        source,
        batch_size=batch_size,
        limit=limit,
        update=update,
        explain=explanations or (lambda _, judged: judged),
    )
    total, lines = len(source.rows("test")[:limit]), sys.stdout if json else None
    seen = _Seen()
    with output.counting(f"detecting with {loaded.name}", total, quiet or json) as progress:
        watched = seen.watch(verdicts, lines, progress)
        if out is None:
            deque(watched, maxlen=0)
        else:
            write_atomically(out, partial(_write, verdicts=watched, form=out.suffix[1:]), force)
    if update:
        assert isinstance(stored, CalibratedDetector)
        write_back(stored, path, before)
    if explanations is not None:
        _write_explanations(explanations, force, quiet or json)
    output.warn_skipped(
        source.skipped
    )  # also with --quiet: an input that was not judged must not pass for a normal one
    output.warn(familiarity(loaded, source), quiet)
    if not json:
        _show(loaded, seen, out)
        if explanations is not None:
            _show_explained(explanations)
    if seen.flagged:
        raise typer.Exit(FLAGGED)


def _places(detector: str, inputs: str | None, guard: Path | None) -> tuple[Path, str]:
    """What judges, and the inputs: with --guard there is only one argument, the inputs."""
    from robustgen.errors import UsageError

    if guard is not None:
        if inputs is not None:
            raise UsageError(f"--guard {guard} judges the inputs: leave out the detector {detector}")
        return guard, detector
    if inputs is None:
        raise UsageError("an argument is missing: robustgen detect DETECTOR INPUT, or detect --guard GUARD INPUT")
    return Path(detector), inputs


@dataclass
class _Seen:
    """What has gone by: how many inputs, how many flagged, and those to be shown."""

    n: int = 0
    flagged: int = 0
    shown: list[Verdict] = field(default_factory=list)

    def watch(
        self, verdicts: Iterator[Verdict], lines: TextIO | None, progress: Callable[[float], None]
    ) -> Iterator[Verdict]:
        """Pass verdicts on, as JSON lines to `lines` as well. Raises `DataError` if there are none."""
        from robustgen.errors import DataError
        from robustgen.evaluation.detection import write_verdicts

        for verdict in verdicts:
            self.n += 1
            self.flagged += verdict.flagged
            if len(self.shown) < _SHOWN or (verdict.flagged and len(self.shown) < 2 * _SHOWN):
                self.shown.append(verdict)
            if lines is not None:
                write_verdicts(lines, [verdict], "jsonl")
            progress(1)
            yield verdict
        if not self.n:
            raise DataError("none of the inputs could be read: give others")


def _write(path: Path, verdicts: Iterator[Verdict], form: str) -> None:
    from robustgen.evaluation.detection import write_verdicts

    with path.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file:
        write_verdicts(file, verdicts, form)


def _write_explanations(explanations: Explanations, force: bool, quiet: bool) -> None:
    from robustgen.artifacts import RESULTS, staged, to_json
    from robustgen.report.explanations import write_explanations

    drawn = len(explanations.cases) if explanations.images else 0
    with (
        staged(explanations.folder, force) as directory,
        output.counting("drawing heat-maps", drawn, quiet or not drawn) as progress,
    ):
        write_explanations(directory, explanations, progress)
        summary = explanations.detector.summary()
        summary |= {"explained": len(explanations.cases), "left_out": explanations.left_out}
        (directory / RESULTS).write_text(to_json(summary), encoding="utf-8")
    if explanations.left_out:
        more = f"{explanations.left_out} more would have been explained: raise --explain-most"
        output.warn([f"only the first {len(explanations.cases)} are in {explanations.folder}; {more}"], quiet)


def _show_explained(explanations: Explanations) -> None:
    if not explanations.images and explanations.cases:
        output.table(
            "what raises the score most, as a share of all that raises it",
            ("input", "columns"),
            [
                (
                    case.verdict.input,
                    ", ".join(f"{c.name} {c.share:.0%}" for c in explanations.columns(case)[:3]),
                )
                for case in explanations.cases[:_SHOWN]
            ],
        )
    what = "heat-maps" if explanations.images else "columns"
    output.facts([("explained", f"{len(explanations.cases)} inputs: {what} and index.html in {explanations.folder}")])


def _said(verdict: Verdict) -> str:
    """The channels that reject it, by their names as they are."""
    if not verdict.flagged:
        return "normal"
    return "FLAGGED" if verdict.verdict in (None, "flagged") else str(verdict.verdict)


def _show(detector: Judge, seen: _Seen, out: Path | None) -> None:
    threshold, guarded = detector.threshold, any(v.verdict is not None for v in seen.shown)
    output.table(
        f"{detector.name}, threshold {threshold.value:.6g} at {threshold.fpr:.2%} false alarms",
        ("input", "score", "p-value", "verdict", *(["class"] if guarded else [])),
        [
            (
                v.input,
                f"{v.score:.6g}",
                f"{v.p_value:.4g}",
                _said(v),
                *([v.label or ""] if guarded else []),
            )
            for v in seen.shown
        ],
    )
    expected = f"about {threshold.fpr * seen.n:.1f} would be if all were normal"
    output.facts([("flagged", f"{seen.flagged} of {seen.n} inputs; {expected}")])
    if seen.n > len(seen.shown):
        rest = f", all in {out}" if out else "; --out FILE.csv keeps them all"
        output.facts([("rows", f"{len(seen.shown)} of {seen.n} shown{rest}")])
