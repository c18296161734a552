"""Real processes that are stopped, killed, run twice at once, or lose the reader of their output."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from robustgen.evaluation import robustness
from robustgen.training import descent

Start = Callable[..., subprocess.Popen[str]]

MAIN = "from robustgen_cli.main import main; main()"
SMALL = "import robustgen.evaluation.robustness as r; r._BLOCK_VALUES = 36 * 20; "  # ten blocks of twenty inputs
SLOW = """
import os, time
from models import Net
def wait(z):
    time.sleep(float(os.environ.get("PAUSE", 0)))
    return z
def net(): return Net(wait)
"""


@pytest.fixture
def start(world: Path, tmp_path: Path) -> Iterator[Start]:
    """`start(setup, *args)`: the command in a process of its own, after some lines of Python."""
    (world / "slow.py").write_text(SLOW)
    running = []
    path = os.pathsep.join(filter(None, sys.path))

    def call(setup: str, *args: object, **environment: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", setup + MAIN, *map(str, args)],
            env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", **environment},
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        running.append(process)
        return process

    yield call
    for process in running:
        process.kill()
        process.communicate()


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    end = time.monotonic() + 60
    while not path.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.02)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


def without_time(values: Any) -> Any:
    return {key: value for key, value in values.items() if key != "seconds"}


@pytest.fixture
def attack(world: Path) -> tuple[object, ...]:
    model = f"{world}/slow.py:net"
    return ("attack", "pgd", "--model", model, "--data", world / "two.npz", "--eps", 0.4, "--steps", 5)


@pytest.fixture
def blocks(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Ten blocks of twenty inputs in this process too; one entry for each block that is computed."""
    computed: list[int] = []
    compute = robustness.attack_rows

    def counted(*args: Any) -> Any:
        computed.append(1)
        return compute(*args)

    monkeypatch.setattr(robustness, "_BLOCK_VALUES", 36 * 20)
    monkeypatch.setattr(robustness, "attack_rows", counted)
    return computed


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_an_attack_goes_on_where_it_was_stopped(
    start: Start, run: Callable[..., Any], attack: tuple[object, ...], tmp_path: Path, blocks: list[int], how: int
) -> None:
    process = start(SMALL, *attack, "--out", "run", PAUSE="0.02")
    wait_for(tmp_path / ".run.partial/block-00002.npz", process)
    process.send_signal(how)
    out, err = process.communicate(timeout=60)
    kept = "robustgen: interrupted; what is done so far is kept, and the same command goes on from there\n"
    expected = (130, "", kept) if how == signal.SIGINT else (-signal.SIGKILL, "", "")
    assert (process.returncode, out, err) == expected
    assert names(tmp_path) == [".run.partial"]
    done = [name for name in names(tmp_path / ".run.partial") if name.startswith("block") and name.endswith(".npz")]
    assert 3 <= len(done) < 10

    resumed = run(*attack, "--out", "run", "--json")
    assert resumed.code == 0
    assert len(blocks) == 10 - len(done)
    whole = run(*attack, "--out", "whole", "--json")
    assert len(blocks) == 20 - len(done)
    assert without_time(resumed.json) == without_time(whole.json)
    assert names(tmp_path) == ["run", "whole"]
    assert names(tmp_path / "run") == names(tmp_path / "whole")
    for name in ("samples.npz", "adversarials.npz"):
        with np.load(tmp_path / "run" / name) as a, np.load(tmp_path / "whole" / name) as b:
            assert a.files == b.files
            assert all(a[key].tobytes() == b[key].tobytes() for key in a.files)


