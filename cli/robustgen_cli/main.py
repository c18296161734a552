"""Assembles the commands and turns every expected failure into one line and an exit code."""

from __future__ import annotations

import errno
import io
import os
import sys
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Annotated, NoReturn, TextIO

import typer

from robustgen.errors import RobustgenError
from robustgen_cli import (
    attack,
    bench,
    certify,
    demo,
    detect,
    encode,
    export,
    fit,
    guard,
    interpolate,
    reconstruct,
    sample,
    show,
    train,
    translate,
)
from robustgen_cli import list as list_command
from robustgen_cli.interruption import Interrupted, Interruption
from robustgen_cli.output import plain

app = typer.Typer(
    name="robustgen",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="How easily is a model fooled, can fooled and foreign inputs be told from normal ones, and does that hold "
    "against an attacker who knows it?",
    epilog="Exit codes: 0 done, 1 the run failed, 2 wrong use or bad input, 3 inputs were flagged (detect), 130 "
    "interrupted.",
)
for module in (
    demo,
    train,
    attack,
    fit,
    guard,
    detect,
    certify,
    export,
    bench,
    encode,
    reconstruct,
    interpolate,
    sample,
    translate,
    list_command,
    show,
):
    module.register(app)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import PackageNotFoundError, version

        try:
            number = version("robustgen")
        except PackageNotFoundError:
            number = "of an unknown version: it runs from its source without being installed"
        sys.stdout.write(f"robustgen {number}\n")
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and end.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """See `robustgen COMMAND --help` for each command."""


def main() -> None:
    """The console script. Set ROBUSTGEN_TRACEBACK=1 to see where an error came from."""
    # waiting threads yield their core: beside a busy neighbour, spinning makes small networks many times slower
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    if isinstance(sys.stdout, io.TextIOWrapper):  # file names that are not UTF-8 come out escaped
        sys.stdout.reconfigure(errors="backslashreplace")
    interruption = Interruption()
    try:
        with interruption, warnings.catch_warnings():
            warnings.showwarning = _show_warning
            try:
                app(prog_name="robustgen")
            finally:
                sys.stdout.flush()
    except BrokenPipeError:  # the reader of our output has gone (as with `| head`): nothing is left to say to it
        _discard_output()
        sys.exit(1)
    except OSError as error:
        if error.filename is None:  # it was the output that could not be written
            _discard_output()
        hint = ": free some space" if error.errno == errno.ENOSPC else ""
        _end(error, f"{error.strerror or error}{f' ({error.filename})' if error.filename else ''}{hint}", 1)
    except (Exception, Interrupted) as error:  # noqa: BLE001 - the last resort: never a traceback on the user's terminal
        _end(error, *(("interrupted", 130) if interruption.asked else _explained(error)))


def _explained(error: BaseException) -> tuple[str, int]:
    """What to say of an error, and the exit code."""
    if isinstance(error, RobustgenError):
        return str(error), error.exit_code
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or "allocate memory" in str(error):
        return "out of memory: use a smaller --batch-size or another --device", 1
    hint = "this is a fault in robustgen: set ROBUSTGEN_TRACEBACK=1, run again and report it"
    return f"unexpected {type(error).__name__}: {error}; {hint}", 1


def _end(error: BaseException, message: str, code: int) -> NoReturn:
    if os.environ.get("ROBUSTGEN_TRACEBACK"):
        raise error
    said = "; ".join([message, *getattr(error, "__notes__", ())])
    sys.stderr.write(f"robustgen: {plain(' '.join(said.split()))}\n")
    sys.exit(code)


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    sys.stderr.write(f"warning: {' '.join(str(message).split())} ({Path(filename).name}, line {lineno})\n")


def _discard_output() -> None:
    """What is still in the buffer would fail again when Python ends."""
    with suppress(OSError, ValueError):  # ValueError: stdout is no real file, as in tests
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
