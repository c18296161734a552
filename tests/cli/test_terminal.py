"""On a real terminal: a progress bar while it works, and then only the result."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pty = pytest.importorskip("pty")


@pytest.mark.slow
def test_bars_go_to_the_terminal_and_results_to_stdout(world: Path) -> None:
    controller, terminal = pty.openpty()
    words = ["attack", "pgd", "--model", world / "victim", "--data", world / "two.npz", "--eps", "0.4"]
    process = subprocess.Popen(
        [sys.executable, "-m", "robustgen_cli", *map(str, words)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "TERM": "xterm", "COLUMNS": "120"},
        stdout=subprocess.PIPE,
        stderr=terminal,
        text=True,
    )
    out, _ = process.communicate(timeout=60)
    os.close(terminal)
    shown = b""
    while chunk := _read(controller):
        shown += chunk
    os.close(controller)
    assert process.returncode == 0
    assert "robust accuracy" in out
    assert "\x1b" not in out
    assert b"pgd linf eps 0.4" in shown
    assert b"30/30" in shown
    assert shown.endswith((b"\x1b[2K", b"\x1b[2K\r", b"\x1b[?25h"))  # the bar was wiped away, the cursor given back


def _read(controller: int) -> bytes:
    try:
        return os.read(controller, 4096)
    except OSError:  # what Linux says when the other side is closed
        return b""
