"""Rounding to 256 levels: legal, on the levels, judged after it."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from robustgen.attacks.pgd import PGD
from robustgen.data.load import load
from robustgen.errors import UsageError
from robustgen.evaluation.quantise import check_box, quantise, settled
from robustgen.evaluation.robustness import evaluate_attack
from robustgen.randomness import sample_keys
from robustgen.threat import ThreatModel
from robustgen.training.classifier import train
from robustgen.training.descent import Recipe

SIZES = [("linf", 0.05), ("linf", 8 / 255), ("linf", 0.001), ("l2", 0.5), ("l2", 0.01), ("l1", 3.0), ("l0", 5.0)]


def points(threat: ThreatModel, levels: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Legal points around inputs that are on the levels or are not."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(20, 3, 6, 6, generator=generator)
    if levels:
        x = (x * 255).round() / 255
    x = threat.low + (threat.high - threat.low) * x
    return threat.sample(x, sample_keys(x, 1)), x


def on_levels(threat: ThreatModel, x: torch.Tensor) -> torch.Tensor:
    place = (x.double() - threat.low) / (threat.high - threat.low) * 255
    return (place - place.round()).abs() < 1e-3


@pytest.mark.parametrize(("norm", "eps"), SIZES)
@pytest.mark.parametrize("outward", [False, True])
@pytest.mark.parametrize("box", [(0.0, 1.0), (-1.0, 1.0)])
def test_rounded_points_are_legal_and_on_the_levels(
    norm: Any, eps: float, outward: bool, box: tuple[float, float]
) -> None:
    threat = ThreatModel(norm, eps, *box)
    x_adv, x = points(threat, levels=True)
    rounded = quantise(threat, x_adv, x, outward)
    assert threat.allows(rounded, x).all()
    assert on_levels(threat, rounded).all()
    assert (rounded - x_adv).abs().max() <= (box[1] - box[0]) / 255 * 1.001
    assert torch.equal(quantise(threat, rounded, x), rounded)  # nothing left to round
    assert torch.equal(quantise(threat, x, x, outward), x)


@pytest.mark.parametrize(("norm", "eps"), SIZES)
def test_inputs_between_the_levels_stay_legal(norm: Any, eps: float) -> None:
    threat = ThreatModel(norm, eps)
    x_adv, x = points(threat, levels=False)
    rounded = quantise(threat, x_adv, x)
    assert threat.allows(rounded, x).all()
    assert (on_levels(threat, rounded) | (rounded == x)).all()


def test_a_value_is_rounded_to_the_nearest_level_that_the_ball_holds() -> None:
    threat = ThreatModel("linf", 2.7 / 255)
    x = torch.full((1, 4), 100 / 255)
    x_adv = x + torch.tensor([[2.4, 2.7, -2.7, -0.4]]) / 255
    assert (quantise(threat, x_adv, x) * 255).round().tolist() == [[102, 102, 98, 100]]
    assert (quantise(threat, x_adv, x, outward=True) * 255).round().tolist() == [[102, 102, 98, 99]]


def test_no_more_of_an_l2_change_is_given_up_than_needed() -> None:
    threat = ThreatModel("l2", 0.5)
    x_adv, x = points(threat, levels=True)
    inward = x + (x_adv - x).sign() * ((x_adv - x).abs() * 255 + 1e-4).floor() / 255
    kept = threat.distance(quantise(threat, x_adv, x), x)
    full = threat.distance(x_adv, x) > 0.49
    assert (kept[full] > 0.98 * threat.distance(x_adv, x)[full]).all()
    assert (threat.distance(inward, x)[full] < kept[full]).all()


def test_a_table_has_no_levels() -> None:
    with pytest.raises(UsageError, match="--quantise uint8"):
        check_box(ThreatModel("linf", 0.1, -math.inf, math.inf))


def test_success_is_what_survives_the_rounding(tmp_path: Path) -> None:
    digits = load("digits")
    network = train(digits, "mlp", recipe=Recipe(epochs=15)).model.network
    attack = PGD(threat=ThreatModel("linf", 0.101), steps=8)
    plain, rounded = (
        evaluate_attack(
            "pgd", attack, network, digits, rounded=rounded, diagnose=False, directory=tmp_path if rounded else None
        )
        for rounded in (False, True)
    )
    s, told = rounded.samples, rounded.summary["quantise"]
    assert (told["levels"], told["success_before"]) == (256, plain.summary["success_rate"])
    assert told["success_after"] == rounded.summary["success_rate"]
    assert (s["success_unrounded"] == plain.samples["success"]).all()
    assert 0.2 < told["success_after"] <= told["success_before"]
    with np.load(tmp_path / "block-00000.npz") as block:
        saved = torch.from_numpy(block["x_adv"])
    clean = digits.read(digits.rows("test")).x
    changed = saved != clean  # these digits have 17 grey levels, which lie between the 256
    assert on_levels(attack.threat, saved[changed]).all()
    assert attack.threat.allows(saved, clean).all()
    with torch.no_grad():
        np.testing.assert_array_equal(network(saved).argmax(1).numpy(), s["prediction"])


def test_a_success_that_rounding_undoes_is_sought_further_on() -> None:
    digits = load("digits")
    network = train(digits, "mlp", recipe=Recipe(epochs=15)).model.network
    attack = PGD(threat=ThreatModel("linf", 0.101), steps=8)
    first, full = (
        evaluate_attack("pgd", replace(attack, mode=mode), network, digits, rounded=True, diagnose=False)
        for mode in ("evaluate", "max-loss")
    )
    assert first.summary["quantise"]["success_after"] >= full.summary["quantise"]["success_after"]
    assert first.summary["quantise"]["success_before"] == full.summary["quantise"]["success_before"]
    assert first.summary["forward_passes"] < full.summary["forward_passes"]


def test_a_model_is_not_asked_about_nothing() -> None:
    """Not every model takes an empty batch; here no success is undone, so there is nothing to try further on."""
    x = torch.zeros(4, 1, 2, 2)
    asked: list[int] = []

    def works(row: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
        asked.append(len(row))
        return points.flatten(1).amax(1) > 0

    _, undone = settled(ThreatModel("linf", 0.1), x + 0.1, x, works)
    assert asked == [4, 4]
    assert not undone.any()
