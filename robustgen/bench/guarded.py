"""A classifier and its detectors as one system that classifies or rejects, and what attackers make of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, final

from robustgen.bench.cell import Cell, Found, Work
from robustgen.bench.prepared import Classifier, Fit, classifier, detector
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
    """A guard against attackers of every threat model (see `robustgen.evaluation.threats`)."""

    kind: ClassVar[str] = "adversarial"
    data: str
    victim: Classifier
    detector: Fit | GuardOf
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
        raise NotImplementedError
