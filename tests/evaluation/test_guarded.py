"""The figures of a classifier with a detector: known by hand, and the laws that no set of attacks may break."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from robustgen.artifacts import to_json
from robustgen.errors import DataError, UsageError
from robustgen.evaluation.clusters import clustered_auroc, clustered_mean
from robustgen.evaluation.guarded import (
    AttackedArrays,
    CleanArrays,
    clean_figures,
    detection_row,
    means,
    noise_row,
)
from robustgen.evaluation.guarded_system import cell, sentence, system
from robustgen.evaluation.tramer import Known
from robustgen.metrics import auroc, proportion

HELD_OUT = np.arange(1.0, 20.0)  # 19 scores: the threshold for 5 % false alarms is the largest, 19
SIZE = ("linf", 0.1)


def by_hand() -> CleanArrays:
    """Ten inputs of class 0; the last two are taken for class 1; the first and the last are flagged."""
    predicted = np.array([0, 0, 0, 0, 0, 0, 0, 0, 1, 1])
    score = np.array([20.0, 1, 2, 3, 4, 5, 6, 7, 8, 30])
    return CleanArrays(np.zeros(10, dtype=np.int64), predicted, score, HELD_OUT)


def attack(threat: Any, row: Any, predicted: Any, score: Any, eps: float = 0.1, **options: Any) -> AttackedArrays:
    return AttackedArrays(
        threat,
        options.pop("name", f"attack {threat}"),
        options.pop("norm", "linf"),
        eps,
        np.array(row),
        np.array(predicted),
        np.array(score, dtype=np.float64),
        **options,
    )


def test_other_clean_inputs_are_the_negatives() -> None:
    own = by_hand()
    fresh = CleanArrays(np.array([0, 0, 1, 1]), np.array([0, 1, 1, 1]), np.array([1.0, 25, 26, 2]), HELD_OUT)
    both = replace(own, others=fresh)
    one = attack("Z", [1, 2], [1, 1], [24.0, 3.0])
    assert clean_figures(both, 0.05) == clean_figures(fresh, 0.05)
    row = detection_row(both, one, 0.05)
    assert row["auroc"]["value"] == roc_auc_score([0, 0, 0, 0, 1, 1], [1, 25, 26, 2, 24, 3])
    expected = roc_auc_score([0, 0, 0, 1, 1], [1, 26, 2, 24, 3])
    assert row["auroc_right_only"]["value"] == pytest.approx(expected)
    assert row["success"] == detection_row(own, one, 0.05)["success"]  # which are about the attacked inputs alone
    assert system(both, [one], SIZE, 0.05) == system(own, [one], SIZE, 0.05)
    assert means(both, [one], 0.05)["Z"]["auroc"]["value"] == row["auroc"]["value"]


def test_what_the_detector_costs_by_hand() -> None:
    found = clean_figures(by_hand(), 0.05, ms_per_input=1.5)
    assert found["threshold"] == 19.0
    assert found["n_calibration"] == 19
    assert found["accuracy"] == proportion(8, 10)._asdict()
    assert found["useful"] == proportion(7, 10)._asdict()
    assert found["false_alarms"] == proportion(2, 10)._asdict()
    assert found["false_rejects_right"] == proportion(1, 8)._asdict()
    assert found["false_rejects_wrong"] == proportion(1, 2)._asdict()
    assert found["ms_per_input"] == 1.5


def test_a_row_by_hand() -> None:
    """Of eight right inputs four are fooled, one of them accepted; one failed attempt is flagged; wrong inputs that
    stay wrong are no successes.
    """
    one = attack("Z", range(10), [1, 1, 1, 1, 0, 0, 0, 0, 1, 1], [25, 10, 21, 22, 30, 1, 1, 1, 40, 40])
    row = detection_row(by_hand(), one, 0.05)
    assert row["n"] == 8
    assert row["fooled"] == proportion(4, 8)._asdict()
    assert row["success"] == proportion(1, 8)._asdict()
    assert row["tpr"] == {"0.001": None, "0.01": None, "0.05": proportion(3, 4)._asdict()}
    assert row["failed_flagged"] == proportion(1, 4)._asdict()
    clean, caught = by_hand().score, [25.0, 10, 21, 22]
    assert row["auroc"]["value"] == roc_auc_score([0] * 10 + [1] * 4, [*clean, *caught])
    assert row["auroc_right_only"]["value"] == roc_auc_score([0] * 8 + [1] * 4, [*clean[:8], *caught])
    assert row["average_precision"] == average_precision_score([0] * 10 + [1] * 4, [*clean, *caught])
    assert row["fpr_at_95_tpr"] == 0.2  # all four must be flagged: 20 and 30 lie above 10 too
    precision = row["precision"]
    assert precision["0.5"] == pytest.approx(0.75 / (0.75 + 0.2))
    assert precision["0.001"] == pytest.approx(0.00075 / (0.00075 + 0.999 * 0.2))


def test_attempts_that_failed_are_not_mixed_in() -> None:
    fooled, failed = ([1, 1, 1], [21, 22, 10]), ([0, 0, 0], [5, 40, 50])
    both = attack("Z", range(1, 7), fooled[0] + failed[0], fooled[1] + failed[1])
    alone = attack("Z", range(1, 4), *fooled)
    mixed, pure = (detection_row(by_hand(), one, 0.05) for one in (both, alone))
    for figure in ("auroc", "tpr", "fpr_at_95_tpr", "average_precision", "precision"):
        assert mixed[figure] == pure[figure]
    assert pure["failed_flagged"] is None
    none = detection_row(by_hand(), attack("Z", [1, 2], [0, 0], [30, 1]), 0.05)
    assert none["auroc"] is None
    assert none["fpr_at_95_tpr"] is None
    assert none["fooled"]["value"] == 0.0


def test_illegal_results_are_no_success() -> None:
    one = attack("W", [1, 2], [1, 1], [3, 3], legal=np.array([True, False]))
    assert detection_row(by_hand(), one, 0.05)["success"] == proportion(1, 2)._asdict()
    assert system(by_hand(), [one], SIZE, 0.05)["success_adaptive"] == proportion(1, 2)._asdict()


def test_thresholds_come_from_calibration_scores_alone() -> None:
    rng = np.random.default_rng(0)
    scores = rng.normal(2, 1, 50)
    clean = CleanArrays(np.zeros(50, dtype=int), np.zeros(50, dtype=int), rng.normal(5, 1, 50), rng.normal(0, 1, 2000))
    row = detection_row(clean, attack("Z", range(50), [1] * 50, scores), 0.05)
    for rate in (0.001, 0.01, 0.05):
        threshold = np.sort(clean.calibration_scores)[2000 - int(2001 * rate)]
        expected = proportion(int((scores > threshold).sum()), 50)
        assert row["tpr"][f"{rate:g}"] == expected._asdict()
    assert clean_figures(clean, 0.05)["false_alarms"]["value"] > 0.9  # realised, not nominal


def test_noise_counts_where_the_label_stays() -> None:
    noise = attack("N", range(10), [0, 0, 0, 0, 1, 1, 1, 1, 1, 1], [30, 30, 1, 1, 30, 30, 30, 30, 30, 1], name="sign")
    found = noise_row(by_hand(), noise, 0.05)
    assert (found["kind"], found["kept"], found["n"]) == ("sign", 6, 10)
    assert found["flagged"] == proportion(3, 6)._asdict()


def test_a_system_by_hand() -> None:
    clean = by_hand()
    oblivious = attack("Z", range(10), [1, 1, 1, 0, 0, 0, 0, 0, 1, 1], [25, 3, 30, 1, 1, 1, 1, 1, 40, 40])
    knowing = attack("W", range(10), [1, 1, 1, 1, 0, 0, 0, 0, 1, 1], [3, 30, 3, 3, 1, 1, 1, 1, 40, 3])
    small = attack("Z", range(10), [0] * 10, [1, 21, 1, 1, 1, 1, 1, 1, 40, 40], eps=0.1 / 8)
    found = system(clean, [oblivious, knowing], SIZE, 0.05, small={"eps/8": small}, bound=Known(0.3, "x"))
    assert found["n"] == 10
    # lost: rows 0 to 3, 8 (wrong and accepted as it is) and 9 (made so)
    assert found["robust_accuracy"] == proportion(4, 10)._asdict()
    assert found["fc"] == proportion(4, 10)._asdict()
    assert found["success_oblivious"] == proportion(1, 8)._asdict()
    assert found["success_adaptive"] == proportion(3, 8)._asdict()
    assert found["success_worst"] == proportion(4, 8)._asdict()
    assert found["rejected_small"] == {"eps/8": proportion(1, 7)._asdict()}
    # 0.4 of 10 is no proof
    assert found["tramer"] == {"bound": 0.3, "of": "x", "passed": True, "classifier": None}
    assert not system(clean, [oblivious], SIZE, 0.05, bound=Known(0.05, "x"))["tramer"]["passed"]
    alone = system(clean, [oblivious], SIZE, 0.05)
    assert alone["success_adaptive"] is None
    assert alone["tramer"]["passed"] is None
    assert alone["robust_accuracy"]["value"] == 0.8  # rows 1 and 8 are lost; 0 is rejected, which fc does not forgive
    assert alone["fc"]["value"] == 0.6


def test_the_inputs_told_for_are_those_every_attack_saw() -> None:
    first, second = attack("Z", [0, 1, 2], [1, 1, 1], [1, 1, 1]), attack("W", [1, 2, 3], [0, 0, 0], [1, 1, 1])
    assert system(by_hand(), [first, second], SIZE, 0.05)["n"] == 2
    assert system(by_hand(), [first, second], SIZE, 0.05, among=np.arange(8))["n"] == 8
    with pytest.raises(DataError, match="same inputs"):
        system(by_hand(), [first, attack("W", [5], [0], [1])], SIZE, 0.05)


def test_a_larger_size_that_only_the_unknowing_tried_is_told_for_the_inputs_that_those_who_know_tried() -> None:
    """Told for all ten, .7 would be left at .2 and .4 at .1."""
    rows = range(10)
    unknowing = [attack("Z", rows, [0] * 8 + [1] * 2, [1] * 8 + [30] * 2, eps=eps) for eps in (0.1, 0.2)]
    knowing = attack("W", range(5), [1, 1, 1, 0, 0], [1] * 5)
    at, above = (system(by_hand(), [*unknowing, knowing], ("linf", eps), 0.05) for eps in (0.1, 0.2))
    assert at["n"] == above["n"] == 5
    assert above["robust_accuracy"] == at["robust_accuracy"] == proportion(2, 5)._asdict()
    assert above["success_adaptive"] is None  # nobody who knows the detector tried just this size


def test_the_sentence() -> None:
    oblivious, knowing = attack("Z", range(8), [1] * 8, [30] * 8), attack("W", range(8), [1] * 8, [1, 30] * 4)
    found = cell(by_hand(), [oblivious, knowing, replace(oblivious, norm="l2", eps=2.0)], 0.05)
    assert found["sentence"] == (
        "50 % of inputs changed by at most 0.1 (linf) get a wrong label accepted by an attacker who knows the "
        "detector, at 5 % false alarms; without that knowledge 0 % (8 inputs, worst case over 2 attacks)"
    )
    assert "unverified" in cell(by_hand(), [oblivious], 0.05)["sentence"]
    assert "nothing is known" in cell(by_hand(), [], 0.05)["sentence"]
    assert sentence(found["systems"][0], 0.05).startswith("unverified")  # l2: nobody knew
    assert json.loads(to_json(found))["systems"][1]["n"] == 8


@st.composite
def worlds(draw: st.DrawFn) -> tuple[CleanArrays, list[AttackedArrays]]:
    """Clean inputs of three classes and a few attacks on all of them, each legal at its own eps."""
    n = draw(st.integers(2, 12))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    clean = CleanArrays(rng.integers(0, 3, n), rng.integers(0, 3, n), rng.normal(size=n), rng.normal(size=40))
    attacks = [
        attack(
            draw(st.sampled_from("ZTWQ")),
            np.arange(n),
            rng.integers(0, 3, n),
            rng.normal(size=n),
            draw(st.sampled_from([0.05, 0.1, 0.2])),
        )
        for _ in range(draw(st.integers(1, 4)))
    ]
    return clean, attacks


@settings(max_examples=60, deadline=None)
@given(worlds())
def test_another_attack_never_raises_robust_accuracy(world: tuple[CleanArrays, list[AttackedArrays]]) -> None:
    clean, attacks = world
    size, everything = ("linf", 0.2), np.arange(len(clean.label))
    found = [system(clean, attacks[: k + 1], size, 0.05, among=everything) for k in range(len(attacks))]
    for figure in ("robust_accuracy", "fc"):
        values = [one[figure]["value"] for one in found]
        assert values == sorted(values, reverse=True)
        assert all(one["fc"]["value"] <= one["robust_accuracy"]["value"] for one in found)


@settings(max_examples=60, deadline=None)
@given(worlds())
def test_a_larger_eps_never_raises_robust_accuracy(world: tuple[CleanArrays, list[AttackedArrays]]) -> None:
    clean, attacks = world
    everything = np.arange(len(clean.label))
    for figure in ("robust_accuracy", "fc"):
        values = [
            system(clean, attacks, ("linf", eps), 0.05, among=everything)[figure]["value"]
            for eps in (0.01, 0.05, 0.1, 0.2, 0.5)
        ]
        assert values == sorted(values, reverse=True)


@settings(max_examples=30, deadline=None)
@given(worlds())
def test_rejecting_everything_is_robust_and_useless(world: tuple[CleanArrays, list[AttackedArrays]]) -> None:
    clean, attacks = world
    clean = replace(clean, score=clean.score * 0 + 100)
    attacks = [replace(one, score=one.score * 0 + 100) for one in attacks]
    found = system(clean, attacks, ("linf", 0.2), 0.05, among=np.arange(len(clean.label)))
    assert clean_figures(clean, 0.05)["useful"]["value"] == 0.0
    assert found["robust_accuracy"]["value"] == 1.0
    assert found["fc"]["value"] == 0.0


@settings(max_examples=30, deadline=None)
@given(worlds(), st.randoms(use_true_random=False))
def test_the_order_of_inputs_does_not_matter(world: tuple[CleanArrays, list[AttackedArrays]], shuffle: Any) -> None:
    clean, attacks = world
    n = len(clean.label)
    order = np.array(shuffle.sample(range(n), n))
    place = np.argsort(order)
    moved = CleanArrays(clean.label[order], clean.predicted[order], clean.score[order], clean.calibration_scores[::-1])
    again = [replace(one, row=place[one.row]) for one in attacks]
    first, second = cell(clean, attacks, 0.05), cell(moved, again, 0.05)
    values = [
        {threat: figure["fooled"]["value"] for threat, figure in one.pop("means").items()} for one in (first, second)
    ]
    assert values[0] == pytest.approx(values[1])  # their intervals draw inputs by their places
    assert first == second


def test_a_clustered_interval_counts_inputs_not_attempts() -> None:
    """Ten attacks that agree on every input tell no more than one."""
    rng = np.random.default_rng(0)
    once = (rng.random(200) < 0.3).astype(float)
    repeated, inputs = np.tile(once, 10), np.tile(np.arange(200), 10)
    wide, narrow = clustered_mean(repeated, inputs), proportion(int(repeated.sum()), 2000)
    assert wide.value == pytest.approx(once.mean())
    assert wide.n == 200
    assert wide.high - wide.low > 2.5 * (narrow.high - narrow.low)
    plain = proportion(int(once.sum()), 200)
    assert wide.high - wide.low == pytest.approx(plain.high - plain.low, rel=0.15)


def test_clusters_that_all_agree_keep_a_width() -> None:
    found = clustered_mean(np.ones(60), np.arange(60) % 20)
    assert found == proportion(20, 20)
    assert clustered_mean([0.0, 1.0], [3, 3]) == (0.5, 0.0, 1.0, 1)
    with pytest.raises(DataError, match="belongs to one input"):
        clustered_mean([0.0, 1.0], [1])


def test_a_clustered_auroc_is_the_auroc_with_the_interval_of_inputs() -> None:
    rng = np.random.default_rng(1)
    normal, anomalous = np.round(rng.normal(size=150), 1), np.round(rng.normal(1, 1, 150), 1)
    place = np.arange(150)
    found = clustered_auroc(normal, place, anomalous, place)
    plain = auroc(normal, anomalous)
    assert found.value == pytest.approx(plain.value)
    assert found.low == pytest.approx(plain.low, abs=0.025)
    many = clustered_auroc(normal, place, np.tile(anomalous, 5), np.tile(place, 5))
    assert many.value == pytest.approx(plain.value)
    assert many.high - many.low == pytest.approx(found.high - found.low, rel=0.1)


def test_means_over_attacks_count_inputs() -> None:
    rng = np.random.default_rng(0)
    clean = CleanArrays(np.zeros(100, dtype=int), np.zeros(100, dtype=int), rng.normal(size=100), rng.normal(size=99))
    one = attack("Z", range(100), rng.integers(0, 2, 100), rng.normal(2, 1, 100))
    found = means(clean, [one, replace(one, attack="again"), replace(one, threat="N")], 0.05)
    assert set(found) == {"Z"}
    assert found["Z"]["attacks"] == 2
    row = detection_row(clean, one, 0.05)
    for figure in ("fooled", "success", "auroc"):
        assert found["Z"][figure]["value"] == pytest.approx(row[figure]["value"])
        assert found["Z"][figure]["n"] == 100


def test_arrays_that_do_not_fit_are_refused() -> None:
    clean = by_hand()
    with pytest.raises(UsageError, match="threat model"):
        attack("X", [0], [0], [0])
    with pytest.raises(DataError, match="each once"):
        attack("Z", [0, 0], [0, 0], [1, 1])
    with pytest.raises(DataError, match="each once"):
        attack("Z", [0, 1], [0], [1, 1])
    with pytest.raises(DataError, match="NaN"):
        attack("Z", [0], [0], [np.nan])
    with pytest.raises(DataError, match="10 clean inputs"):
        detection_row(clean, attack("Z", [10], [0], [1]), 0.05)
    with pytest.raises(DataError, match="other labels"):
        detection_row(clean, attack("Z", [1], [0], [1], label=np.array([1])), 0.05)
    with pytest.raises(DataError, match="a score each"):
        CleanArrays(clean.label, clean.predicted[:3], clean.score, HELD_OUT)
