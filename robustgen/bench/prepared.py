"""Cells that others need: trained classifiers and fitted detectors, each an artifact in its own folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, final

from robustgen.bench.cell import LATER, Cell, Found, Work
from robustgen.bench.clock import Clock
from robustgen.bench.store import Store
from robustgen.detectors.calibrated import CalibratedDetector
from robustgen.detectors.learned import learn, learns_alone, load_learned, save_learned
from robustgen.detectors.making import accepts, kind_of, make
from robustgen.errors import UsageError
from robustgen.evaluation.adversaries import adversary
from robustgen.models.load import LoadedModel, load_model
from robustgen.training.classifier import default_epochs, train
from robustgen.training.descent import Recipe


@final
@dataclass(frozen=True)
class Classifier(Cell):
    """A classifier of `data`, as `robustgen train` makes it.

    `epochs`: None = by the size of the data. `adversarial`: None, or what it is trained against, with inputs changed by
    at most `eps` in `norm`; `beta`: of trades, None = its default.
    """

    kind: ClassVar[str] = "classifier"
    data: str
    arch: str = "small-cnn"
    epochs: int | None = None
    batch_size: int = 128
    learning_rate: float = 2e-3
    adversarial: str | None = None
    eps: float = 8 / 255
    norm: str = "linf"
    steps: int = 7
    seed: int = 0
    beta: float | None = field(default=None, metadata=LATER)

    @property
    def sources(self) -> tuple[str, ...]:
        return (self.data,)

    @property
    def title(self) -> str:
        how = "" if self.adversarial is None else f" trained against {self.adversarial} {self.eps:.3g}"
        return f"classifier {self.arch}{how}, seed {self.seed}"

    def run(self, work: Work) -> Found:
        source = work.source(self.data)
        recipe = Recipe(
            epochs=self.epochs or default_epochs(len(source.rows("train"))),
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            seed=self.seed,
        )
        against, described = None, None
        if self.adversarial is not None:
            weight = {} if self.beta is None else {"beta": self.beta}
            against, described = adversary(
                self.adversarial, source.spec, norm=self.norm, eps=self.eps, steps=self.steps, **weight
            )
        checkpoint = work.directory / "checkpoint.pt"
        trained = train(
            source,
            self.arch,
            recipe=recipe,
            adversary=against,
            adversary_config=described,
            device=work.device,
            checkpoint=checkpoint,
            progress=lambda done, of, loss: work.progress(done / max(of, 1)),
        )
        trained.save(work.directory)
        checkpoint.unlink(missing_ok=True)
        return Found(trained.summary)


@final
@dataclass(frozen=True)
class Configured:
    """A detector by name with all of its options, those left out included, so that another default is another
    configuration.

    `through`: it looks at what enters `layer` of the classifier (None: the last linear one), not at the input.
    `revision`: see `Detector.version`.
    """

    detector: str
    options: Mapping[str, Any]
    through: bool = False
    layer: str | None = None
    revision: int = field(default=1, metadata=LATER)

    @property
    def needs_model(self) -> bool:
        """Whether there must be a classifier beside it."""
        kind = kind_of(self.detector)
        return self.through or kind.conditional or hasattr(kind, "watch")


def configured(
    detector: str, options: Mapping[str, Any], seed: int, through: bool = False, layer: str | None = None
) -> Configured:
    """A detector with `options`, and `seed` if it takes one that is not among them. Raises `UsageError` as `make`."""
    if kind_of(detector).labelled:
        raise UsageError(f"{detector} learns from two domains, which a suite cannot give it: leave it out")
    chosen = dict(options)
    if accepts(detector, "seed"):
        chosen.setdefault("seed", seed)
    return Configured(detector, make(detector, chosen).config, through, layer, kind_of(detector).version)


@final
@dataclass(frozen=True)
class Learned(Cell):
    """What a conditional detector learns of the training split of `data`, the same beside any classifier."""

    kind: ClassVar[str] = "learned"
    data: str
    detector: str
    options: Mapping[str, Any] = field(default_factory=dict)
    revision: int = field(default=1, metadata=LATER)

    @property
    def sources(self) -> tuple[str, ...]:
        return (self.data,)

    @property
    def title(self) -> str:
        return f"detector {self.detector}{_seed(self.options)}, without a threshold"

    def run(self, work: Work) -> Found:
        source, checkpoint = work.source(self.data), work.directory / "checkpoint.pt"
        clock = Clock(work.directory / "clock.json")
        learned = learn(
            self.detector,
            source,
            options=self.options,
            device=work.device,
            checkpoint=checkpoint,
            progress=lambda done, of, loss: _told(work, clock, done, of),
        )
        found = _spent(clock)
        save_learned(self.detector, learned, work.directory)
        checkpoint.unlink(missing_ok=True)
        return Found(found)


@final
@dataclass(frozen=True)
class Fit(Cell):
    """A detector fitted on the training split of `data` and calibrated on the calibration split, as `robustgen fit`."""

    kind: ClassVar[str] = "detector"
    data: str
    detector: str
    options: Mapping[str, Any] = field(default_factory=dict)
    victim: Classifier | None = None
    layer: str | None = None
    revision: int = field(default=1, metadata=LATER)

    @property
    def sources(self) -> tuple[str, ...]:
        return (self.data,)

    @property
    def title(self) -> str:
        beside = "" if self.victim is None else f" beside {self.victim.title}"
        return f"detector {self.detector}{_seed(self.options)}{beside}"

    @property
    def learned(self) -> Learned | None:
        """What it shares with the same detector beside other classifiers, or None."""
        if not learns_alone(self.detector):
            return None
        return Learned(self.data, self.detector, self.options, self.revision)

    @property
    def prepares(self) -> tuple[Cell, ...]:
        return () if self.learned is None else (self.learned,)

    def run(self, work: Work) -> Found:
        source = work.source(self.data)
        model = None if self.victim is None else classifier(work, self.victim)
        checkpoint, clock = work.directory / "checkpoint.pt", Clock(work.directory / "clock.json")
        learned = None if self.learned is None else load_learned(work.place(self.learned))
        fitted = CalibratedDetector.fit(
            self.detector,
            source,
            options=self.options,
            model=model,
            layer=self.layer,
            device=work.device,
            checkpoint=checkpoint,
            progress=lambda done, of, loss: _told(work, clock, done, of),
            learned=learned,
        )
        spent = _spent(clock)
        if self.learned is not None:
            before = read_metrics(work, self.learned)
            spent = {word: value + before[word] for word, value in spent.items()}
        fitted.save(work.directory)
        checkpoint.unlink(missing_ok=True)
        return Found(fitted.summary() | spent)


def _seed(options: Mapping[str, Any]) -> str:
    return f", seed {options['seed']}" if "seed" in options else ""


def _told(work: Work, clock: Clock, done: int, of: int) -> None:
    clock.tick()
    work.progress(done / max(of, 1))


def _spent(clock: Clock) -> dict[str, float]:
    spent = clock.stop()
    return {"fit_seconds": spent.seconds, "fit_cpu_seconds": spent.cpu_seconds}


def classifier(work: Work, cell: Classifier) -> LoadedModel:
    """The trained classifier of a finished cell."""
    return load_model(str(work.place(cell)))


def detector(work: Work, cell: Fit) -> CalibratedDetector:
    """The fitted detector of a finished cell."""
    return CalibratedDetector.load(work.place(cell)).to(work.device)


def read_metrics(work: Work, cell: Cell) -> dict[str, Any]:
    """What a finished cell measured."""
    place = work.place(cell)
    stored = Store(place.parents[1]).read(place.name)
    assert stored is not None  # it is done, or this one would not run
    return stored.metrics
