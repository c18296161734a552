"""A classifier and its detectors as one system that classifies or rejects, and what attackers make of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, final

from robustgen.bench.attacked import under_attack
from robustgen.bench.cell import Cell, Found, Work, deep
from robustgen.bench.prepared import Classifier, Fit, classifier, detector, read_metrics
from robustgen.guard import Guard

FPR = 0.05


@final
@dataclass(frozen=True)
class GuardOf(Cell):
    """Detectors by channel: joined within a channel, and one channel with another, in the units of p-values."""

    kind: ClassVar[str] = "guard"
    data: str
    victim: Classifier
    channels: Mapping[str, tuple[Fit, ...]]
    within: str = "fisher"
    across: str = "or"

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
        guard = Guard.fit(model, members, source, fpr=FPR, within=self.within, across=self.across)
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
class Adversarial(Cell):
    """A guard against attackers who know the classifier, and who know all: see `attacked`.

    `eps`: sizes of change, in Linf. `n` test inputs for the former, `n_adaptive` of them for the latter; `steps` of
    each attack that takes steps. `fpr`: the share of normal inputs that may be rejected.
    """

    kind: ClassVar[str] = "adversarial"
    data: str
    victim: Classifier
    detector: Fit | GuardOf
    eps: tuple[float, ...] = (0.05, 0.1, 0.2)
    steps: int = 40
    fpr: float = FPR
    n: int = 1000
    n_adaptive: int = 500
    seed: int = 0

    @property
    def sources(self) -> tuple[str, ...]:
        return (self.data,)

    @property
    def title(self) -> str:
        return f"adversarial {self.detector.title}, seed {self.seed}"

    def run(self, work: Work) -> Found:
        guard = guard_of(work, self.victim, self.detector).at(self.fpr)
        figures, arrays = under_attack(
            guard,
            work.source(self.data),
            eps=self.eps,
            steps=self.steps,
            n=self.n,
            n_adaptive=self.n_adaptive,
            seed=self.seed,
        )
        fits = [part for part in deep(self.detector) if isinstance(part, Fit)]
        took = [read_metrics(work, part)["fit_seconds"] for part in {fit.title: fit for fit in fits}.values()]
        clean = figures["clean"] | {"fit_seconds": sum(took)}
        about = {"detector": guard.name, "victim": self.victim.title, "seed": self.seed}
        return Found(about | figures | {"clean": clean}, arrays)
