"""Running the cells of a suite: each after those it needs, none twice, in one process or several."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal, NamedTuple, final

from robustgen.bench.cell import Cell, Means, deep, key, needs
from robustgen.bench.places import identities
from robustgen.bench.processes import pool_of
from robustgen.bench.store import Store
from robustgen.bench.suite import Suite
from robustgen.bench.work import Ended, Job
from robustgen.errors import ArtifactError, UsageError

State = Literal["done", "failed", "damaged", "to do", "elsewhere"]
_UNTRIED = "not tried, for what it needs failed: "


class News(NamedTuple):
    """How many jobs are over of how many, the one it is about, and how it ended (None: it begins)."""

    over: int
    of: int
    job: Job
    ended: Ended | None


@final
@dataclass(frozen=True)
class Outcome:
    """What a run did: how many cells were done before it, how many are done now, and why others are not, by label."""

    before: int
    now: int
    failed: dict[str, str]


def plan(suite: Suite, only: Sequence[str] = ()) -> list[Job]:
    """The suite's cells, each after those it needs, none twice.

    `only`: where there are any, the cells whose label has one of these in it, or matches it as a pattern with *, and
    what they need. Raises `DataError` if data is missing, `UsageError` for one that matches nothing.
    """
    chosen = [cell for cell in suite.cells if not only or any(_matches(cell.label, pattern) for pattern in only)]
    for pattern in only:
        if not any(_matches(listed.label, pattern) for listed in chosen):
            labels = ", ".join(repr(listed.label) for listed in suite.cells[:4])
            raise UsageError(f"--only {pattern} matches none of the {len(suite.cells)} cells, such as {labels}")
    hashes = identities([name for listed in chosen for cell in deep(listed.cell) for name in cell.sources], suite.get)
    jobs: dict[str, Job] = {}

    def add(cell: Cell, label: str, asked: bool) -> str:
        own = key(cell, hashes)
        if own not in jobs:
            before = tuple(add(needed, needed.title, False) for needed in needs(cell))
            jobs[own] = Job(cell, own, label, before, hashes, asked)
        elif asked and not jobs[own].asked:
            jobs[own] = replace(jobs[own], label=label, asked=True)
        return own

    for listed in chosen:
        add(listed.cell, listed.label, True)
    return list(jobs.values())


def _matches(label: str, pattern: str) -> bool:
    return fnmatchcase(label, pattern) if any(mark in pattern for mark in "*?[") else pattern in label


def state(store: Store, job: Job, others: Sequence[Store] = ()) -> State:
    """What is stored of a job; "elsewhere" where one of `others` has it, from which it can be taken."""
    try:
        if store.read(job.key) is not None:
            return "done"
    except ArtifactError:
        return "damaged"
    if any(state(other, job) == "done" for other in others):
        return "elsewhere"
    return "to do" if store.failure(job.key) is None else "failed"


def wanted(jobs: Sequence[Job], states: Sequence[State]) -> list[Job]:
    """The jobs that are to run: what was asked for and is not done, and what that needs."""
    left = [job for job, found in zip(jobs, states, strict=True) if found not in ("done", "elsewhere")]
    found = {job.key for job in left if job.asked}
    for job in reversed(left):  # what is needed comes before what needs it
        if job.key in found:
            found |= set(job.needs)
    return [job for job in left if job.key in found]


def run(
    jobs: Sequence[Job],
    root: Path,
    *,
    processes: int = 1,
    means: Means | None = None,
    told: Callable[[News], None] = lambda news: None,
    progress: Callable[[float], None] = lambda share: None,
) -> Outcome:
    """Run what is not done yet. A job that fails does not stop those that do not need it; those that do are not tried.

    `processes`: how many jobs at a time, each with its share of torch's threads. `progress`: the share done of the
    current job, where there is one at a time.
    """
    store = Store(root)
    states = [state(store, job) for job in jobs]
    done = {job.key for job, found in zip(jobs, states, strict=True) if found == "done"}
    todo, before = wanted(jobs, states), len(done)
    of, failed = len(todo), dict[str, str]()

    def over(job: Job, ended: Ended) -> None:
        if ended.error is None:
            done.add(job.key)
        else:
            failed[job.key] = ended.error
        told(News(len(done) - before + len(failed), of, job, ended))

    with pool_of(min(processes, max(of, 1)), root, means or Means(), progress) as pool:
        while todo or pool.busy:
            for job in [job for job in todo if not failed.keys().isdisjoint(job.needs)]:
                todo.remove(job)
                reason = next(failed[needed] for needed in job.needs if needed in failed).removeprefix(_UNTRIED)
                over(job, Ended(job.key, 0.0, _UNTRIED + reason))
            for job in [job for job in todo if done.issuperset(job.needs)][: pool.free]:
                todo.remove(job)
                told(News(len(done) - before + len(failed), of, job, None))
                pool.start(job)
            if pool.busy:
                over(*pool.next())
    labels = {job.key: job.label for job in jobs}
    return Outcome(before, len(done) - before, {labels[own]: error for own, error in failed.items()})
