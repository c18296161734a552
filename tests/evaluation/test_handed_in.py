"""Image files: what rounding undoes, an attacker who knows of it does not let it undo."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from robustgen.attacks.apgd import APGD
from robustgen.attacks.base import Attack
from robustgen.attacks.ddn import DDN
from robustgen.attacks.pgd import PGD
from robustgen.attacks.square import Square
from robustgen.calibration import Threshold
from robustgen.evaluation.adaptive import evade, verdicts
from robustgen.evaluation.bundles import BUNDLES, Bundle
from robustgen.evaluation.handed_in import as_images, fooling_images, going_on
from robustgen.evaluation.quantise import quantise
from robustgen.evaluation.threats import _queries
from robustgen.objectives import margin
from robustgen.threat import ThreatModel

SHORT = Bundle(20, ("random",), 1, 0, 0, 0, 0, 0, 0, 1)


@pytest.fixture
def images(generator: torch.Generator) -> Tensor:
    return torch.randint(60, 200, (40, 1, 4, 4), generator=generator).float() / 255


@pytest.fixture
def network(generator: torch.Generator) -> nn.Module:
    layer = nn.Linear(16, 3)
    layer.weight.data = torch.randn(3, 16, generator=generator)
    layer.bias.data = -layer.weight.data.sum(1) / 2
    return nn.Sequential(nn.Flatten(), layer)


def on_levels(x: Tensor) -> bool:
    return bool((255 * x - (255 * x).round()).abs().max() < 1e-3)


@pytest.mark.parametrize(
    "attack",
    [
        DDN(threat=ThreatModel("l2", 4.0), steps=60),
        APGD(threat=ThreatModel("l2", 0.4), steps=30),
        PGD(threat=ThreatModel("linf", 25 / 255), steps=20),
        Square(threat=ThreatModel("linf", 25 / 255), queries=200),
    ],
    ids=["ddn", "apgd", "pgd", "square"],
)
def test_what_fools_fools_as_an_image_too(attack: Attack, images: Tensor, network: nn.Module) -> None:
    y = network(images).argmax(1)
    fooled = network(attack(network, images, y)).argmax(1) != y
    assert fooled.any()
    made = fooling_images(attack, network, images, y)
    assert on_levels(made)
    assert attack.threat.allows(made, images).all()
    assert torch.equal(network(made).argmax(1) != y, fooled)
    nearest = quantise(attack.threat, attack(network, images, y), images)
    if attack.minimal:
        assert (network(nearest).argmax(1) != y).sum() < fooled.sum()  # the smallest change is undone by half a level


@pytest.mark.parametrize(
    "attack",
    [
        PGD(threat=ThreatModel("linf", 0.1, still=0.0), steps=20),
        APGD(threat=ThreatModel("l2", 1.0, still=0.0), steps=20),
        Square(threat=ThreatModel("linf", 0.1, still=0.0), queries=100),
        DDN(threat=ThreatModel("l2", 4.0, still=0.0), steps=20),
    ],
    ids=["pgd", "apgd", "square", "ddn"],
)
def test_what_is_to_stay_still_does(attack: Attack, images: Tensor, network: nn.Module) -> None:
    x = torch.where(images < 0.45, 0.0, images)
    y = network(x).argmax(1)
    made = attack(network, x, y)
    assert (made[x == 0] == 0).all()
    assert not torch.equal(made, x)
    assert attack.threat.allows(made, x).all()
    result = attack.run(network, x, y)
    assert not (result.success & (network(result.x_adv).argmax(1) == y)).any()


def test_only_an_attack_that_stopped_early_goes_on() -> None:
    pgd = PGD(threat=ThreatModel("linf", 0.1), mode="evaluate")
    assert going_on(pgd) == replace(pgd, mode="max-loss")
    assert going_on(replace(pgd, mode="max-loss")) is None
    assert going_on(DDN(threat=ThreatModel("l2", 1.0))) is None


class Beside:
    """A guard whose score falls along a direction of its own."""

    differentiable, random = True, False

    def __init__(self, classifier: nn.Module, along: Tensor, limit: float) -> None:
        self.classifier, self.along = classifier, along
        self.threshold, self.calibration_scores = Threshold(limit, 0.05, 100), np.linspace(limit - 1, limit, 100)

    def score(self, x: Tensor, label: Tensor | None = None) -> Tensor:
        found: Tensor = (x - 0.5).flatten(1) @ self.along - 0.01 * margin(self.classifier(x), label)
        return found if label is not None else found * torch.nan


def test_who_evades_evades_as_an_image_too(images: Tensor, network: nn.Module, generator: torch.Generator) -> None:
    threat, y = ThreatModel("linf", 0.1), network(images).argmax(1)
    guard: Any = Beside(network, torch.randn(16, generator=generator), -0.05)
    found = evade(guard, images, y, threat, bundle=SHORT)
    assert 0.2 < found.rate < 1
    told = as_images(guard, images, y, threat, found, bundle=SHORT)
    made = told.x_adv
    assert on_levels(made)
    assert threat.allows(made, images).all()

    def passed(x: Tensor) -> Tensor:
        wrong, accepted, *_ = verdicts(guard, x, y)
        return wrong & accepted

    assert not (passed(made) & ~found.lost).any()
    nearest = passed(quantise(threat, found.x_adv, images))
    assert passed(made).sum() > nearest.sum()
    assert passed(made).sum() >= 0.95 * found.lost.sum()
    wrong, accepted, score, _ = verdicts(guard, made, y)
    assert torch.equal(told.lost, wrong & accepted)
    assert torch.equal(told.fooled, wrong)
    assert torch.equal(told.score, score)
    assert (told.forward >= found.forward).all()
    again = told.forward > found.forward  # what rounding undid was attacked once more
    assert not (again & ~found.lost).any()
    assert told.seconds.keys() - found.seconds.keys() == {"rounding"}


def test_a_ball_smaller_than_a_level_leaves_images_alone(images: Tensor, network: nn.Module) -> None:
    threat, y = ThreatModel("linf", 0.3 / 255), network(images).argmax(1)
    guard: Any = Beside(network, torch.zeros(16), 10.0)
    found = evade(guard, images, y, threat, bundle=SHORT)
    assert torch.equal(as_images(guard, images, y, threat, found, bundle=SHORT).x_adv, images)


def test_attackers_by_answers_take_what_a_bundle_has_of_them() -> None:
    assert _queries(BUNDLES["adaptive-strong"]).boundary_queries == BUNDLES["adaptive-strong"].boundary_queries > 0
    assert _queries(BUNDLES["adaptive-standard"]).steps == 0
