"""`robustgen interpolate`: from one input to another by way of their codes."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from robustgen.data import DATA
from robustgen_cli import options as o
from robustgen_cli import output

if TYPE_CHECKING:
    from torch import Tensor

    from robustgen.data.source import DataSpec, Indices, Source
    from robustgen.detectors.calibrated import CalibratedDetector
    from robustgen.evaluation.interpolation import Course


def register(app: typer.Typer) -> None:
    app.command("interpolate")(interpolate)


def interpolate(
    detectors: Annotated[
        list[Path],
        typer.Argument(
            metavar="DETECTOR...", help="Directories made by 'robustgen fit', one or more.", show_default=False
        ),
    ],
    inputs: Annotated[
        str,
        typer.Argument(
            metavar="INPUT",
            help="A folder of images, .npz, .npy, .csv, .parquet, or a data name.",
            autocompletion=o.among(DATA),
            show_default=False,
        ),
    ],
    rows: Annotated[
        o.Counts | None,
        typer.Option(
            "--rows",
            parser=o.counts,
            metavar="I,J",
            help="A path between these two, counted from 0 among the inputs that detect would go through.",
            show_default=False,
        ),
    ] = None,
    corners: Annotated[
        o.Counts | None,
        typer.Option(
            "--corners",
            parser=o.counts,
            metavar="I,J,K,L",
            help="A grid between these four: top left, top right, bottom left, bottom right.",
            show_default=False,
        ),
    ] = None,
    pairs: Annotated[
        int | None,
        typer.Option("--pairs", min=1, help="Mean numbers over N paths between inputs drawn at random."),
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(
            "--steps", min=3, help="Inputs of a path, by default 9, or along each side of a grid, by default 7."
        ),
    ] = None,
    along: Annotated[
        str,
        typer.Option(
            "--along",
            help="Through the codes in a line, or in an arc, which suits codes with a Gaussian prior.",
            autocompletion=o.among(("line", "arc")),
        ),
    ] = "line",
    judge: Annotated[
        Path | None,
        typer.Option(
            "--judge",
            metavar="DETECTOR",
            help="Another detector to say how plausible each input of the way is; by default each judges all.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Draw the ways into this .png file.", show_default=False)
    ] = None,
    device: o.Device = "auto",
    seed: o.Seed = 0,
    batch_size: o.BatchSize = 500,
    json: o.Json = False,
    quiet: o.Quiet = False,
    force: o.Force = False,
) -> None:
    """Walk from input to input through the codes of one or more detectors, side by side, and say how smooth and how
    plausible the way is, beside the plain average of pixels.

    Unevenness is the largest step by the mean step (1 = even), detour the length by the distance of the ends (1 =
    straight), cycle how far a decoded code is from its own code, in units of the way; p is the p-value along it, and
    straight that of the straight line between its decoded ends. A detector finds what it made itself too normal: let
    another one judge.

    Example: robustgen interpolate ae/ vae/ fashion-mnist --corners 0,1,2,3 --judge knn/ --out grid.png
    """
    from robustgen import runtime
    from robustgen.artifacts import write_atomically
    from robustgen.data.load import load
    from robustgen.detectors.calibrated import CalibratedDetector
    from robustgen.errors import UsageError
    from robustgen.evaluation.interpolation import grids, paths

    if sum(given is not None for given in (rows, corners, pairs)) != 1:
        raise UsageError("give one of --rows I,J, --corners I,J,K,L and --pairs N")
    if out is not None:
        if pairs is not None:
            raise UsageError("--pairs gives numbers, not a picture: leave out --out")
        output.require_free_file(out, (".png",), force)
    where = runtime.device(device)
    loaded = _named([CalibratedDetector.load(path).to(where) for path in detectors], detectors)
    judges = None if judge is None else _named([CalibratedDetector.load(judge).to(where)], [judge])
    spec = _one_form([*loaded.values(), *(judges or {}).values()])
    source = load(inputs, like=spec)
    chosen, x = _inputs(source, rows, corners, pairs, seed)
    with output.working():
        if corners is not None:
            found = grids(loaded, x, steps or 7, along, judges, batch_size)  # type: ignore[arg-type]
        else:
            half = len(x) // 2
            found = paths(loaded, x[:half], x[half:], steps or 9, along, judges, batch_size)  # type: ignore[arg-type]
        if out is not None:
            from robustgen.report.interpolations import corner_grids, path_strip

            names = ", ".join(map(_said, rows or corners or (), map(source.label, chosen)))
            draw = corner_grids if corners is not None else path_strip
            figure = draw(found, spec, f"inputs {names} of {source.spec.name}")
            write_atomically(out, partial(figure.savefig, dpi=150, format="png"), force)
    output.warn_skipped(source.skipped, quiet)
    summary = {
        "data": source.spec.name,
        "data_sha256": source.spec.sha256,
        "form": "grid" if corners is not None else "paths",
        "inputs": [source.label(row) for row in chosen] if pairs is None else None,
        "along": along,
        "steps": found[0].x.shape[1],
        "ways": [one.summary() for one in found],
    }
    if json:
        output.emit(summary)
        return
    _show(found, "rows of a grid" if corners is not None else "path" if pairs in (None, 1) else "paths")
    if out is not None:
        output.facts([("drawn in", str(out))])


def _named(detectors: list[CalibratedDetector], paths: list[Path]) -> dict[str, CalibratedDetector]:
    """By what they are, or by their folder's name where two would be called the same."""
    names = [detector.name for detector in detectors]
    if len(set(names)) < len(names):
        names = [path.resolve().name for path in paths]
    if len(set(names)) < len(names):
        names = [str(path) for path in paths]
    return dict(zip(names, detectors, strict=True))


