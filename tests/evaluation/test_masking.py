"""The checks that say when a guard must not be believed: each planted fault is caught, and a sound detector is not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from robustgen.attacks.pgd import PGD
from robustgen.data.load import load
from robustgen.data.source import Batch, Source
from robustgen.detectors.calibrated import CalibratedDetector
from robustgen.errors import UsageError
from robustgen.evaluation import masking
from robustgen.evaluation.adaptive import Evasion
from robustgen.evaluation.check import Check
from robustgen.evaluation.guarded import AttackedArrays, CleanArrays
from robustgen.evaluation.masking import knowledge_helps, masking_checks
from robustgen.evaluation.score_checks import ScoreProbe
from robustgen.evaluation.screening import alone
from robustgen.guard import Guard
from robustgen.models.load import LoadedModel
from robustgen.threat import ThreatModel
from robustgen.training.classifier import train
from robustgen.training.descent import Recipe
from robustgen_benchmarks.faults import FAULTS, Fault, planted

THREAT = ThreatModel("linf", 0.15)
NAMES = {
    "steady-score", "alone-or-together", "score-values", "score-gradient", "finite-differences", "led-by-gradient",
    "larger-eps", "full-box", "enough-steps", "black-box", "detector-alone",
}  # fmt: skip


@pytest.fixture(scope="module")
def digits() -> Source:
    return load("digits")


@pytest.fixture(scope="module")
def model(digits: Source) -> LoadedModel:
    return train(digits, "mlp", recipe=Recipe(epochs=15)).model


@pytest.fixture(scope="module")
def pca(digits: Source) -> CalibratedDetector:
    return CalibratedDetector.fit("pca", digits)


@pytest.fixture(scope="module")
def batch(digits: Source) -> Batch:
    return digits.read(digits.rows("test")[:40])


def failed(checks: list[Check]) -> set[str]:
    assert all(check.means and any(character.isdigit() for character in check.found) for check in checks)
    return {check.name for check in checks if check.passed is False}


def score_checks(guard: Guard, model: LoadedModel, batch: Batch) -> list[Check]:
    x = batch.x[:20]
    assert batch.y is not None
    pushed = PGD(threat=THREAT, steps=10, mode="max-loss")(model.network, x, batch.y[:20])
    return ScoreProbe(guard, THREAT, x, pushed, 0.01).checks()


CAUGHT: dict[Fault, set[str]] = {
    "shattered": {"led-by-gradient"},
    "vanishing": {"score-values", "score-gradient", "finite-differences", "led-by-gradient"},
    "randomised": {"steady-score", "finite-differences"},
    "quantised": {"score-values", "score-gradient", "finite-differences", "led-by-gradient"},
    "argmax": {"score-values", "score-gradient", "finite-differences", "led-by-gradient"},
    "hidden-seed": {"alone-or-together"},
    "detached": {"score-gradient", "finite-differences", "led-by-gradient"},
    "saturated": {"score-values", "score-gradient"},
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_caught(
    fault: Fault, model: LoadedModel, pca: CalibratedDetector, digits: Source, batch: Batch
) -> None:
    guard = Guard(model, planted(pca, fault, digits))
    assert failed(score_checks(guard, model, batch)) >= CAUGHT[fault]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["pca", "knn"])
def test_a_sound_detector_trips_no_check(name: str, model: LoadedModel, digits: Source, batch: Batch) -> None:
    assert batch.y is not None
    before = torch.get_rng_state()
    told: list[tuple[str, float]] = []
    guard = Guard(model, CalibratedDetector.fit(name, digits))
    checks = masking_checks(guard, THREAT, batch.x[:16], batch.y[:16], told=lambda *words: told.append(words))
    assert failed(checks) == set()
    assert {check.name for check in checks} == NAMES
    assert [share for _, share in told] == sorted(share for _, share in told)
    assert torch.equal(before, torch.get_rng_state())
    assert Check(**checks[0].to_json()) == checks[0]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["autoencoder", "gat"])
def test_a_sound_network_trips_no_check(name: str, model: LoadedModel, digits: Source, batch: Batch) -> None:
    assert batch.y is not None
    through = model if name == "gat" else None
    options = {"steps": 200, "width": 8} if name == "gat" else {"preset": "fast"}
    fitted = CalibratedDetector.fit(name, digits, options=options, model=through)
    assert failed(masking_checks(Guard(model, fitted), THREAT, batch.x, batch.y)) == set()


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["shattered", "saturated"])
def test_attacks_see_that_they_are_led_nowhere(
    fault: Fault, model: LoadedModel, pca: CalibratedDetector, digits: Source, batch: Batch
) -> None:
    assert batch.y is not None
    checks = masking_checks(Guard(model, planted(pca, fault, digits)), THREAT, batch.x[:6], batch.y[:6], steps=20)
    assert failed(checks) >= {"full-box", "detector-alone"}


def test_a_score_that_says_it_has_no_gradients_is_not_accused(model: LoadedModel, digits: Source, batch: Batch) -> None:
    assert batch.y is not None
    guard = Guard(model, CalibratedDetector.fit("isolation-forest", digits, options={"trees": 10}))
    checks = masking_checks(guard, THREAT, batch.x[:8], batch.y[:8])
    assert {check.passed for check in checks if check.name in {"score-gradient", "full-box", "black-box"}} == {None}


def test_what_the_classifier_holds_by_itself_changes_no_check_and_costs_nothing(
    model: LoadedModel, pca: CalibratedDetector, batch: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert batch.y is not None
    threat = ThreatModel("linf", 0.1)
    x, y = batch.x[:16], batch.y[:16]
    right = model.network(x).argmax(1) == y
    (first,) = alone(model.network, x, y, [threat])
    attacked: list[tuple[float, int]] = []
    evade = masking.evade

    def seen(guard: Guard, rows: Tensor, label: Tensor, within: ThreatModel, **options: Any) -> Evasion:
        attacked.append((within.eps, len(rows)))
        assert options["precision"] == "mixed"
        return evade(guard, rows, label, within, **options)

    monkeypatch.setattr(masking, "evade", seen)
    guard = Guard(model, pca)
    whole = masking_checks(guard, threat, x, y, steps=10, precision="mixed")
    most, attacked[:] = max(n for eps, n in attacked if eps <= 0.1), []
    spared = masking_checks(guard, threat, x, y, steps=10, precision="mixed", held=~first.fooled)
    assert {check.name: check.passed for check in spared} == {check.name: check.passed for check in whole}
    told = {check.name: check.found for check in spared}["enough-steps"]
    assert f"({int((right & ~first.fooled).sum())} of them held by the classifier alone" in told
    assert most == int(right.sum())
    assert max(n for eps, n in attacked if eps <= 0.1) == int((right & first.fooled).sum()) < most
    assert max(n for eps, n in attacked if 0.1 < eps < 1) == most  # in a larger ball they may fall


def test_inputs_that_are_all_misclassified_are_refused(
    model: LoadedModel, pca: CalibratedDetector, batch: Batch
) -> None:
    with torch.no_grad():
        wrong: Tensor = (model.network(batch.x).argmax(1) + 1) % 10
    with pytest.raises(UsageError, match="classified correctly"):
        masking_checks(Guard(model, pca), THREAT, batch.x, wrong)


def test_whoever_knows_more_must_not_reach_less() -> None:
    clean = CleanArrays(np.zeros(50, dtype=int), np.zeros(50, dtype=int), np.zeros(50), np.arange(99.0))

    def attack(threat: Any, lost: int) -> AttackedArrays:
        return AttackedArrays(threat, "a", "linf", 0.1, np.arange(50), (np.arange(50) < lost).astype(int), np.zeros(50))

    assert knowledge_helps(clean, [attack("Z", 10), attack("W", 30)], 0.05).passed is True
    assert knowledge_helps(clean, [attack("Z", 31), attack("W", 30)], 0.05).passed is True  # one may be luck
    assert knowledge_helps(clean, [attack("Q", 40), attack("W", 30)], 0.05).passed is False
    assert knowledge_helps(clean, [attack("Z", 40)], 0.05).passed is None
