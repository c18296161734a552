"""Where jobs run: in this process, or in several that share the machine's threads."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, final

import torch

from robustgen.bench.cell import Means
from robustgen.bench.store import Store
from robustgen.bench.work import Ended, Job, run_job


class Pool(ABC):
    """Takes jobs and gives them back when they are over."""

    @property
    @abstractmethod
    def busy(self) -> bool:
        """Whether a job is under way."""

    @property
    @abstractmethod
    def free(self) -> int:
        """How many jobs can be started now."""

    @abstractmethod
    def start(self, job: Job) -> None: ...

    @abstractmethod
    def next(self) -> tuple[Job, Ended]:
        """Wait for a job to end."""


@contextmanager
def pool_of(processes: int, root: Path, means: Means, progress: Callable[[float], None]) -> Iterator[Pool]:
    """`processes` at a time. When the block is left early, what is under way is stopped."""
    if processes == 1:
        yield _Here(root, means, progress)
        return
    pool = _Several(processes, root, means)
    try:
        yield pool
    finally:
        pool.close()


@final
class _Here(Pool):
    """One job at a time, in this process."""

    def __init__(self, root: Path, means: Means, progress: Callable[[float], None]) -> None:
        self._root, self._means, self._progress = root, means, progress
        self._job: Job | None = None

    @property
    def busy(self) -> bool:
        return self._job is not None

    @property
    def free(self) -> int:
        return 0 if self.busy else 1

    def start(self, job: Job) -> None:
        self._job = job

    def next(self) -> tuple[Job, Ended]:
        assert self._job is not None
        job, self._job = self._job, None
        return job, run_job(job, self._root, self._means, self._progress)


@final
class _Several(Pool):
    """Processes that live as long as the pool; one that dies takes only its own job with it."""

    def __init__(self, processes: int, root: Path, means: Means) -> None:
        self._root, self._means = root, means
        self._threads = max(1, torch.get_num_threads() // processes)
        self._context = multiprocessing.get_context("spawn")  # a forked torch may hang
        self._idle: list[tuple[BaseProcess, Connection]] = []
        self._working: dict[Connection, tuple[BaseProcess, Job]] = {}
        self._most = processes

    @property
    def busy(self) -> bool:
        return bool(self._working)

    @property
    def free(self) -> int:
        return self._most - len(self._working)

    def start(self, job: Job) -> None:
        process, ours = self._idle.pop() if self._idle else self._born()
        ours.send(job)
        self._working[ours] = (process, job)

    def _born(self) -> tuple[BaseProcess, Connection]:
        ours, theirs = self._context.Pipe()
        arguments = (theirs, self._root, self._means, self._threads)
        process = self._context.Process(target=_serve, args=arguments, daemon=True)
        process.start()
        theirs.close()
        return process, ours

    def next(self) -> tuple[Job, Ended]:
        ours: Any = wait(list(self._working))[0]
        process, job = self._working.pop(ours)
        try:
            ended: Ended = ours.recv()
        except (EOFError, OSError):
            process.join()
            ours.close()
            said = f"its process ended early (exit code {process.exitcode}): out of memory, or killed?"
            Store(self._root).fail(job.key, job.label, said, "")
            return job, Ended(job.key, 0.0, said)
        self._idle.append((process, ours))
        return job, ended

    def close(self) -> None:
        """Stop all processes, also in the middle of a job."""
        everyone = [process for process, _ in (*self._idle, *self._working.values())]
        for process in everyone:
            process.terminate()
        for process in everyone:
            process.join()


def _serve(jobs: Connection, root: Path, means: Means, threads: int) -> None:
    """Run jobs as they come, until there is nobody to send them."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to all; the parent says when to stop
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # stdout is for the parent's result
    threading.Thread(target=_outlive_nobody, daemon=True).start()
    torch.set_num_threads(threads)
    with suppress(EOFError, OSError):
        while True:
            jobs.send(run_job(jobs.recv(), root, means, lambda share: None))


def _outlive_nobody() -> None:
    """A killed parent must not leave processes behind that hold the cells they work on."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
