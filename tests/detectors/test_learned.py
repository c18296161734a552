"""Detectors that learn once and are calibrated beside several classifiers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from robustgen.artifacts import staged
from robustgen.bench.prepared import Classifier, Fit, Learned
from robustgen.bench.runner import plan, run
from robustgen.bench.store import Store
from robustgen.bench.suite import parse
from robustgen.data.load import load
from robustgen.data.source import Source
from robustgen.detectors import DETECTORS
from robustgen.detectors.calibrated import CalibratedDetector
from robustgen.detectors.learned import learn, learns_alone, load_learned, save_learned
from robustgen.errors import ArtifactError, UsageError
from robustgen.models.build import build
from robustgen.models.load import LoadedModel, load_model

OPTIONS = {"gat": {"steps": 3, "width": 4}, "certified-gat": {"steps": 3, "width": 4}, "conditional-vae": {"epochs": 1}}


@pytest.fixture(scope="module")
def digits() -> Source:
    return load("digits")


@pytest.fixture(scope="module")
def victim(digits: Source) -> LoadedModel:
    return LoadedModel(build("mlp", digits.spec.shape, 10, seed=0).eval(), "mlp", "0" * 64, digits.spec)


def test_only_who_asks_a_classifier_for_a_label_alone_learns_apart() -> None:
    assert {name for name in DETECTORS if learns_alone(name)} == {*OPTIONS, "conditional-gan"}


@pytest.mark.parametrize("name", OPTIONS)
def test_learned_apart_it_is_what_it_is_learned_together(
    name: str, digits: Source, victim: LoadedModel, tmp_path: Path
) -> None:
    whole = CalibratedDetector.fit(name, digits, model=victim, options=OPTIONS[name])
    with staged(tmp_path / "learned") as directory:
        save_learned(name, learn(name, digits, options=OPTIONS[name]), directory)
    learned = load_learned(tmp_path / "learned")
    apart = CalibratedDetector.fit(name, digits, model=victim, options=OPTIONS[name], learned=learned)
    np.testing.assert_array_equal(apart.calibration_scores, whole.calibration_scores)
    assert apart.threshold == whole.threshold
    assert apart.summary() == whole.summary()
    for key, value in whole.detector.state_dict().items():
        assert torch.equal(apart.detector.state_dict()[key].nan_to_num(7), value.nan_to_num(7)), (
            key
        )  # what never was is NaN


def test_what_was_learned_must_be_what_is_asked(digits: Source, victim: LoadedModel) -> None:
    options = OPTIONS["conditional-vae"]
    learned = learn("conditional-vae", digits, options=options)
    with pytest.raises(UsageError, match="but conditional-vae .* is asked"):
        CalibratedDetector.fit("conditional-vae", digits, model=victim, options={"epochs": 2}, learned=learned)
    with pytest.raises(UsageError, match="but gat .* is asked"):
        CalibratedDetector.fit("gat", digits, model=victim, learned=learned)
    with pytest.raises(UsageError, match="leave out learned"):
        CalibratedDetector.fit("pca", digits, learned=learned)
    with pytest.raises(UsageError, match="pca is not learnt apart"):
        learn("pca", digits)


def test_what_is_no_learned_detector_is_refused(digits: Source, tmp_path: Path) -> None:
    with staged(tmp_path / "fitted") as directory:
        CalibratedDetector.fit("pca", digits).save(directory)
    with pytest.raises(ArtifactError):
        load_learned(tmp_path / "fitted")


TWO_VICTIMS = """
name = "two"
[victims.short]
epochs = 1
[victims.long]
epochs = 2
[detectors.small]
detector = "conditional-vae"
epochs = 1
[[cells]]
kind = "adversarial"
data = "digits"
victim = ["short", "long"]
detector = ["small", "pca"]
"""


def test_a_suite_learns_once_for_all_its_victims(tmp_path: Path) -> None:
    made = ("classifier", "learned", "detector")  # the attacks on them are left out
    jobs = [replace(job, asked=True) for job in plan(parse(TWO_VICTIMS, "here")) if job.cell.kind in made]
    kinds = [job.cell.kind for job in jobs]
    assert (kinds.count("learned"), kinds.count("classifier")) == (1, 2)
    assert run(jobs, tmp_path).failed == {}
    store, fitted = Store(tmp_path), {}
    (learned,) = [job for job in jobs if isinstance(job.cell, Learned)]
    spent = store.read(learned.key)
    assert spent is not None
    for job in jobs:
        if isinstance(job.cell, Fit) and isinstance(job.cell.victim, Classifier):
            fitted[job.cell.victim.epochs] = CalibratedDetector.load(store.place(job.key))
            stored = store.read(job.key)
            assert stored is not None
            assert stored.metrics["fit_seconds"] > spent.metrics["fit_seconds"]  # what was learned is part of a fit
            (place,) = [store.place(need.key) for need in jobs if need.cell == job.cell.victim]
            beside = fitted[job.cell.victim.epochs].model
            assert beside is not None
            assert beside.sha256 == load_model(str(place)).sha256
    assert set(fitted) == {1, 2}
    short, long = (fitted[epochs].detector.state_dict() for epochs in (1, 2))
    assert all(torch.equal(short[key], long[key]) for key in short)
