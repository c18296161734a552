"""Cells run once, in the right order, in one process or several, and survive whatever kills the run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bench_toys
from robustgen.bench.cell import key
from robustgen.bench.claim import claim
from robustgen.bench.runner import Outcome, plan, run, state, wanted
from robustgen.bench.store import Store
from robustgen.bench.suite import Listed, Suite
from robustgen.errors import ArtifactError, UsageError


def suite_of(log: Path, *detectors: str, seeds: int = 2, **options: Any) -> Suite:
    """A suite of toys; `options` by detector."""
    cells = [
        Listed(
            bench_toys.Toy(str(log), bench_toys.Base(str(log), seed), name, seed=seed, **options.get(name, {})),
            {"detector": name, "seed": seed},
        )
        for name in detectors
        for seed in range(seeds)
    ]
    return Suite("toys", "Cells that cost nothing.", tuple(cells))


def lines(log: Path) -> list[str]:
    return log.read_text(encoding="utf-8").splitlines() if log.exists() else []


def metrics(root: Path, suite: Suite) -> dict[str, Any]:
    store = Store(root)
    found = {listed.label: store.read(key(listed.cell, {})) for listed in suite.cells}
    return {label: None if stored is None else stored.metrics for label, stored in found.items()}


def test_what_is_needed_is_made_once_and_before(tmp_path: Path) -> None:
    log, suite = tmp_path / "log", suite_of(tmp_path / "log", "a", "b")
    assert run(plan(suite), tmp_path / "out") == Outcome(0, 6, {})
    told = lines(log)
    assert sorted(line for line in told if line.startswith("base")) == ["base 0", "base 1"]
    assert told.index("base 1") < next(n for n, line in enumerate(told) if line.startswith("begin a 1"))
    stored = Store(tmp_path / "out").read(key(suite.cells[0].cell, {}))
    assert stored is not None
    np.testing.assert_array_equal(stored.arrays()["values"], np.random.default_rng([0, 1]).normal(size=5))


def test_what_is_done_is_never_run_again(tmp_path: Path) -> None:
    log, suite = tmp_path / "log", suite_of(tmp_path / "log", "a", "b")
    run(plan(suite), tmp_path / "out")
    before = lines(log)
    assert run(plan(suite), tmp_path / "out") == Outcome(6, 0, {})
    more = suite_of(log, "a", "b", "c")
    assert run(plan(more), tmp_path / "out") == Outcome(6, 2, {})
    assert [line.split()[:2] for line in lines(log)[len(before) :]] == [["begin", "c"], ["end", "c"]] * 2


def test_two_processes_find_what_one_does(tmp_path: Path) -> None:
    suite = suite_of(tmp_path / "log", "a", "b", "c")
    run(plan(suite), tmp_path / "one")
    run(plan(suite), tmp_path / "two", processes=2)
    assert metrics(tmp_path / "one", suite) == metrics(tmp_path / "two", suite)
    assert None not in metrics(tmp_path / "one", suite).values()
    processes = {line.split()[3] for line in lines(tmp_path / "log") if line.startswith("begin")}
    assert str(os.getpid()) in processes
    assert len(processes) >= 2


@pytest.mark.parametrize("processes", [1, 2])
def test_a_failure_is_recorded_and_stops_only_what_needs_it(tmp_path: Path, processes: int) -> None:
    log = tmp_path / "log"
    suite = suite_of(log, "a", "bad", "c", seeds=1, bad={"fault": "error"})
    outcome = run(plan(suite), tmp_path / "out", processes=processes)
    assert outcome.failed == {"toy: bad / seed 0": "RobustgenError: a planted fault"}
    assert outcome.now == 3
    store, jobs = Store(tmp_path / "out"), plan(suite)
    bad = next(job for job in jobs if "bad" in job.label)
    assert state(store, bad) == "failed"
    assert "a planted fault" in str(store.failure(bad.key))
    (tmp_path / "log.mended").touch()
    assert run(jobs, tmp_path / "out", processes=processes) == Outcome(3, 1, {})
    assert state(store, bad) == "done"
    assert store.failure(bad.key) is None


def test_a_process_that_dies_takes_only_its_own_cell_with_it(tmp_path: Path) -> None:
    suite = suite_of(tmp_path / "log", "a", "bad", "c", seeds=1, bad={"fault": "death"})
    outcome = run(plan(suite), tmp_path / "out", processes=2)
    assert list(outcome.failed) == ["toy: bad / seed 0"]
    assert "exit code 9" in outcome.failed["toy: bad / seed 0"]
    assert outcome.now == 3


def test_what_needs_a_failed_cell_is_not_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: bench_toys.Base, work: Any) -> Any:
        raise ValueError("no base")

    monkeypatch.setattr(bench_toys.Base, "run", fail)
    suite = suite_of(tmp_path / "log", "a", "b", seeds=1)
    outcome = run(plan(suite), tmp_path / "out")
    assert outcome.failed["base 0"] == "ValueError: no base"
    assert outcome.failed["toy: a / seed 0"] == "not tried, for what it needs failed: ValueError: no base"
    assert lines(tmp_path / "log") == []


@pytest.mark.parametrize("processes", [1, 2])
def test_a_killed_run_goes_on(tmp_path: Path, processes: int) -> None:
    """kill -9 in the middle of a cell: the next run keeps what was done, and runs the rest once."""
    log = tmp_path / "log"
    suite = suite_of(log, "a", "b", "c", seeds=1, b={"wait": 30.0})
    code = (
        "import sys; sys.path[:0] = sys.argv[3].split(':')\n"
        "from pathlib import Path\n"
        "if __name__ == '__main__':\n"
        "    import importlib.util\n"
        "    spec = importlib.util.spec_from_file_location('t', sys.argv[4])\n"
        "    t = importlib.util.module_from_spec(spec)\n"
        "    spec.loader.exec_module(t)\n"
        "    s = t.suite_of(Path(sys.argv[1]), 'a', 'b', 'c', seeds=1, b={'wait': 30.0})\n"
        f"    t.run(t.plan(s), Path(sys.argv[2]), processes={processes})\n"
    )
    script = tmp_path / "script.py"
    script.write_text(code, encoding="utf-8")
    command = [sys.executable, str(script), str(log), str(tmp_path / "out"), ":".join(sys.path), __file__]
    with subprocess.Popen(command) as child:
        deadline = time.monotonic() + 60
        while not any(line.startswith("begin b") for line in lines(log)) or not any(
            line.startswith("end a") for line in lines(log)
        ):
            assert time.monotonic() < deadline
            assert child.poll() is None
            time.sleep(0.05)
        time.sleep(0.3)
        child.send_signal(signal.SIGKILL)
    owner = next(line.split()[3] for line in lines(log) if line.startswith("begin b"))
    while Path(f"/proc/{owner}").exists() and processes > 1:  # the worker ends with its parent
        assert time.monotonic() < deadline
        time.sleep(0.05)
    quick = suite_of(log, "a", "b", "c", seeds=1, b={"wait": 30.0})
    bench_toys.time.sleep, real = (lambda seconds: None), time.sleep  # type: ignore[assignment]
    try:
        outcome = run(plan(quick), tmp_path / "out")
    finally:
        bench_toys.time.sleep = real  # type: ignore[assignment]
    assert outcome.failed == {}
    assert outcome.before >= 2
    assert None not in metrics(tmp_path / "out", suite).values()
    assert [line for line in lines(log) if line.startswith("base")] == ["base 0"]
    assert sum(line.startswith("begin a") for line in lines(log)) == 1
    assert sum(line.startswith("begin b") for line in lines(log)) == 2


def test_a_damaged_result_is_said_to_be_and_run_again(tmp_path: Path) -> None:
    suite = suite_of(tmp_path / "log", "a", seeds=1)
    jobs, store = plan(suite), Store(tmp_path / "out")
    run(jobs, tmp_path / "out")
    toy = jobs[-1]
    place = store.place(toy.key) / "metrics.json"
    place.write_text(place.read_text(encoding="utf-8")[:9], encoding="utf-8")
    with pytest.raises(ArtifactError, match="damaged"):
        store.read(toy.key)
    assert [state(store, job) for job in jobs] == ["done", "damaged"]
    assert wanted(jobs, ["done", "damaged"]) == [toy]
    assert run(jobs, tmp_path / "out") == Outcome(1, 1, {})
    found = store.read(toy.key)
    assert found is not None
    (store.place(toy.key) / "arrays.npz").write_bytes(b"nonsense")
    with pytest.raises(ArtifactError, match="damaged"):
        found.arrays()
    (store.place(toy.key) / "config.json").write_text("{", encoding="utf-8")
    assert state(store, toy) == "damaged"


def test_only_some_and_what_they_need(tmp_path: Path) -> None:
    suite = suite_of(tmp_path / "log", "a", "bb")
    assert [job.label for job in plan(suite, ["bb / seed 1"])] == ["base 1", "toy: bb / seed 1"]
    assert [job.label for job in plan(suite, ["toy: b*0"])] == ["base 0", "toy: bb / seed 0"]
    assert len(plan(suite, ["toy: a / seed 0", "toy: bb / seed 0"])) == 3
    with pytest.raises(UsageError, match="zzz matches none of the 4 cells"):
        plan(suite, ["bb", "zzz"])


def test_a_need_of_finished_cells_alone_is_not_made_again(tmp_path: Path) -> None:
    suite = suite_of(tmp_path / "log", "a", seeds=1)
    jobs, store = plan(suite), Store(tmp_path / "out")
    run(jobs, tmp_path / "out")
    store.drop(jobs[0].key)
    assert run(jobs, tmp_path / "out") == Outcome(1, 0, {})


def test_finished_cells_of_another_store_are_copied_whole(tmp_path: Path) -> None:
    log, suite = tmp_path / "log", suite_of(tmp_path / "log", "a", "b", a={"fault": "error"})
    run(plan(suite), tmp_path / "one")
    jobs = plan(suite)
    keys, store, other = [job.key for job in jobs], Store(tmp_path / "two"), Store(tmp_path / "one")
    assert store.take(other, keys) == 4  # two bases and two of b; a failed there
    assert [state(store, job) for job in jobs].count("done") == 4
    assert (store.place(keys[0]) / "number").read_text(encoding="utf-8") == "0"  # what others need came along
    assert store.take(other, keys) == 0
    assert store.take(store, keys) == 0
    before = len(lines(log))
    assert run(plan(suite), tmp_path / "two").now == 0
    assert not [line for line in lines(log)[before:] if line.startswith(("base", "begin b"))]
    (other.place(keys[0]) / "metrics.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ArtifactError, match="damaged"):
        Store(tmp_path / "three").take(other, keys)
    assert state(Store(tmp_path / "three"), jobs[0]) == "to do"
    with pytest.raises(UsageError, match="holds no results"):
        Store(tmp_path / "nowhere").existing()


def test_a_folder_belongs_to_one_suite(tmp_path: Path) -> None:
    suite, other = suite_of(tmp_path / "log", "a"), suite_of(tmp_path / "log", "a", "b")
    store = Store(tmp_path / "out")
    claim(suite, store, resume=False, write=False)
    assert not store.root.exists()
    claim(suite, store, resume=False)
    claim(suite, store, resume=False)
    with pytest.raises(UsageError, match="other cells or settings"):
        claim(other, store, resume=False)
    claim(other, store, resume=True)
    named = Suite("others", "", other.cells)
    with pytest.raises(UsageError, match="holds the suite 'toys'"):
        claim(named, store, resume=False)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").touch()
    with pytest.raises(UsageError, match="exists already"):
        claim(suite, Store(tmp_path / "mine"), resume=True)
    (store.root / "suite.json").write_text("{", encoding="utf-8")
    with pytest.raises(ArtifactError, match="cannot be read"):
        claim(suite, store, resume=True)


def test_what_is_stored_says_how_it_was_made(tmp_path: Path) -> None:
    suite = suite_of(tmp_path / "log", "a", seeds=1)
    run(plan(suite), tmp_path / "out")
    stored = json.loads((Store(tmp_path / "out").place(key(suite.cells[0].cell, {})) / "config.json").read_text())
    assert stored["kind"] == "toy"
    assert stored["settings"]["base"] == {"cell": key(suite.cells[0].cell.base, {})}  # type: ignore[attr-defined]
    assert {"seconds", "versions", "device", "finished", "title"} <= stored.keys()


def test_a_damaged_artifact_that_others_need_is_made_again(tmp_path: Path) -> None:
    suite = Suite("trial", "One that needs another.", (Listed(bench_toys.Reader(bench_toys.Keeper()), {"seed": 0}),))
    jobs, store = plan(suite), Store(tmp_path / "out")
    run(jobs, tmp_path / "out")
    store.drop(jobs[1].key)
    (store.place(jobs[0].key) / "tensors.safetensors").write_bytes(b"nonsense")
    assert state(store, jobs[0]) == "done"  # every file is there
    failed = run(jobs, tmp_path / "out").failed
    assert "it was removed, and the same command makes it anew" in failed[jobs[1].label]
    assert run(jobs, tmp_path / "out") == Outcome(0, 2, {})