@pytest.mark.slow
def test_a_curve_goes_on_where_it_was_stopped(
    start: Start, run: Callable[..., Any], attack: tuple[object, ...], tmp_path: Path, blocks: list[int]
) -> None:
    curve = (*attack, "--eps", "0:0.4:5", "--quantise", "uint8")
    process = start(SMALL, *curve, "--out", "run", PAUSE="0.01")
    wait_for(tmp_path / ".run.partial/block-00001.npz", process)
    process.kill()
    process.wait()
    done = len(list((tmp_path / ".run.partial").glob("block-*.npz")))
    resumed, whole = (run(*curve, "--out", name, "--json").json for name in ("run", "whole"))
    assert len(blocks) == 20 - done
    assert without_time(resumed) == without_time(whole)
    assert [point["eps"] for point in whole["curve"]] == [0, 0.1, 0.2, 0.3, 0.4]
    for name in ("samples.npz", "adversarials.npz"):
        with np.load(tmp_path / "run" / name) as a, np.load(tmp_path / "whole" / name) as b:
            assert all(a[key].tobytes() == b[key].tobytes() for key in b.files)


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
@pytest.mark.parametrize("command", ["train", "fit"])
def test_training_goes_on_where_it_was_stopped(
    start: Start,
    run: Callable[..., Any],
    world: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    how: int,
    command: str,
) -> None:
    named = ("--arch", "mlp") if command == "train" else ("autoencoder", "--preset", "best")
    wanted = (command, *named, "--data", world / "two.npz", "--epochs", 40, "--json")
    slowly = (
        "import robustgen.training.descent as d; d._CHECKPOINT_EVERY = -1.0; import time; s = d._Run.stepped; "
        "d._Run.stepped = lambda run: (time.sleep(0.05), s(run))[1]; "
    )
    process = start(slowly, *wanted, "--out", "done")
    wait_for(tmp_path / ".done.partial/checkpoint.pt", process)
    process.send_signal(how)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130 if how == signal.SIGINT else -signal.SIGKILL, "")
    assert err.count("\n") == (how == signal.SIGINT)
    assert names(tmp_path) == [".done.partial"]

    epochs = []
    load = descent._Run.load

    def watched(run: descent._Run, path: Path) -> None:
        load(run, path)
        epochs.append(len(run.history))

    monkeypatch.setattr(descent._Run, "load", watched)
    resumed = run(*wanted, "--out", "done")
    assert resumed.code == 0
    assert len(epochs) == 1
    assert 0 < epochs[0] < 40
    whole = run(*wanted, "--out", "whole")
    assert without_time(resumed.json) == without_time(whole.json)
    assert names(tmp_path) == ["done", "whole"]
    page = ["report.html"] if command == "fit" else []
    assert names(tmp_path / "done") == ["manifest.json", *page, "results.json", "tensors.safetensors"]
    ours, theirs = (tmp_path / name / "tensors.safetensors" for name in ("done", "whole"))
    assert ours.read_bytes() == theirs.read_bytes()


@pytest.mark.slow
def test_other_code_does_not_go_on_from_there(
    start: Start, run: Callable[..., Any], attack: tuple[object, ...], world: Path, tmp_path: Path, blocks: list[int]
) -> None:
    process = start(SMALL, *attack, "--out", "run", PAUSE="0.02")
    wait_for(tmp_path / ".run.partial/block-00001.npz", process)
    process.kill()
    process.wait()
    (world / "slow.py").write_text(SLOW.replace("return z", "return z * 0.5"))  # the same weights in another network
    assert run(*attack, "--out", "run").code == 0
    assert len(blocks) == 10


@pytest.mark.slow
def test_two_runs_at_once(
    start: Start, refused: Callable[..., str], attack: tuple[object, ...], tmp_path: Path
) -> None:
    first = start(SMALL, *attack, "--out", "run", PAUSE="0.05")
    wait_for(tmp_path / ".run.partial/.owner", first)
    first.send_signal(signal.SIGSTOP)  # so that nothing changes while the second run looks
    line = refused(*attack, "--out", "run")
    assert line == f"robustgen: another run (process {first.pid}) is writing run: wait for it\n"
    first.send_signal(signal.SIGCONT)
    code, _, err = ended(first)
    assert (code, err) == (0, "")
    assert names(tmp_path) == ["run"]


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_what_cannot_be_resumed_leaves_nothing(start: Start, tmp_path: Path, how: signal.Signals) -> None:
    process = start("", "demo", "--data", "digits", "--out", "deep/out")
    wait_for(tmp_path / "deep/.out.partial", process)
    process.send_signal(how)
    assert ended(process) == (130, "", "robustgen: interrupted\n")
    assert names(tmp_path) == []


IMPORTED = """
import os, signal, time, robustgen.demo as demo
def run(*args):
    try:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)
    except BaseException: # as where a compiled module is imported
        {}
    time.sleep(60)
demo.run = run
"""


@pytest.mark.parametrize("made_of_it", ["pass", "raise ImportError('initialization failed') from None"])
def test_a_signal_in_the_middle_of_an_import_is_not_lost(start: Start, tmp_path: Path, made_of_it: str) -> None:
    process = start(IMPORTED.format(made_of_it), "demo", "--data", "digits", "--out", "deep/out")
    assert ended(process) == (130, "", "robustgen: interrupted\n")
    assert names(tmp_path) == []


@pytest.mark.slow
def test_a_reader_that_leaves_early(start: Start, world: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "many.npy", np.zeros((20_000, 1, 6, 6), np.float32))
    for extra in ([], ["--out", "scores.csv"]):
        process = start("", "detect", world / "detector", "many.npy", "--json", *extra)
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["input"] == "0"
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == ""
        assert process.wait(timeout=60) == 1
    assert names(tmp_path) == ["many.npy"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_output_that_cannot_be_written(start: Start, world: Path) -> None:
    path = os.pathsep.join(filter(None, sys.path))
    for words in (["list"], ["show", world / "detector"]):
        with open("/dev/full", "w") as full:
            found = subprocess.run(
                [sys.executable, "-c", MAIN, *map(str, words)],
                env={**os.environ, "PYTHONPATH": path},
                stdout=full,
                stderr=subprocess.PIPE,
                text=True,
                timeout=60,
            )
        assert (found.returncode, found.stderr) == (1, "robustgen: No space left on device: free some space\n")
