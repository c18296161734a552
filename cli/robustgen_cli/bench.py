"""`robustgen bench`: whole suites of measurements, resumable, with a leaderboard."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from robustgen.bench import SUITES
from robustgen_cli import options as o
from robustgen_cli import output

if TYPE_CHECKING:
    from robustgen.bench.runner import News, Outcome
    from robustgen.bench.work import Job

_NAMED = 10  # failures that are told in full


def register(app: typer.Typer) -> None:
    app.command("bench")(bench)


def bench(
    suite: Annotated[
        str | None,
        typer.Argument(
            metavar="SUITE",
            help="One of 'robustgen list suites', or a .toml file of your own.",
            autocompletion=o.among(SUITES),
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            help="Directory for the results; a run that was stopped goes on there.",
            show_default="bench-SUITE",
        ),
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(
            "--only",
            metavar="PATTERN",
            help="Run only cells whose name has this in it, or matches it as a pattern with *, and what they need; may "
            "be repeated.",
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List the cells and what is stored of them; run none.")
    ] = False,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Go on in --out although the suite has changed; cells that have not are kept."),
    ] = False,
    take: Annotated[
        list[Path] | None,
        typer.Option(
            "--take",
            metavar="DIRECTORY",
            help="Take over finished cells from other results, such as another machine's part (--only) of the suite; "
            "may be repeated.",
        ),
    ] = None,
    jobs: Annotated[
        int, typer.Option("--jobs", min=1, help="Cells at a time, each in a process with its share of the threads.")
    ] = 1,
    compare: Annotated[
        tuple[Path, Path] | None,
        typer.Option(
            "--compare",
            metavar="OLD NEW",
            help="Two results of a suite: what differs by more than the intervals. Runs nothing; gates are put to NEW.",
        ),
    ] = None,
    fail_under: Annotated[
        list[str] | None,
        typer.Option(
            "--fail-under",
            metavar="[ROWS:]METRIC=VALUE",
            help="End with exit code 1 if a row of the leaderboard is below; may be repeated. ROWS: only rows whose "
            "name has this in it.",
        ),
    ] = None,
    fail_over: Annotated[
        list[str] | None,
        typer.Option("--fail-over", metavar="[ROWS:]METRIC=VALUE", help="The same for what is to be low, as success."),
    ] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, help="At most N test inputs a cell: to try a suite out.")
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option("--seed", min=0, max=2**32 - 1, help="This seed instead of the suite's.", show_default=False),
    ] = None,
    device: o.Device = "auto",
    precision: o.Precision = "float32",
    json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """Run a suite of measurements and rank what was measured.

    Every cell (such as one detector against one classifier from one seed) is stored under the hash of its
    configuration as soon as it is done, and never run twice: give the same command again after an interruption. At the
    end there are a page (index.html), leaderboard.md and leaderboard.json, of all cells that are done.

    Example: robustgen bench quick --out results/
    """
    from robustgen import runtime
    from robustgen.bench.cell import Means
    from robustgen.bench.claim import claim
    from robustgen.bench.compare import compared, read_rows
    from robustgen.bench.gates import check_gates, gates, judge, rows_of
    from robustgen.bench.leaderboard import leaderboard, write
    from robustgen.bench.runner import plan, run
    from robustgen.bench.store import Store
    from robustgen.bench.suite import find
    from robustgen.errors import RobustgenError, UsageError
    from robustgen.evaluation.bundles import check_precision

    limits = gates(fail_under, fail_over)
    if compare is not None:
        differ = compared(*compare)
        missed = judge(read_rows(compare[1]), limits)
        _compare(differ, missed, json)
        if missed:
            raise RobustgenError("; ".join(missed))
        return
    if suite is None:
        raise UsageError(f"name a suite: {', '.join(SUITES)}, or a .toml file; or --compare OLD NEW")
    where = runtime.device(device)
    check_precision(precision)
    means = Means(where, o.precision_on(precision, where, quiet))
    with output.working():
        chosen = find(suite, limit=limit, seed=seed)
        check_gates(chosen, limits)
        cells = plan(chosen, only or ())
    root = out if out is not None else Path(f"bench-{chosen.name}")
    store, others = Store(root), [Store(other).existing() for other in take or ()]
    claim(chosen, store, resume, write=not dry_run)
    if dry_run:
        _list(cells, store, others, json)
        return
    taken = sum(store.take(other, [job.key for job in cells]) for other in others)
    runtime.keep_freed_memory()
    with _progress(quiet) as (told, share):
        outcome = run(cells, root, processes=jobs, means=means, told=told, progress=share)
    found = leaderboard(chosen, store)
    write(found, root, shlex.join(["robustgen", *sys.argv[1:]]))
    missed = judge(rows_of(found.boards), limits)
    if json:
        output.emit(found.to_json() | {"run": _ran(outcome) | {"taken": taken}, "missed": missed})
    else:
        for board in found.boards:
            output.table(board.title, *board.brief())
        more = f", {taken} of them taken over" if taken else ""
        output.facts([("cells", _said(outcome) + more), ("page", str((root / "index.html").resolve()))])
    _tell_failures(outcome, store)
    if missed:
        raise RobustgenError("; ".join(missed))
    if outcome.failed:
        raise RobustgenError(f"{len(outcome.failed)} cells could not be done: give the command again to retry them")


def _list(jobs: list[Job], store: Any, others: list[Any], json: bool) -> None:
    """What is stored, here or in `others` ("elsewhere"), and what would run."""
    from robustgen.bench.runner import state, wanted

    states = [state(store, job, others) for job in jobs]
    due = {job.key for job in wanted(jobs, states)}
    cells = [
        {"cell": job.label, "key": job.key, "state": found, "runs": job.key in due}
        for job, found in zip(jobs, states, strict=True)
    ]
    if json:
        output.emit({"cells": cells, "would_run": len(due)})
        return
    rows = [(str(cell["cell"]), str(cell["state"]), "yes" if cell["runs"] else "no") for cell in cells]
    output.table("Cells, each after those it needs", ("cell", "stored", "would run"), rows)
    output.facts([("would run", f"{len(due)} of {len(cells)}")])


def _progress(quiet: bool) -> Any:
    """A bar over the cells, and a line for each that ends."""
    from contextlib import contextmanager

    @contextmanager
    def both() -> Any:
        with output.stages(quiet) as stage:
            over, of, label = 0, 1, ""

            def told(news: News) -> None:
                nonlocal over, of, label
                over, of, label = news.over, max(news.of, 1), news.job.label
                stage(f"{news.over + 1}/{news.of} {news.job.label}", news.over / max(news.of, 1))
                if news.ended is not None:
                    said = "failed" if news.ended.error is not None else f"{news.ended.seconds:.1f} s"
                    output.note(f"[{news.over}/{news.of}] {news.job.label}: {said}", quiet)

            def share(part: float) -> None:
                stage(f"{over + 1}/{of} {label}", (over + part) / of)

            yield told, share

    return both()


def _compare(found: Any, missed: list[str], json: bool) -> None:
    from robustgen.bench.figures import METRICS, written

    if json:
        output.emit(found.to_json() | {"missed": missed})
        return
    rows = [
        (
            one.row,
            METRICS[one.metric].words,
            written(one.old, METRICS[one.metric].form),
            written(one.new, METRICS[one.metric].form),
            one.verdict,
        )
        for one in found.differences
    ]
    if rows:
        output.table("Beyond the intervals", ("row", "metric", "old", "new", ""), rows)
    pairs = [("compared", f"{found.compared} figures, {len(rows)} differ by more than their intervals")]
    pairs += [("only in the old", name) for name in found.only_old] + [
        ("only in the new", name) for name in found.only_new
    ]
    output.facts(pairs)


def _ran(outcome: Outcome) -> dict[str, Any]:
    return {"done_before": outcome.before, "done_now": outcome.now, "failed": outcome.failed}


def _said(outcome: Outcome) -> str:
    failed = f", {len(outcome.failed)} failed" if outcome.failed else ""
    return f"{outcome.now} done now, {outcome.before} were done before{failed}"


def _tell_failures(outcome: Outcome, store: Any) -> None:
    """One line for each of the first failures: always, as with what is skipped."""
    shown = [f"{label}: {error}" for label, error in list(outcome.failed.items())[:_NAMED]]
    more = [f"... and {len(outcome.failed) - _NAMED} more"] if len(outcome.failed) > _NAMED else []
    output.warn([*shown, *more])
