"""A classifier and its detectors as one system that classifies or rejects, and what attackers make of it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, TypeVar, final

import numpy as np
import torch
from torch import Tensor

from robustgen.artifacts import digest, read_artifact, write_artifact
from robustgen.bench.cell import ASIDE, Cell, Found, Work, deep
from robustgen.bench.prepared import Classifier, Fit, classifier, detector, read_metrics
from robustgen.data.source import Source, Split
from robustgen.errors import DataError
from robustgen.evaluation.bundles import BUNDLES
from robustgen.evaluation.screening import Alone, alone
from robustgen.evaluation.threats import Blind, Kind, Plan, evaluate, oblivious
from robustgen.guard import Guard
from robustgen.threat import ThreatModel

FPR = 0.05


@final
@dataclass(frozen=True)
class GuardOf(Cell):
    """Detectors by channel: joined within a channel, and one channel with another, in the units of p-values. `shares`:
    of the false alarms, by channel, None = all the same.
    """

    kind: ClassVar[str] = "guard"
    data: str
    victim: Classifier
    channels: Mapping[str, tuple[Fit, ...]]
    within: str = "fisher"
    across: str = "or"
    shares: Mapping[str, float] | None = None

    @property
    def sources(self) -> tuple[str, ...]:
        return (self.data,)

    @property
    def title(self) -> str:
        members = " + ".join(fit.detector for fits in self.channels.values() for fit in fits)
        return f"guard of {members}, beside {self.victim.title}"

    def run(self, work: Work) -> Found:
        source, model = work.source(self.data), classifier(work, self.victim)
        model.network.to(work.device)
        members = {name: [detector(work, fit) for fit in fits] for name, fits in self.channels.items()}
        guard = Guard.fit(model, members, source, fpr=FPR, within=self.within, across=self.across, shares=self.shares)
        guard.save(work.directory)
        return Found(guard.summary())


def guard_of(work: Work, victim: Classifier, judge: Fit | GuardOf) -> Guard:
    """The guard of a finished cell: of several detectors as stored, of one made around it."""
    if isinstance(judge, GuardOf):
        return Guard.load(work.place(judge)).to(work.device)
    model = classifier(work, victim)
    model.network.to(work.device)
    return Guard(model, detector(work, judge))


@final
@dataclass(frozen=True)
class Attacked(Cell):
    """What attackers who know the classifier alone make of `n` test inputs: every detector is shown the same."""

    kind: ClassVar[str] = "attacks"
    version: ClassVar[int] = 3
    data: str
    victim: Classifier
    eps: tuple[float, ...]
    headline: float
    steps: int
    queries: int
    n: int
    seed: int

    @property
    def sources(self) -> tuple[str, ...]:
        return (self.data,)

    @property
    def title(self) -> str:
        return f"attacks on {self.victim.title}"

    def run(self, work: Work) -> Found:
        source, model = work.source(self.data), classifier(work, self.victim).network.to(work.device)
        x, y, index = inputs(source, self.n, self.seed)
        began = time.perf_counter()
        plan = Plan(self.eps, self.headline, steps=self.steps, queries=self.queries, seed=self.seed)
        told = lambda what, share: work.progress(share)  # noqa: E731
        found = oblivious(model, x.to(work.device), y.to(work.device), source, plan, told)
        kinds = [list(kind) for kind in found]
        tensors = {str(number): made.x_adv for number, made in enumerate(found.values())}
        cost = [{"seconds": made.seconds, "effort": made.effort} for made in found.values()]
        write_artifact(work.directory, "attacked", {"kinds": kinds, "cost": cost}, tensors)
        return Found({"n": len(x), "kinds": kinds, "seconds": time.perf_counter() - began}, {"index": index})


def inputs(source: Source, n: int, seed: int) -> tuple[Tensor, Tensor, Any]:
    """`n` test inputs in an order of `seed`, their labels, and their numbers. Raises `DataError` without labels."""
    batch = source.read(source.spread("test", n))
    if batch.y is None:
        raise DataError(f"{source.spec.name!r} has no labels, which attacks need")
    order = torch.randperm(len(batch), generator=torch.Generator().manual_seed(seed))
    return batch.x[order], batch.y[order], batch.index[order].numpy()


def others(source: Source, attacked: Any) -> tuple[tuple[Tensor, Tensor] | None, Any]:
    """As many test inputs as were `attacked` (their numbers), or as many as there are left, evenly spread over the
    rest, with their labels, and their numbers; None of them where fewer than half as many are left.
    """
    rest = np.setdiff1d(source.rows("test"), attacked)
    if 2 * len(rest) < len(attacked):
        return None, rest[:0]
    chosen = rest[np.linspace(0, len(rest) - 1, min(len(attacked), len(rest))).round().astype(np.int64)]
    batch = source.read(chosen)
    assert batch.y is not None  # those that were attacked had labels
    return (batch.x, batch.y), chosen


@final
@dataclass(frozen=True)
class HeldAlone(Cell):
    """What Auto-Attack makes of a classifier alone, on the inputs that attackers who know a detector get: what holds
    against it is left out of their work (`robustgen.evaluation.screening`), the same for every detector.
    """

    kind: ClassVar[str] = "auto-attack"
    data: str
    victim: Classifier
    sizes: tuple[float, ...]
    n: int
    n_adaptive: int
    seed: int

    @property
    def sources(self) -> tuple[str, ...]:
        return (self.data,)

    @property
    def title(self) -> str:
        return f"auto-attack on {self.victim.title}"

    def run(self, work: Work) -> Found:
        source, model = work.source(self.data), classifier(work, self.victim).network.to(work.device)
        x, y, index = inputs(source, self.n, self.seed)
        x, y, index = (
            x[: self.n_adaptive].to(work.device),
            y[: self.n_adaptive].to(work.device),
            index[: self.n_adaptive],
        )
        began = time.perf_counter()
        threats = [ThreatModel("linf", size, source.spec.low, source.spec.high) for size in self.sizes]
        found = alone(model, x, y, threats, seed=self.seed, progress=work.progress)
        tensors: dict[str, Tensor] = {}
        for size, one in zip(self.sizes, found, strict=True):
            tensors |= {f"x_adv {size:g}": one.x_adv, f"fooled {size:g}": one.fooled}
        write_artifact(work.directory, "auto-attack", {}, tensors)
        held = {f"{size:g}": int((~one.fooled).sum()) for size, one in zip(self.sizes, found, strict=True)}
        return Found({"n": len(x), "held": held, "seconds": time.perf_counter() - began}, {"index": index})


@final
@dataclass(frozen=True)
class Adversarial(Cell):
    """A guard under every threat model: see `robustgen.evaluation.threats`.

    `eps`: sizes of change, in Linf, for attackers who do not know the detector, who attack `n` test inputs, and
    `headline` the one that ranks; `adaptive`: those for attackers who know it (none = the headline's), who attack
    `n_adaptive` of them with `bundle`. `transfer`: attackers too who know all but the weights, and so make a classifier
    and detectors of their own. `steps` of PGD, `queries` of Square. `bound`: the best robust accuracy known at half the
    headline's size. `fpr`: the share of normal inputs that may be rejected. `screen`: whether attackers who know
    something of the detector leave out what Auto-Attack on the classifier alone holds, None = beside a classifier that
    was trained against attacks, where that is most.
    """

    kind: ClassVar[str] = "adversarial"
    version: ClassVar[int] = 7
    data: str
    victim: Classifier
    detector: Fit | GuardOf
    eps: tuple[float, ...] = (0.02, 0.05, 0.1, 0.2)
    headline: float = 0.1
    adaptive: tuple[float, ...] = ()
    bundle: str = "adaptive-standard"
    transfer: bool = False
    steps: int = 40
    queries: int = 500
    bound: float | None = None
    fpr: float = FPR
    n: int = 1000
    n_adaptive: int = 500
    seed: int = 0
    screen: bool | None = field(default=None, metadata=ASIDE)  # what it decides is in `relies_on`

    @property
    def sources(self) -> tuple[str, ...]:
        return (self.data,)

    @property
    def relies_on(self) -> Mapping[str, Any]:
        screen = {"screen": HeldAlone.version} if self.screened else {}
        return {"bundle": BUNDLES[self.bundle]} | screen

    @property
    def prepares(self) -> tuple[Cell, ...]:
        mine: tuple[Cell, ...] = (self.attacked, self.alone) if self.screened else (self.attacked,)
        return (*mine, reseeded(self.victim), reseeded(self.detector)) if self.transfer else mine

    @property
    def attacked(self) -> Attacked:
        return Attacked(self.data, self.victim, self.eps, self.headline, self.steps, self.queries, self.n, self.seed)

    @property
    def screened(self) -> bool:
        """Whether what the classifier holds on its own is left out."""
        return self.victim.adversarial is not None if self.screen is None else self.screen

    @property
    def alone(self) -> HeldAlone:
        asked = self.adaptive or (self.headline,)
        sizes = tuple(sorted({*asked, *(size for size in self.eps if size <= max(asked))}))  # the same for most cells
        return HeldAlone(self.data, self.victim, sizes, self.n, self.n_adaptive, self.seed)

    @property
    def title(self) -> str:
        return f"adversarial {self.detector.title}, seed {self.seed}"

    def run(self, work: Work) -> Found:
        source, guard = work.source(self.data), guard_of(work, self.victim, self.detector).at(self.fpr)
        rival = None
        if self.transfer:
            rival = guard_of(work, reseeded(self.victim), reseeded(self.detector)).at(self.fpr)
        x, y, index = inputs(source, self.n, self.seed)
        negatives, clean = others(source, index)
        stored = read_artifact(work.place(self.attacked), "attacked")
        kinds = stored.config["kinds"]
        cost = stored.config.get("cost") or [{} for _ in kinds]  # not known of those stored before
        blind = {
            Kind(*kind): Blind(stored.tensors[str(number)].to(work.device), **cost[number])
            for number, kind in enumerate(kinds)
        }
        fits = {part.title: part for part in deep(self.detector) if isinstance(part, Fit)}
        figures, arrays = evaluate(
            guard,
            source,
            x,
            y,
            blind,
            Plan(
                self.eps,
                self.headline,
                None,
                self.adaptive,
                self.bundle,
                self.steps,
                self.queries,
                self.seed,
                work.means.precision,
            ),
            n_adaptive=self.n_adaptive,
            others=negatives,
            rival=rival,
            alone=self._alone(work),
            bound=self.bound,
            fit_seconds=sum(read_metrics(work, part)["fit_seconds"] for part in fits.values()),
            told=lambda what, share: work.progress(share),
        )
        about = {
            "detector": guard.name,
            "victim": self.victim.title,
            "seed": self.seed,
            "splits": _splits(source, index, clean),
        }
        figures["sentence"] = f"{guard.name} on {source.spec.name}, beside a {self.victim.title}: {figures['sentence']}"
        return Found(about | figures, {"index": index, **arrays})

    def _alone(self, work: Work) -> dict[float, Alone]:
        if not self.screened:
            return {}
        stored = read_artifact(work.place(self.alone), "auto-attack").tensors
        return {
            size: Alone(stored[f"x_adv {size:g}"].to(work.device), stored[f"fooled {size:g}"].to(work.device))
            for size in self.alone.sizes
        }


def _splits(source: Source, attacked: Any, clean: Any) -> dict[str, Any]:
    """Which rows were used for what: how many, and the SHA-256 of their numbers, sorted, as 64 bit. No row is in two of
    them, unless the test split is too small for clean inputs of its own.
    """
    splits: tuple[Split, ...] = ("train", "calibration")
    rows = {split: source.rows(split) for split in splits} | {"test attacked": attacked, "test clean": clean}
    return {
        name: {"n": len(row), "sha256": digest(np.sort(np.asarray(row, dtype="<i8")).tobytes())}
        for name, row in rows.items()
    }


_ELSEWHERE = 1000
"""What is added to seeds for what attackers make for themselves."""

C = TypeVar("C", Classifier, Fit, GuardOf, Fit | GuardOf)


def reseeded(cell: C) -> C:
    """The same from other seeds, all through."""
    if isinstance(cell, Classifier):
        return replace(cell, seed=cell.seed + _ELSEWHERE)
    if isinstance(cell, Fit):
        options = dict(cell.options)
        if "seed" in options:
            options["seed"] += _ELSEWHERE
        return replace(cell, options=options, victim=None if cell.victim is None else reseeded(cell.victim))
    channels = {name: tuple(reseeded(fit) for fit in fits) for name, fits in cell.channels.items()}
    return replace(cell, victim=reseeded(cell.victim), channels=channels)
