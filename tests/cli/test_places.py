"""`--out`: never half-written, never overwritten unasked, nothing left behind."""

from __future__ import annotations

import os
import resource
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., Any]
Refused = Callable[..., str]
COMMANDS = ["train", "fit", "attack", "demo"]


@pytest.fixture
def command(world: Path) -> Callable[[str], tuple[object, ...]]:
    """A command of a moment's work, without its --out."""
    two = ("--data", world / "two.npz")
    return {
        "train": ("train", *two, "--arch", "mlp", "--epochs", 1, "--quiet"),
        "fit": ("fit", "pca", *two, "--quiet"),
        "attack": ("attack", "fgsm", *two, "--model", world / "victim", "--eps", 0.1, "--quiet"),
        "demo": ("demo", *two, "--quiet"),
    }.__getitem__


@pytest.mark.parametrize("name", COMMANDS)
def test_what_is_there_stays(refused: Refused, command: Callable[..., tuple[object, ...]], name: str) -> None:
    Path("photos").mkdir()
    Path("photos/mine.jpg").write_text("mine")
    Path("file").write_text("mine")
    assert "photos exists already: choose another, or replace it with --force" in refused(
        *command(name), "--out", "photos"
    )
    assert "--force replaces only what robustgen wrote" in refused(*command(name), "--out", "photos", "--force")
    assert "file is a file: name a directory" in refused(*command(name), "--out", "file", "--force")
    assert "the folder you are in" in refused(*command(name), "--out", ".", "--force")
    assert "the folder you are in" in refused(*command(name), "--out", "..")
    for place in ("file/below", "/dev/null/below", "/proc/below/it"):
        line = refused(*command(name), "--out", place, code=1)
        assert f"{place} cannot be created" in line
        assert "choose another place" in line
    assert (Path("photos/mine.jpg").read_text(), Path("file").read_text()) == ("mine", "mine")


@pytest.mark.parametrize("name", ["train", "fit", "attack"])
def test_an_earlier_result_is_replaced_only_on_request(
    run: Run, refused: Refused, command: Callable[..., tuple[object, ...]], name: str, tmp_path: Path
) -> None:
    Path("out").mkdir()  # an empty one is free
    assert run(*command(name), "--out", "out").code == 0
    first = Path("out").stat().st_ino
    assert "exists already" in refused(*command(name), "--out", "out")
    assert Path("out").stat().st_ino == first
    Path("out/stale").write_text("of the earlier run")
    assert run(*command(name), "--out", "out", "--force", "--seed", 5).code == 0
    assert not Path("out/stale").exists()
    assert Path("out").stat().st_ino != first
    assert Path("out/results.json").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("name", ["train", "fit", "attack"])
def test_one_writer_at_a_time(
    run: Run, refused: Refused, command: Callable[..., tuple[object, ...]], name: str
) -> None:
    Path(".out.partial").mkdir()
    Path(".out.partial/.owner").write_text(str(os.getppid()))
    line = refused(*command(name), "--out", "out")
    assert f"another run (process {os.getppid()}) is writing out: wait for it" in line
    Path(".out.partial/.owner").write_text("999999999")  # a process that is gone
    assert run(*command(name), "--out", "out").code == 0
    assert [path.name for path in Path().iterdir()] == ["out"]


@pytest.fixture
def small_disk() -> Iterator[None]:
    """No file may grow beyond half a KiB: what a full disk looks like to a program, at one place."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (512, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("name", ["train", "fit", "attack"])
def test_a_full_disk(
    request: pytest.FixtureRequest,
    run: Run,
    refused: Refused,
    command: Callable[..., tuple[object, ...]],
    name: str,
    tmp_path: Path,
) -> None:
    assert run(*command(name), "--out", "rehearsal").code == 0  # what is cached on the way is cached now
    request.getfixturevalue("small_disk")
    line = refused(*command(name), "--out", "deep/out", code=1)
    assert "File too large: free some space or choose another place" in line
    assert [path.name for path in tmp_path.iterdir()] == ["rehearsal"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can take on another user's rights")
def test_no_permission(run: Run, command: Callable[..., tuple[object, ...]], world: Path) -> None:
    """As another user, who may write in a folder of theirs and not in one of root's."""
    detect = ("detect", world / "detector", world / "bare.npy", "--quiet")
    for name in ("train", "fit", "attack"):
        assert run(*command(name), "--out", f"rehearsal-{name}").code == 0  # loads all modules while we may
    assert run(*detect, "--out", "rehearsal.csv").code in (0, 3)
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        cache = Path(os.environ["ROBUSTGEN_DATA"])
        opened = {
            path: path.stat().st_mode for path in (world, *world.parents, cache, *cache.parents, *cache.rglob("*"))
        }
        for path in opened:
            if path.stat().st_mode & 0o005 != 0o005:
                path.chmod(0o755)
        os.seteuid(65534)
        try:
            ran = [run(*command(name), "--out", f"{folder}/out") for name in ("train", "fit", "attack")]
            ran.append(run(*detect, "--out", f"{folder}/out.csv"))
        finally:
            os.seteuid(0)
            for path, mode in opened.items():
                path.chmod(mode)
        assert os.listdir(folder) == []
    for found in ran:
        assert (found.code, found.out) == (1, ""), found
        assert found.err.count("\n") == 1
        assert "cannot be created: Permission denied: choose another place" in found.err
