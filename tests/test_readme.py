"""The README promises only what works: its Python runs, and its commands and options exist."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path
from typing import Any

import pytest
import typer

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def commands() -> dict[str, Any]:
    from robustgen_cli.main import app

    group = typer.main.get_command(app)
    return dict(group.commands)  # type: ignore[attr-defined]


def test_the_python_example_runs_and_shows_what_it_is_there_for() -> None:
    (code,) = blocks("python")
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, "README.md", "exec"), {})
    clean, attacked = re.findall(r"(?:clean|under attack) (0\.\d+|1\.0+) \[", printed.getvalue())
    assert float(clean) > 0.9
    assert float(attacked) < 0.3
    caught = re.search(r"clean ([\d.]+) attacked ([\d.]+)", printed.getvalue())
    assert caught is not None
    assert float(caught[1]) < 0.2 < 0.6 < float(caught[2])
    accepted = re.search(
        r"accepted: clean ([\d.]+), attacked by one who knows the detector ([\d.]+)", printed.getvalue()
    )
    assert accepted is not None
    assert min(float(accepted[1]), float(accepted[2])) > 0.8  # which is why it says so


@pytest.mark.parametrize("line", [line for block in blocks("bash") for line in block.splitlines() if line])
def test_the_commands_exist_with_their_options(line: str) -> None:
    words = line.split("#")[0].split()
    if words[0] == "make":
        assert f"\n{words[1]}:" in (ROOT / "Makefile").read_text(encoding="utf-8")
        return
    assert words[0] == "robustgen"
    command = commands()[words[1]]
    known = {option for parameter in command.params for option in parameter.opts}
    assert {word for word in words if word.startswith("--")} <= known


def test_every_command_stands_in_the_readme() -> None:
    assert {name for name in commands() if f"robustgen {name}" not in README and f"`{name}" not in README} <= {"demo"}
    assert "make demo" in README
