"""What the user sees: results on stdout; progress, notes and errors on stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from robustgen.errors import UsageError


def stderr() -> Console:
    """The console for everything that is not the result."""
    return Console(stderr=True, highlight=False, soft_wrap=True)


def warn(messages: Sequence[str], quiet: bool = False) -> None:
    """Say what the user should know, one line each."""
    if not quiet:
        for message in messages:
            stderr().print(f"warning: {message}", style="yellow", markup=False)


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


def emit(values: Mapping[str, Any]) -> None:
    """One JSON object on stdout."""
    from robustgen.artifacts import to_json

    sys.stdout.write(to_json(values) + "\n")


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table on stdout; all columns but the first are right-aligned."""
    grid = Table(title=title, title_justify="left", title_style="bold")
    for number, column in enumerate(columns):
        grid.add_column(column, justify="right" if number else "left", overflow="fold")
    for row in rows:
        grid.add_row(*row)
    Console(highlight=False).print(grid)


def facts(pairs: Sequence[tuple[str, str]]) -> None:
    """Names and values, one pair a line, on stdout."""
    width = max(len(name) for name, _ in pairs)
    for name, value in pairs:
        sys.stdout.write(f"{name:<{width}}  {value}\n")


@contextmanager
def counting(label: str, total: int | None, quiet: bool) -> Iterator[Callable[[int], None]]:
    """A progress bar on stderr over `total` inputs; yields the function that advances it."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=stderr(), disable=quiet) as bar:
        task = bar.add_task(label, total=total)
        yield lambda done: bar.update(task, advance=done)


@contextmanager
def epochs(label: str, quiet: bool) -> Iterator[Callable[[int, int, float], None]]:
    """A progress bar on stderr over the epochs of a training run."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=stderr(), disable=quiet) as bar:
        task = bar.add_task(label, total=None)

        def advance(done: int, of: int, loss: float) -> None:
            bar.update(task, total=of, completed=done, description=f"{label}: epoch {done}/{of}, loss {loss:.4g}")

        yield advance


def parameters(pairs: Sequence[str] | None) -> dict[str, Any]:
    """`NAME=VALUE` pairs as options: numbers, true/false and none where they look like that, else text. Raises
    `UsageError`.
    """
    options: dict[str, Any] = {}
    for pair in pairs or ():
        name, equals, text = pair.partition("=")
        if not equals or not name:
            raise UsageError(f"--param takes NAME=VALUE, but {pair!r} came")
        try:
            value = json.loads(
                text.lower() if text.lower() in ("true", "false") else "null" if text.lower() == "none" else text
            )
        except json.JSONDecodeError:
            value = text
        options[name.replace("-", "_")] = value
    return options


def heading(text: str) -> None:
    """A line above a group, bold on a terminal."""
    Console(highlight=False).print(text, style="bold", markup=False)


@contextmanager
def stages(quiet: bool) -> Iterator[Callable[[str, float], None]]:
    """One bar on stderr for a job of several stages; yields a function of the stage's name and the share done of the
    whole.
    """
    columns = (BarColumn(), TaskProgressColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=stderr(), disable=quiet) as bar:
        task = bar.add_task("starting", total=1.0)
        yield lambda name, share: bar.update(task, description=name, completed=share)