def _one_form(detectors: list[CalibratedDetector]) -> DataSpec:
    from robustgen.detectors.codes import require_form

    for detector in detectors[1:]:
        require_form(detectors[0].spec, detector.spec)
    return detectors[0].spec


def _inputs(
    source: Source, rows: o.Counts | None, corners: o.Counts | None, pairs: int | None, seed: int
) -> tuple[Indices, Tensor]:
    """The row numbers, and the inputs there: first all starts, then all ends. Raises `UsageError` for inputs that there
    are not, `DataError` for those that cannot be read.
    """
    import numpy as np

    from robustgen.errors import DataError, UsageError

    there = source.rows("test")
    if pairs is not None:
        if len(there) < 2:
            raise UsageError(f"a path leads between two inputs, but {source.spec.name!r} has {len(there)}")
        random = np.random.Generator(np.random.PCG64(seed))
        starts = random.integers(len(there), size=pairs)
        wanted = np.concatenate([starts, (starts + random.integers(1, len(there), size=pairs)) % len(there)])
    else:
        option, count, given = ("--rows", 2, rows) if corners is None else ("--corners", 4, corners)
        wanted = np.array(given)
        if len(wanted) != count or len(set(wanted.tolist())) < count:
            raise UsageError(f"{option} takes {count} different numbers, but {','.join(map(str, given or ()))} came")
        if wanted.max() >= len(there):
            raise UsageError(f"{source.spec.name!r} has the inputs 0 to {len(there) - 1}, but {wanted.max()} came")
    chosen = there[wanted]
    batch = source.read(chosen)
    if len(batch) < len(chosen):
        raise DataError(f"some of these inputs cannot be read ({', '.join(source.skipped)}): choose others")
    return chosen, batch.x


def _said(number: int, label: str) -> str:
    """An input by the number that was asked for, and its name if it has one."""
    return str(number) if label.isdigit() else f"{number} ({label})"


def _show(found: list[Course], what: str) -> None:
    judges = list(found[0].p_values)
    rows = []
    for one in found:
        said = one.summary()
        cells = [one.name, f"{said['unevenness']:.3f}", f"{said['detour']:.3f}"]
        cells.append("" if said["cycle"] is None else f"{said['cycle']:.3f}")
        for judge in judges:
            seen = said["judges"][judge]
            straight = seen["median_p_value_straight"]
            cells += [f"{seen['median_p_value']:.3f}", "" if straight is None else f"{straight:.3f}"]
            cells.append(f"{seen['flagged']:.1%}")
        rows.append(cells)
    measures = [f"{kind}{judge}" for judge in judges for kind in ("p, ", "p straight, ", "flagged, ")]
    title = f"{len(found[0].steps)} {what} of {found[0].x.shape[1]} inputs; median p-values between the ends"
    across = list(zip(("unevenness", "detour", "cycle error", *measures), *(row[1:] for row in rows), strict=True))
    output.table(title, ("", *(row[0] for row in rows)), across)
