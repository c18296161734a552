"""Systems that answer the same input differently twice: most draws count, whether classifier or detector is random."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from robustgen.calibration import Threshold
from robustgen.data.load import load
from robustgen.detectors.calibrated import CalibratedDetector
from robustgen.evaluation.adaptive import DRAWS, evade, verdicts
from robustgen.evaluation.bundles import Bundle
from robustgen.evaluation.threats import _judged, _once, majority
from robustgen.guard import Guard
from robustgen.threat import ThreatModel

THREAT = ThreatModel("linf", 0.1)
ASKED = Bundle(20, ("random",), 1, 0, 0, 0, 0, 60, 0, 20)


class Wavering(nn.Module):
    """Class 1 in the share of draws that the first value says, else class 0; no other class."""

    def __init__(self, classes: int = 2) -> None:
        super().__init__()
        self.classes = classes

    def forward(self, x: Tensor) -> Tensor:
        first = x.flatten(1)[:, 0]
        lead = first - torch.rand_like(first)
        return torch.stack([-lead, lead, *[lead * 0 - 9] * (self.classes - 2)], 1)


@dataclass(frozen=True)
class Toy:
    """A guard whose score is the second value."""

    differentiable: bool = True
    random: bool = True
    random_classifier: bool = True

    @property
    def classifier(self) -> nn.Module:
        return Wavering()

    @property
    def threshold(self) -> Threshold:
        return Threshold(0.5, 0.05, 100)

    @property
    def calibration_scores(self) -> Any:
        return np.linspace(0, 0.5, 100)

    def score(self, x: Tensor, label: Tensor | None = None) -> Tensor:
        return x[:, 1]


def test_draws_are_of_classifier_and_score_together() -> None:
    torch.manual_seed(0)
    x = torch.tensor([[0.0, 0.4], [0.1, 0.4], [0.9, 0.4], [1.0, 0.4], [0.9, 0.6]])
    wrong, accepted, *_ = verdicts(Toy(), x, torch.zeros(5, dtype=torch.int64), DRAWS)
    assert wrong.tolist() == [False, False, True, True, True]
    assert accepted.tolist() == [True, True, True, True, False]


def test_half_the_draws_wrong_and_the_other_half_accepted_is_no_success() -> None:
    class Either(Toy):
        def score(self, x: Tensor, label: Tensor | None = None) -> Tensor:
            assert label is not None
            return label.float()  # the wrong label, 1, is never accepted

    torch.manual_seed(0)
    x = torch.full((50, 2), 0.5)
    wrong, accepted, *_ = verdicts(Either(), x, torch.zeros(50, dtype=torch.int64), DRAWS)
    assert wrong.any()
    assert not (wrong & accepted).any()


def test_one_lucky_draw_of_a_classifier_loses_nothing() -> None:
    torch.manual_seed(0)
    y = torch.zeros(20, dtype=torch.int64)
    seldom = evade(Toy(), torch.full((20, 2), 0.05), y, THREAT, bundle=ASKED)  # .15 of the draws at most
    assert not seldom.lost.any()
    often = evade(Toy(), torch.full((20, 2), 0.6), y, THREAT, bundle=ASKED)
    assert often.lost.all()
    assert seldom.effort["s-pgd-random"]["draws"] == 20


def test_the_majority_as_one_prediction_and_one_score() -> None:
    predicted = np.array([[1, 2, 0], [1, 0, 0], [2, 0, 0], [0, 0, 1]])
    score = np.array([[0.1, 0.9, 3.0], [0.4, 0.3, 1.0], [0.2, 0.1, 2.0], [0.0, 0.2, 0.0]])
    label, found = majority(predicted, score, np.zeros(3, dtype=np.int64))
    assert label.tolist() == [1, 0, 0]
    assert found.tolist() == [0.2, 0.2, 2.0]
    for value in (0.15, 0.25, 1.5, 2.5):  # at any threshold
        passes = ((predicted != 0) & (score <= value)).mean(0) >= 0.5
        assert ((label != 0) & (found <= value)).tolist() == passes.tolist()


@pytest.fixture(scope="module")
def pca() -> CalibratedDetector:
    return CalibratedDetector.fit("pca", load("digits"))


def test_a_guard_finds_out_whether_its_classifier_is_random(pca: CalibratedDetector) -> None:
    before = torch.get_rng_state()
    guard = Guard(Wavering(10), pca)
    assert guard.random
    assert guard.at(0.1).random_classifier
    assert torch.equal(before, torch.get_rng_state())
    steady = Guard(nn.Sequential(nn.Flatten(), nn.Dropout(), nn.Linear(64, 10)).train(), pca)
    assert not steady.random  # dropout does nothing where nothing is learnt


def test_what_a_random_guard_says_is_what_most_draws_say(pca: CalibratedDetector) -> None:
    torch.manual_seed(0)
    x, y = torch.zeros(200, 1, 8, 8), np.zeros(200, dtype=np.int64)
    x[:, 0, 0, 0] = 0.2
    guard = Guard(Wavering(10), pca)
    assert 0.1 < (_once(guard, x)[0] != y).mean() < 0.3
    predicted, score = _judged(guard, x, y)
    assert (predicted == y).all()
    np.testing.assert_allclose(score, _once(guard, x)[1])
    steady = Guard(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), pca)
    for ours, plain in zip(_judged(steady, x, y), _once(steady, x), strict=True):
        np.testing.assert_array_equal(ours, plain)
