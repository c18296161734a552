"""Tramèr's check: what a detector reaches, beside the best classifier known at half the size."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from robustgen.data import DATA
from robustgen.data.load import load
from robustgen.detectors.calibrated import CalibratedDetector
from robustgen.evaluation.bundles import BUNDLES, Bundle
from robustgen.evaluation.guarded import AttackedArrays, CleanArrays
from robustgen.evaluation.guarded_system import cell, sentence, system
from robustgen.evaluation.threats import Plan, evaluate, oblivious
from robustgen.evaluation.tramer import (
    PUBLISHED,
    Known,
    as_check,
    best_of,
    in_words,
    of_classifier,
    of_figures,
    published,
    verdict,
)
from robustgen.guard import Guard
from robustgen.metrics import proportion
from robustgen.training.classifier import train
from robustgen.training.descent import Recipe


def clean(n: int = 10, right: int = 8) -> CleanArrays:
    """Scores of 1, a threshold above; the first `right` of label 0 are classified rightly."""
    predicted = np.r_[np.zeros(right, dtype=int), np.ones(n - right, dtype=int)]
    return CleanArrays(np.zeros(n, dtype=int), predicted, np.ones(n), np.arange(100.0))


def attack(eps: float, wrong: list[int], n: int = 10, threat: Any = "Z", score: float = 1.0) -> AttackedArrays:
    predicted = np.isin(np.arange(n), [*wrong, 8, 9]).astype(int)
    return AttackedArrays(threat, "pgd", "linf", eps, np.arange(n), predicted, np.full(n, score))


def test_the_classifier_is_told_by_the_worst_case_over_attacks_of_that_size() -> None:
    attacked = [attack(0.02, [0]), attack(0.05, [1]), attack(0.05, [1, 2]), attack(0.1, [3, 4, 5])]
    assert of_classifier(clean(), attacked, "linf", 0.05) == proportion(5, 10)  # rows 0, 1, 2 lost, 8 and 9 wrong
    assert of_classifier(clean(), attacked, "linf", 0.1) == proportion(2, 10)
    assert of_classifier(clean(), attacked, "linf", 0.03) is None  # nobody tried it
    assert of_classifier(clean(), attacked, "l2", 0.05) is None
    knowing = [attack(0.05, [0, 1, 2, 3], threat="W")]
    assert of_classifier(clean(), knowing, "linf", 0.05) is None
    part = replace(attack(0.05, [1]), row=np.arange(5), predicted=np.array([0, 1, 0, 0, 0]), score=np.ones(5))
    assert of_classifier(clean(), [part], "linf", 0.05) == proportion(4, 5)


def test_a_system_above_what_is_known_is_named() -> None:
    attacked = [attack(0.05, [0, 1, 2]), attack(0.1, [], score=1.0), attack(0.1, [], threat="W")]
    known = Known(0.2, "somebody 2024")
    found = system(clean(200, 198), [_wide(one) for one in attacked], ("linf", 0.1), 0.05, bound=known)
    assert found["tramer"]["passed"] is False
    assert found["tramer"]["bound"] == 0.2
    assert found["tramer"]["classifier"] == proportion(195, 200)._asdict()
    said = sentence(found, 0.05)
    assert "beside 20.0 % at half the size by somebody 2024, which is more than a classifier is known to reach" in said
    only = system(
        clean(200, 198), [_wide(one) for one in attacked], ("linf", 0.1), 0.05, bound=known._replace(judges=False)
    )
    assert only["tramer"]["passed"] is None
    assert "settles nothing" in sentence(only, 0.05)
    high = system(clean(200, 198), [_wide(one) for one in attacked], ("linf", 0.1), 0.05, bound=Known(0.99, "x"))
    assert high["tramer"]["passed"] is True
    assert sentence(high, 0.05).endswith("beside 99.0 % at half the size by x")
    none = system(clean(200, 198), [_wide(one) for one in attacked], ("linf", 0.1), 0.05)
    assert none["tramer"]["bound"] is none["tramer"]["passed"] is None
    assert in_words(none) == ""
    assert as_check(none) == []
    assert [one["passed"] for world in (found, only, high) for one in as_check(world)] == [False, None, True]
    assert as_check(high)[0]["found"].startswith("Right, accepted and robust: ")


def _wide(one: AttackedArrays) -> AttackedArrays:
    """The same of 200 inputs, of which the last two are wrong from the beginning."""
    predicted = np.zeros(200, dtype=int)
    predicted[: len(one.predicted) - 2] = one.predicted[:-2]
    predicted[198:] = 1
    return replace(one, row=np.arange(200), predicted=predicted, score=np.full(200, one.score[0]))


def test_a_hairs_breadth_above_is_no_proof() -> None:
    fc = proportion(52, 100)._asdict()
    assert verdict(fc, Known(0.5, "x"))["passed"] is True
    assert verdict(fc, Known(0.4, "x"))["passed"] is False
    assert verdict({"value": 0.52}, Known(0.5, "x"))["passed"] is False
    assert verdict(fc, None) == {"bound": None, "of": None, "passed": None}


def test_those_fit_to_judge_by_come_before_higher_ones() -> None:
    weak, strong, robust = Known(0.9, "plain", judges=False), Known(0.7, "robust"), Known(0.6, "old")
    assert best_of([weak, None, robust, strong]) == strong
    assert best_of([None, weak]) == weak
    assert best_of([]) is None


def test_published_figures_are_of_known_data_and_of_their_size_alone() -> None:
    for (data, norm, eps), known in PUBLISHED.items():
        assert data in DATA
        assert 0 < known.accuracy < 1
        assert published(data, norm, eps) is known
        assert published(data, norm, eps * 0.9) is None
    assert published("cifar10", "linf", 0.031372) is not None
    assert published("digits", "linf", 8 / 255) is None


def test_stored_figures_tell_the_same() -> None:
    attacked = [attack(0.05, [1]), attack(0.05, [1, 2]), attack(0.1, [3])]
    figures = json.loads(json.dumps(cell(clean(), attacked, 0.05), default=float))
    assert of_figures(figures, "linf", 0.05) == pytest.approx(0.6)
    for one in figures["systems"]:
        del one["tramer"]["classifier"]  # as cells were stored before
    assert of_figures(figures, "linf", 0.05) == pytest.approx(0.6)
    assert of_figures(figures, "linf", 0.07) is None


@pytest.mark.slow
def test_a_guard_by_itself_is_put_beside_its_own_classifier(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BUNDLES, "short", Bundle(5, ("clean",), 1, 2, 2, 2, 1, 10, 5, 1))
    source = load("digits")
    judge = train(source, "mlp", recipe=Recipe(epochs=4)).model
    guard = Guard(judge.network, CalibratedDetector.fit("margin", source, model=judge))
    batch = next(iter(source.batches("test", 60)))
    assert batch.y is not None
    plan = Plan(eps=(0.1,), headline=0.1, steps=5, queries=20, bundle="short")
    blind = oblivious(judge.network, batch.x, batch.y, source, plan)
    found, _ = evaluate(guard, source, batch.x, batch.y, blind, plan, n_adaptive=10)
    (half,) = [kind for kind in blind if kind.attack == "pgd" and kind.eps == 0.05]
    held = (judge.network(batch.x).argmax(1) == batch.y) & (judge.network(blind[half].x_adv).argmax(1) == batch.y)
    (ranked,) = [one for one in found["systems"] if one["norm"] == "linf" and one["eps"] == 0.1]
    assert ranked["tramer"]["bound"] <= float(held.double().mean()) + 1e-9  # smaller changes are legal too
    assert ranked["tramer"]["classifier"]["value"] == ranked["tramer"]["bound"]
    assert ranked["tramer"]["of"] == "its own classifier, the only one known here"
    assert ranked["tramer"]["of"] in found["sentence"]
