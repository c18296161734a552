"""Assembles the commands and turns every expected failure into one line and an exit code."""

from __future__ import annotations

import errno
import os
import sys
from typing import Annotated

import typer

from robustgen.errors import RobustgenError
from robustgen_cli import attack, demo, detect, fit, show, train
from robustgen_cli import list as list_command

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
for module in (demo, train, attack, fit, detect, list_command, show):
    module.register(app)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        sys.stdout.write(f"robustgen {version('robustgen')}\n")
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
    try:
        app()
    except RobustgenError as error:
        _end(str(error), error.exit_code, error)
    except BrokenPipeError:
        # the reader of our output has gone (as with `| head`): nothing is left to say to it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except KeyboardInterrupt:
        _end("interrupted; a run with --out goes on where it stopped when the same command is given again", 130)
    except OSError as error:
        hint = ": free some space" if error.errno == errno.ENOSPC else ""
        _end(f"{error.strerror or error}{f' ({error.filename})' if error.filename else ''}{hint}", 1, error)
    except MemoryError as error:
        _end("out of memory: use a smaller --batch-size", 1, error)
    except Exception as error:  # noqa: BLE001 - the last resort: a fault of ours must not look like a crash of the user's terminal
        if type(error).__name__ == "OutOfMemoryError":
            _end("the device is out of memory: use a smaller --batch-size or --device cpu", 1, error)
        _end(
            f"unexpected {type(error).__name__}: {error}; this is a fault in robustgen: set ROBUSTGEN_TRACEBACK=1, "
            "run again and report it",
            1,
            error,
        )


def _end(message: str, code: int, error: BaseException | None = None) -> None:
    if error is not None and os.environ.get("ROBUSTGEN_TRACEBACK"):
        raise error
    sys.stderr.write(f"robustgen: {' '.join(message.split())}\n")
    sys.exit(code)
