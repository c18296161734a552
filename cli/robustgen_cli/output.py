"""What the user sees: results on stdout; progress, notes and errors on stderr."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TaskProgressColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text


def plain(text: str) -> str:
    """`text` with control characters escaped: names come from files and must not steer the terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def stderr() -> Console:
    """The console for everything that is not the result."""
    return Console(stderr=True, highlight=False, soft_wrap=True)


def warn(messages: Sequence[str], quiet: bool = False) -> None:
    """Say what the user should know, one line each."""
    if not quiet:
        for message in messages:
            stderr().print(plain(f"warning: {message}"), style="yellow", markup=False)


def note(text: str, quiet: bool = False) -> None:
    """One line on how the work goes."""
    if not quiet:
        stderr().print(plain(text), markup=False)


def warn_skipped(skipped: Mapping[str, str], quiet: bool = False) -> None:
    """Inputs that could not be read, by name: always counted, named up to ten."""
    if skipped:
        named = [f"skipped {name}: {reason}" for name, reason in list(skipped.items())[:10]]
        warn(
            [
                *named,
                *([f"... and {len(skipped) - 10} more"] if len(skipped) > 10 else []),
                f"{len(skipped)} inputs could not be read and were skipped",
            ],
            quiet,
        )


def require_free_file(out: Path, forms: Sequence[str], force: bool) -> None:
    """Raise `UsageError` unless `out` is of one of the `forms` and may be written: before the work, not after."""
    from robustgen.errors import UsageError

    if out.suffix not in forms:
        raise UsageError(f"{out} does not end in {' or '.join(forms)}: choose such a name")
    if out.is_dir():
        raise UsageError(f"{out} is a folder: name a file")
    if out.exists() and not force:
        raise UsageError(f"{out} exists already: choose another name, or overwrite it with --force")


def emit(values: Mapping[str, Any]) -> None:
    """One JSON object on stdout."""
    from robustgen.artifacts import to_json

    sys.stdout.write(to_json(values) + "\n")


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table on stdout; all columns but the first are right-aligned."""
    grid = Table(title=Text(plain(title)), title_justify="left", title_style="bold")
    for number, column in enumerate(columns):
        grid.add_column(column, justify="right" if number else "left", overflow="fold")
    for row in rows:
        grid.add_row(*(Text(plain(cell)) for cell in row))
    Console(highlight=False).print(grid)


def facts(pairs: Sequence[tuple[str, str]]) -> None:
    """Names and values, one pair a line, on stdout."""
    width = max(len(name) for name, _ in pairs)
    for name, value in pairs:
        sys.stdout.write(f"{name:<{width}}  {plain(value)}\n")


def heading(text: str) -> None:
    """A line above a group, bold on a terminal."""
    Console(highlight=False).print(text, style="bold", markup=False)


@contextmanager
def working() -> Iterator[None]:
    """Whatever runs in here, the user's own model too, may print: stdout is for the result alone."""
    with redirect_stdout(sys.stderr):
        yield


@contextmanager
def _bar(quiet: bool, *columns: str | ProgressColumn) -> Iterator[Progress]:
    """A progress bar on the terminal while it works, and gone after: then the result or one line of error follows."""
    console = stderr()
    with (
        working(),
        Progress(*columns, console=console, disable=quiet or not console.is_terminal, transient=True) as bar,
    ):
        yield bar


@contextmanager
def counting(label: str, total: int | None, quiet: bool) -> Iterator[Callable[[float], None]]:
    """A progress bar over `total` inputs; yields the function that advances it."""
    times = (TimeElapsedColumn(), TimeRemainingColumn())
    with _bar(quiet, "{task.description}", BarColumn(), MofNCompleteColumn(), *times) as bar:
        task = bar.add_task(escape(label), total=total)
        yield lambda done: bar.update(task, advance=done)


@contextmanager
def epochs(label: str, quiet: bool) -> Iterator[Callable[[int, int, float], None]]:
    """A progress bar over the epochs of a training run."""
    times = (TimeElapsedColumn(), TimeRemainingColumn())
    with _bar(quiet, "{task.description}", BarColumn(), TaskProgressColumn(), *times) as bar:
        task = bar.add_task(escape(label), total=None)

        def advance(done: int, of: int, loss: float) -> None:
            text = escape(f"{label}: epoch {done}/{of}, loss {loss:.4g}")
            bar.update(task, total=of, completed=done, description=text)

        yield advance


@contextmanager
def stages(quiet: bool) -> Iterator[Callable[[str, float], None]]:
    """One bar for a job of several stages; yields a function of the stage's name and the share done of the whole."""
    with _bar(quiet, BarColumn(), TaskProgressColumn(), TimeElapsedColumn(), "{task.description}") as bar:
        task = bar.add_task("starting", total=1.0)
        yield lambda name, share: bar.update(task, description=escape(name), completed=share)
