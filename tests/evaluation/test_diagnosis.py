"""The checks that say when a robust accuracy must not be believed: on models known to mask their gradients, and none
on healthy ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, final

import pytest
import torch
from torch import Tensor, nn

from robustgen.attacks.base import Attack, Found, Progress
from robustgen.attacks.ddn import DDN
from robustgen.attacks.fgsm import FGSM
from robustgen.attacks.passes import Passes
from robustgen.attacks.pgd import PGD
from robustgen.attacks.square import Square
from robustgen.data.load import load
from robustgen.data.source import Source
from robustgen.evaluation.diagnosis import from_probe
from robustgen.evaluation.robustness import Robustness, choose_target, evaluate_attack
from robustgen.objectives import Misclassify, margin
from robustgen.threat import ThreatModel
from robustgen.training.classifier import train
from robustgen.training.descent import Recipe
from toys import Counting

LINF = ThreatModel("linf", 0.15)
CHECKS = {
    "steady-outputs", "zero-gradients", "nothing-at-zero", "full-box", "larger-eps", "enough-steps", "black-box",
}  # fmt: skip


@pytest.fixture(scope="module")
def digits() -> Source:
    return load("digits")


@pytest.fixture(scope="module")
def net(digits: Source) -> nn.Module:
    return train(digits, "mlp", recipe=Recipe(epochs=15)).model.network


def run(attack: Attack, model: Callable[[Tensor], Tensor], source: Source, **options: Any) -> Robustness:
    return evaluate_attack("attack", attack, model, source, limit=200, **options)


def failed(found: Robustness) -> set[str]:
    failing = [finding for finding in found.summary["diagnosis"] if not finding["holds"]]
    for finding in failing:
        (warning,) = (text for text in found.summary["warnings"] if text.startswith(finding["measured"]))
        assert warning.endswith(finding["advice"])
        assert finding["meaning"] in warning
    return {finding["name"] for finding in failing}


@pytest.mark.parametrize(
    "attack",
    [
        PGD(threat=LINF, steps=20),
        PGD(threat=ThreatModel("l2", 0.5), steps=20, step_size=0.06),
        PGD(threat=LINF, steps=20, step_size=0.02, mode="max-loss"),
        PGD(threat=LINF, steps=20, objective=Misclassify(margin)),
        FGSM(threat=LINF),
        DDN(threat=ThreatModel("l2", 0.5), steps=60),
        Square(threat=replace(LINF, eps=0.3), queries=300),
    ],
    ids=lambda attack: f"{type(attack).__name__}-{attack.threat.norm}",
)
def test_a_healthy_model_gives_no_warning(attack: Attack, net: nn.Module, digits: Source) -> None:
    found = run(attack, net, digits)
    assert found.summary["warnings"] == []
    assert failed(found) == set()
    names = {finding["name"] for finding in found.summary["diagnosis"]}
    assert names <= CHECKS
    assert names >= {"steady-outputs", "nothing-at-zero", "full-box", "larger-eps"}
    assert ("zero-gradients" in names) == (not isinstance(attack, Square))
    for finding in found.summary["diagnosis"]:
        assert set(finding) == {"name", "holds", "measured", "meaning", "advice"}
        assert any(character.isdigit() for character in finding["measured"]) or finding["name"] == "steady-outputs"


def test_all_seven_checks_are_made(net: nn.Module, digits: Source) -> None:
    found = run(PGD(threat=LINF, steps=20), net, digits)
    assert {finding["name"] for finding in found.summary["diagnosis"]} == CHECKS
    told: list[tuple[str, float]] = []
    from_probe(
        found.samples, PGD(threat=LINF), net, digits, torch.device("cpu"), 40, told=lambda *words: told.append(words)
    )
    assert [name for name, _ in told] == ["nothing at zero", "full box", "larger eps", "enough steps", "black box"]
    assert [share for _, share in told] == sorted(share for _, share in told)


def test_without_diagnosis_no_further_pass_is_made(net: nn.Module, digits: Source) -> None:
    counting = Counting(net)
    found = run(PGD(threat=LINF, steps=5), counting, digits, diagnose=False)
    assert found.summary["forward_passes"] == counting.forward_rows - 2 * 64
    assert {finding["name"] for finding in found.summary["diagnosis"]} == {"steady-outputs", "zero-gradients"}


MASKED: dict[str, tuple[Callable[[nn.Module, Tensor], Tensor], set[str]]] = {
    "saturated": (lambda net, x: 1e4 * net(x), {"zero-gradients", "full-box", "black-box"}),
    "rounded": (lambda net, x: net((x * 4).round() / 4), {"zero-gradients", "full-box", "black-box"}),
    "detached": (lambda net, x: net(x.detach()), {"zero-gradients", "full-box", "black-box"}),
    "random": (lambda net, x: net(x + 0.05 * torch.randn_like(x)), {"steady-outputs"}),
}


@pytest.mark.parametrize("name", MASKED)
def test_masked_gradients_are_found_out(name: str, net: nn.Module, digits: Source) -> None:
    model, expected = MASKED[name]
    found = run(PGD(threat=LINF, steps=20), lambda x: model(net, x), digits)
    assert failed(found) >= expected
    assert failed(found) - expected <= {"enough-steps", "larger-eps"}


def test_a_loss_that_does_not_saturate_needs_no_warning(net: nn.Module, digits: Source) -> None:
    attack = PGD(threat=LINF, steps=20, objective=Misclassify(margin))
    assert failed(run(attack, lambda x: 1e4 * net(x), digits)) == set()


def test_averaging_over_draws_answers_the_warning_about_randomness(net: nn.Module, digits: Source) -> None:
    model = MASKED["random"][0]
    found = run(PGD(threat=LINF, steps=5, eot=8), lambda x: model(net, x), digits, diagnose=False)
    (steady,) = (finding for finding in found.summary["diagnosis"] if finding["name"] == "steady-outputs")
    assert steady["holds"]
    assert "averages 8 draws" in steady["measured"]
    alone = run(PGD(threat=LINF, steps=5), lambda x: model(net, x), digits, diagnose=False)
    assert any("--eot" in warning for warning in alone.summary["warnings"])


def test_an_attack_that_ends_too_soon_is_told_to_take_more_steps(net: nn.Module, digits: Source) -> None:
    """Steps so short that after eight of them the edge of the ball is far away, and still they get there."""
    found = run(PGD(threat=replace(LINF, eps=0.3), steps=8, step_size=0.02, random_start=False), net, digits)
    assert "enough-steps" in failed(found)
    assert any("twice the steps fooled" in warning for warning in found.summary["warnings"])


@final
@dataclass(frozen=True, kw_only=True)
class Odd(Attack):
    """Moves whatever eps is, and gives up where it is large."""

    def _run(self, passes: Passes, x: Tensor, y: Tensor, progress: Progress, verify: bool) -> Found:
        found = PGD(threat=replace(self.threat, eps=0.15), steps=20)._run(passes, x, y, progress, verify)
        if self.threat.eps > 0.1:
            found.x_adv, found.success = x.clone(), torch.zeros_like(found.success)
        return found


def test_an_attack_that_breaks_the_rules_is_found_out(net: nn.Module, digits: Source) -> None:
    assert failed(run(Odd(threat=LINF), net, digits)) >= {"nothing-at-zero", "larger-eps"}


def test_what_only_rounding_undid_is_not_held_against_the_gradients(net: nn.Module, digits: Source) -> None:
    """Within less than a level nothing survives rounding, and the black box is not compared on it."""
    attack = PGD(threat=replace(LINF, eps=0.0019), steps=10)
    assert "black-box" not in failed(run(attack, net, digits, rounded=True))


def test_a_targeted_attack_is_checked_towards_its_targets(net: nn.Module, digits: Source) -> None:
    attack = PGD(threat=replace(LINF, eps=0.3), steps=20, objective=Misclassify(targeted=True))
    assert failed(run(attack, net, digits, target=choose_target("next"))) == set()


def test_checks_that_make_no_sense_are_left_out(net: nn.Module, digits: Source) -> None:
    found = run(PGD(threat=ThreatModel("linf", 0.15, -math.inf, math.inf), steps=20), net, digits)
    assert {finding["name"] for finding in found.summary["diagnosis"]} == CHECKS - {"full-box"}
    found = run(PGD(threat=replace(LINF, eps=0.0), steps=20), net, digits)
    assert failed(found) == set()
