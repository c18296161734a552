"""Certificates: what is proven is never broken, and a closed form is met."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from robustgen.calibration import Threshold, calibrate
from robustgen.data.load import load
from robustgen.data.source import Source
from robustgen.detectors.calibrated import CalibratedDetector
from robustgen.detectors.gat import GATDetector
from robustgen.errors import UsageError
from robustgen.evaluation.adaptive import evade
from robustgen.evaluation.bundles import BUNDLES, Bundle
from robustgen.evaluation.certified import ball_around, certified_figures, certify
from robustgen.evaluation.threats import Plan, evaluate, oblivious
from robustgen.guard import Guard
from robustgen.guard.least import least_score
from robustgen.models.build import build
from robustgen.models.load import LoadedModel
from robustgen.threat import ThreatModel
from robustgen.training.descent import Recipe
from robustgen.training.supervised import train_classifier

EPS = 0.02
QUICK = replace(
    BUNDLES["adaptive-standard"], steps=8, targets=2, target_steps=8, match_steps=8, references=2, queries=50,
    score_queries=50, boundary_queries=0,
)  # fmt: skip


@pytest.fixture(scope="module")
def digits() -> Source:
    return load("digits")


@pytest.fixture(scope="module")
def victim(digits: Source) -> LoadedModel:
    network = build("mlp", digits.spec.shape, 10, seed=0)
    train_classifier(network, digits, Recipe(epochs=4), device=torch.device("cpu"))
    return LoadedModel(network.eval(), "mlp", "0" * 64, digits.spec)


@pytest.fixture(scope="module")
def security(digits: Source, victim: LoadedModel) -> CalibratedDetector:
    return CalibratedDetector.fit(
        "certified-gat", digits, model=victim, options={"steps": 200, "eps": 0.05, "width": 8}
    )


@pytest.fixture(scope="module")
def guards(digits: Source, victim: LoadedModel, security: CalibratedDetector) -> dict[str, Guard]:
    pca = CalibratedDetector.fit("pca", digits)
    found = {"alone": Guard(victim, security)}
    for across in ("or", "smallest", "harmonic", "cauchy"):
        channels = {"perturbed": [pca], "adversarial": [security]}
        found[across] = Guard.fit(victim, channels, digits, across=across)
    return found


def some(source: Source, n: int = 40) -> tuple[Tensor, Tensor]:
    batch = source.read(source.rows("test")[:n])
    assert batch.y is not None
    return batch.x, batch.y


NAMES = ("alone", "or", "smallest", "harmonic", "cauchy")


@pytest.mark.parametrize("name", NAMES)
def test_no_score_in_the_ball_is_below_what_is_proven(
    name: str, guards: dict[str, Guard], digits: Source, generator: torch.Generator
) -> None:
    guard, (x, _) = guards[name], some(digits, 20)
    threat = ThreatModel("linf", EPS)
    with torch.no_grad():
        least = least_score(guard, ball_around(x, threat))
        for _ in range(5):
            noise = (2 * torch.rand(x.shape, generator=generator) - 1).sign() * EPS
            point = threat.project(x + noise, x)
            for label in range(10):
                score = guard.score(point, torch.full((20,), label))
                assert (score.double() >= least[:, label]).all()


@pytest.mark.parametrize("name", ["alone", "or"])
def test_no_attacker_breaks_what_is_certified(name: str, guards: dict[str, Guard], digits: Source) -> None:
    guard, (x, y) = guards[name], some(digits)
    threat = ThreatModel("linf", EPS)
    certificate = certify(guard, x, y, threat)
    assert 0.2 < certificate.certified.double().mean() < 1  # the test could fail
    lost = evade(guard, x, y, threat, bundle=QUICK).lost
    assert not (lost & certificate.certified).any()
    assert not (~certificate.right & certificate.accepted & certificate.certified).any()
    assert (certificate.certified >= (certificate.by_classifier | certificate.by_detector)).all()


def test_linear_bounds_prove_all_that_intervals_do(guards: dict[str, Guard], digits: Source) -> None:
    guard, (x, y) = guards["alone"], some(digits, 20)
    threat = ThreatModel("linf", 0.06)
    loose, tight = (certify(guard, x, y, threat, method=method) for method in ("interval", "crown"))
    assert (tight.certified >= loose.certified).all()
    assert (tight.by_classifier >= loose.by_classifier).all()
    assert not (evade(guard, x, y, threat, bundle=QUICK).lost & tight.certified).any()


def test_less_is_proven_of_larger_changes(guards: dict[str, Guard], digits: Source) -> None:
    x, y = some(digits)
    found = [certify(guards["or"], x, y, ThreatModel("linf", eps)).certified for eps in (0.002, 0.01, 0.03, 0.3)]
    for small, large in zip(found[1:], found, strict=False):
        assert (small <= large).all()
    assert found[0].double().mean() > found[2].double().mean()


def test_of_a_linear_system_it_is_exact(digits: Source) -> None:
    """Two linear logits apart by w.x: nothing within eps is taken for the other class iff |w.x| > eps |w|_1, or the
    detector, whose score with the wrong label is v.x, rejects all of it: iff v.x - eps |v|_1 exceeds the threshold.
    """
    guard, w, v = _linear_guard()
    generator = torch.Generator().manual_seed(3)
    x = torch.rand(500, 4, generator=generator)
    y = (x @ w > 0).long()
    side = 2.0 * y - 1  # the contrast with the wrong label is the lead of the right one
    for eps in (0.01, 0.05, 0.1):
        found = certify(guard, x, y, ThreatModel("linf", eps, -torch.inf, torch.inf))
        by_classifier = (x @ w) * side > eps * w.abs().sum()
        by_detector = (x @ v) * side - eps * v.abs().sum() > guard.threshold.value
        assert 0 < by_detector.sum() < 500
        assert (found.by_classifier == by_classifier).double().mean() > 0.99
        assert torch.equal(found.certified, found.by_classifier | found.by_detector)
        assert (found.by_detector == by_detector).double().mean() > 0.99


def _linear_guard() -> tuple[Guard, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    w, v = torch.randn(4, generator=generator), torch.randn(4, generator=generator)
    v = w + 0.3 * v
    classifier = nn.Sequential(nn.Linear(4, 2, bias=False))
    with torch.no_grad():
        classifier[0].weight.copy_(torch.stack([torch.zeros(4), w]))
    x = torch.rand(400, 4, generator=generator)
    detector = GATDetector(classes=2, steps=1, width=1).fit(TensorDataset(x, (x @ w > 0).long()))
    assert detector.standardise is not None
    detector.standardise.centre.zero_()
    detector.standardise.deviation.fill_(1)
    body, labels = detector.discriminator.body, detector.discriminator.labels
    assert isinstance(labels, nn.Linear)
    with torch.no_grad():
        first, second = body[1], body[3]
        assert isinstance(first, nn.Linear)
        assert isinstance(second, nn.Linear)
        for layer in (first, second):  # one unit passes v.x + 100, where the leaky ReLU is the identity
            layer.weight.zero_()
            layer.bias.zero_()
        first.weight[0].copy_(v)
        first.bias[0] = 100.0
        second.weight[0, 0] = 1.0
        labels.weight.zero_()
        labels.weight[1, 0] = 1.0
        labels.weight[0, 1] = 1.0
        second.bias[1] = 100.0
    spec = replace(load("digits").spec, shape=(4,))
    fitted = CalibratedDetector(
        "gat", detector, Threshold(0.2, 0.05, 100), np.sort(np.random.default_rng(0).random(100)), spec, 400
    )
    return Guard(classifier, fitted), w, v


def test_a_guard_without_bounds_is_told(digits: Source, victim: LoadedModel, guards: dict[str, Guard]) -> None:
    x, y = some(digits, 5)
    alone = Guard(victim, CalibratedDetector.fit("pca", digits))
    threat = ThreatModel("linf", EPS)
    with pytest.raises(UsageError, match="no bounds are known of the scores of pca"):
        certify(alone, x, y, threat)
    figures = certified_figures(alone, x, y, threat)
    assert figures["certified_robust_accuracy"] is None
    assert "no bounds are known" in figures["why"]
    told = certified_figures(guards["alone"], x, y, threat)
    assert told["why"] is None
    assert told["certified_robust_accuracy"]["n"] == 5
    with pytest.raises(UsageError, match="changes in linf"):
        certify(guards["alone"], x, y, ThreatModel("l2", 1.0))
    with pytest.raises(UsageError, match="method"):
        certify(guards["alone"], x, y, threat, method="intervall")


def test_a_classifier_without_bounds_proves_nothing(
    digits: Source, security: CalibratedDetector, guards: dict[str, Guard]
) -> None:
    x, y = some(digits)
    smooth = nn.Sequential(nn.Flatten(), nn.Linear(64, 10), nn.GELU()).eval()
    detector = CalibratedDetector(
        "certified-gat", security.detector, calibrate(security.calibration_scores, 0.05), security.calibration_scores,
        digits.spec, security.n_train,
    )  # fmt: skip
    found = certify(Guard(smooth, detector), x, y, ThreatModel("linf", 0.001))
    assert not found.by_classifier.any()
    assert torch.equal(found.certified, found.by_detector)
    assert torch.equal(found.by_detector, certify(guards["alone"], x, y, ThreatModel("linf", 0.001)).by_detector)


def test_fishers_sum_with_a_member_without_bounds_proves_nothing(
    digits: Source, victim: LoadedModel, security: CalibratedDetector
) -> None:
    x, y = some(digits)
    joined = Guard.fit(victim, [CalibratedDetector.fit("pca", digits), security], digits, within="fisher")
    assert not certify(joined, x, y, ThreatModel("linf", EPS)).by_detector.any()


@pytest.mark.slow
def test_a_cell_of_the_bench_holds_the_proof(
    guards: dict[str, Guard], digits: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a discriminator whose layers attacks put in another order while they run."""
    monkeypatch.setitem(BUNDLES, "short", Bundle(5, ("clean",), 1, 2, 2, 2, 1, 10, 5, 1))
    plan = Plan(eps=(0.05,), headline=0.05, steps=5, queries=20, bundle="short")
    assert any(type(part) is nn.Sequential for part in guards["alone"].modules())
    x, y = some(digits)
    blind = oblivious(guards["alone"].classifier, x, y, digits, plan)
    found, _ = evaluate(guards["alone"], digits, x, y, blind, plan, n_adaptive=5)
    assert found["certified"]["why"] is None
    assert found["certified"] == certified_figures(guards["alone"], x, y, ThreatModel("linf", 0.05))
