"""Attackers who know the detector: they find what there is, and nothing where there is nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from robustgen.attacks import passes
from robustgen.attacks.evading import EvadingPGD
from robustgen.attacks.pgd import PGD
from robustgen.calibration import Threshold
from robustgen.errors import UsageError
from robustgen.evaluation.adaptive import Evasion, _spend, evade, rejection_of, verdicts
from robustgen.evaluation.bundles import BUNDLES, BY_SCORES, FAMILIES, Bundle, longer, members
from robustgen.evaluation.masking import _Probe
from robustgen.objectives import Misclassify, margin
from robustgen.threat import ThreatModel

THREAT = ThreatModel("linf", 0.2)
SHORT = Bundle(
    30, ("random", "pgd", "detector", "clean"), 2, None, 15, 15, 2, 40, 40, 4, carlini_steps=15, carlini_searches=4
)
SOURCES = ("clean", "smaller ball")


class Sides(nn.Module):
    """Class 1 where the first value is above a half; the logits know nothing of the second."""

    def forward(self, x: Tensor) -> Tensor:
        lead = 10 * (x[:, 0] - 0.5)
        return torch.stack([-lead, lead], 1)


def second(x: Tensor, label: Tensor) -> Tensor:
    """A score that is the distance of the second value from the label's place: 0.2 for class 0, 0.8 for class 1."""
    return (x[:, 1] - (0.2 + 0.6 * label)).abs()


@dataclass(frozen=True)
class Toy:
    """A guard of two values: `rule` is its score."""

    rule: Callable[[Tensor, Tensor], Tensor] = second
    limit: float = 0.1
    differentiable: bool = True
    random: bool = False

    @property
    def classifier(self) -> nn.Module:
        return Sides()

    @property
    def threshold(self) -> Threshold:
        return Threshold(self.limit, 0.05, 100)

    @property
    def calibration_scores(self) -> Any:
        return np.linspace(0, self.limit, 100)

    def score(self, x: Tensor, label: Tensor | None = None) -> Tensor:
        return self.rule(x, self.classifier(x).argmax(1) if label is None else label)


class Layered(nn.Module):
    """`Toy` with its score made of layers, which note the types that they work in."""

    differentiable, random = True, False

    def __init__(self) -> None:
        super().__init__()
        self.classifier, self.seen = Sides(), set[tuple[bool, torch.dtype]]()
        layer = nn.Linear(2, 1, bias=False)
        with torch.no_grad():
            layer.weight.copy_(torch.tensor([[0.0, 1.0]]))
        layer.register_forward_hook(self._note)
        self.stack = nn.Sequential(layer)
        self.toy = Toy()

    def _note(self, module: nn.Module, given: object, found: Tensor) -> None:
        self.seen.add((torch.is_grad_enabled(), found.dtype))

    @property
    def threshold(self) -> Threshold:
        return self.toy.threshold

    @property
    def calibration_scores(self) -> Any:
        return self.toy.calibration_scores

    def score(self, x: Tensor, label: Tensor | None = None) -> Tensor:
        seen = self.stack(x)[:, 0]
        assert seen.dtype == x.dtype
        return second(torch.stack([x[:, 0], seen], 1), self.classifier(x).argmax(1) if label is None else label)


def near_the_border(n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Inputs of both classes at most 0.1 from the border, their second values uniform."""
    y = torch.arange(n) % 2
    first = 0.5 + (2 * y - 1) * 0.1 * (0.01 + 0.99 * torch.rand(n, generator=generator))
    return torch.stack([first, torch.rand(n, generator=generator)], 1), y


def is_true(guard: Toy, evasion: Evasion, x: Tensor, y: Tensor, threat: ThreatModel = THREAT) -> None:
    """What a result says of each row holds at its point, and what it says of members fits together."""
    wrong, accepted, score, _ = verdicts(guard, evasion.x_adv, y)
    assert threat.allows(evasion.x_adv, x).all()
    assert torch.equal(evasion.lost, wrong & accepted)
    assert torch.equal(evasion.fooled, wrong)
    torch.testing.assert_close(evasion.score, score)
    assert torch.equal(torch.stack(list(evasion.found.values())).any(0), evasion.lost)
    for name, rows in evasion.found.items():
        assert not (rows & ~evasion.tried[name]).any()
    for row in evasion.lost.nonzero()[:, 0]:
        assert evasion.found[evasion.members[evasion.member[row]]][row]
    assert not (evasion.lost & (evasion.member < 0)).any()
    assert evasion.rate == evasion.lost.double().mean()


def test_one_way_goes_towards_classes_that_the_classifier_finds_unlikely() -> None:
    spend = replace(SHORT, targets=2, far_targets=5)
    rejection = rejection_of(Toy())
    found = members(spend, THREAT, rejection, rejection, None, {})
    aims = {name: attack.targets for name, attack in found.items() if isinstance(attack, EvadingPGD) and attack.targets}
    assert aims == {
        "multi-targeted-s-pgd": 2,
        "multi-targeted-lagrangian-0.5": 5,
        "multi-targeted-lagrangian-1": 2,
        "reject-class": 2,
    }


def test_an_input_is_lost_exactly_where_a_legal_point_is_accepted_as_the_other_class(
    generator: torch.Generator,
) -> None:
    """The first value can always cross the border; then the score of the other class decides, which an attacker can
    lower by eps: in closed form.
    """
    x, y = near_the_border(200, generator)
    evasion = evade(Toy(), x, y, THREAT, bundle=SHORT)
    reachable = second(x, 1 - y) - THREAT.eps
    assert evasion.lost[reachable < 0.098].all()
    assert not evasion.lost[reachable > 0.1].any()
    assert evasion.fooled.all()  # where the score holds, the best attempt has a wrong label
    is_true(Toy(), evasion, x, y)


@pytest.mark.parametrize(
    "name",
    [
        *("s-pgd", "o-pgd", "lagrangian", "multi-targeted", "reject-class", "carlini-wagner"),
        *(f"multi-targeted-{way}" for way in ("s-pgd", "lagrangian-0.5", "lagrangian-1")),
    ],
)
def test_every_member_alone_breaks_what_can_be_broken(name: str, generator: torch.Generator) -> None:
    x, y = near_the_border(50, generator)
    evasion = evade(Toy(), x, y, THREAT, bundle=longer(SHORT, 4), only=[name])
    reachable = second(x, 1 - y) - THREAT.eps
    assert evasion.lost[reachable < 0.09].all()
    is_true(Toy(), evasion, x, y)


@pytest.mark.slow
def test_never_weaker_than_any_member_and_every_row_is_counted(generator: torch.Generator) -> None:
    x, y = near_the_border(60, generator)
    threat = ThreatModel("linf", 0.1)
    short = replace(SHORT, steps=4, target_steps=3, match_steps=3, queries=10, score_queries=10)
    whole = evade(Toy(), x, y, threat, bundle=short)
    every = evade(Toy(), x, y, threat, bundle=short, every=True)
    assert torch.equal(whole.lost, every.lost)
    torch.testing.assert_close(whole.x_adv[whole.lost], every.x_adv[every.lost])
    for name in whole.effort:
        alone = evade(Toy(), x, y, threat, bundle=short, only=[name])
        assert not (alone.lost & ~whole.lost).any()
        if name != BY_SCORES:  # which goes on from what the others came to
            assert torch.equal(alone.found[name], every.found[name])
        assert every.tried[name].all()
        assert every.success(name).n == 60
        assert every.success(name).value == every.found[name].double().mean()
        is_true(Toy(), alone, x, y, threat)
    is_true(Toy(), every, x, y, threat)
    assert every.forward.sum() > whole.forward.sum()
    assert set(whole.seconds) == set(whole.effort)


def test_a_walk_along_the_boundary_finds_what_is_accepted_by_verdicts_alone(generator: torch.Generator) -> None:
    """A blind score, rejected almost everywhere: random images would be no places to begin at."""
    x, y = near_the_border(20, generator)
    guard = Toy(lambda x, label: second(x, label).detach(), differentiable=False)
    walk = replace(SHORT, boundary_queries=1500)
    evasion = evade(guard, x, y, THREAT, bundle=walk, only=["hop-skip-jump"], pool=near_the_border(200, generator)[0])
    reachable = second(x, 1 - y) - THREAT.eps
    assert (reachable < 0.05).any()
    assert evasion.lost[reachable < 0.05].all()
    assert not evasion.lost[reachable > 0.1].any()
    assert not evasion.surrogate
    assert not evasion.backward.any()
    assert (evasion.forward <= 1500).all()
    is_true(guard, evasion, x, y)


def test_adding_an_attack_never_lowers_success(generator: torch.Generator) -> None:
    x, y = near_the_border(60, generator)
    short = replace(SHORT, steps=3, target_steps=2)
    lost = torch.zeros(60, dtype=torch.bool)
    names: list[str] = []
    for family in FAMILIES:
        elsewhere = {"hop-skip-jump": "adaptive-strong", "object": "images with a constant background"}
        if family in elsewhere:
            with pytest.raises(UsageError, match=elsewhere[family]):
                evade(Toy(), x, y, ThreatModel("linf", 0.1), bundle=short, only=[family])
            continue
        names.append(family)
        more = evade(Toy(), x, y, ThreatModel("linf", 0.1), bundle=short, only=names).lost
        assert not (lost & ~more).any()
        lost = more


def test_a_larger_ball_keeps_what_the_smaller_lost(generator: torch.Generator) -> None:
    x, y = near_the_border(60, generator)
    weak = replace(SHORT, steps=1, target_steps=0, match_steps=0, queries=0, score_queries=0, carlini_steps=0)
    small = evade(Toy(), x, y, ThreatModel("linf", 0.1), bundle=SHORT)
    large = evade(Toy(), x, y, THREAT, bundle=weak, known={"smaller ball": small.x_adv})
    assert small.lost.any()
    assert not (small.lost & ~large.lost).any()
    assert evade(Toy(), x, y, THREAT, bundle=weak).rate < large.rate
    is_true(Toy(), large, x, y)


def test_a_result_outside_the_ball_is_no_success(generator: torch.Generator) -> None:
    x, y = near_the_border(30, generator)
    none = replace(SHORT, steps=0, target_steps=0, match_steps=0, queries=0, score_queries=0, carlini_steps=0)
    far = evade(Toy(), x, y, THREAT, bundle=SHORT)
    near = evade(Toy(), x, y, ThreatModel("linf", 0.01), bundle=none, known={"elsewhere": far.x_adv})
    assert far.lost.any()
    assert not near.lost.any()
    assert torch.equal(near.x_adv, x)


def test_a_guard_that_rejects_everything_is_never_evaded(generator: torch.Generator) -> None:
    x, y = near_the_border(20, generator)
    evasion = evade(Toy(lambda x, _: 1 + 0 * x[:, 0]), x, y, THREAT, bundle=SHORT)
    assert not evasion.lost.any()
    assert (verdicts(Toy(), evasion.x_adv, y)[0]).all()  # the best attempts are kept: wrong, and rejected
    assert (evasion.x_adv != x).flatten(1).any(1).all()


def test_a_guard_that_accepts_everything_is_evaded_exactly_where_the_classifier_is_fooled(
    generator: torch.Generator,
) -> None:
    x, y = near_the_border(80, generator)
    threat = ThreatModel("linf", 0.05)
    evasion = evade(Toy(lambda x, _: -1 + 0 * x[:, 0]), x, y, threat, bundle=SHORT)
    fooled = PGD(threat=threat, objective=Misclassify(margin), restarts=3).run(Sides(), x, y).success
    assert 0 < fooled.sum() < 80
    assert torch.equal(evasion.lost, fooled)
    assert torch.equal(evasion.lost, evasion.fooled)


def test_an_input_that_is_wrong_by_itself_and_accepted_is_lost_without_an_attack(generator: torch.Generator) -> None:
    x, y = near_the_border(20, generator)
    evasion = evade(Toy(limit=10.0), x, 1 - y, ThreatModel("linf", 0.0), bundle=SHORT)
    assert evasion.lost.all()
    assert {evasion.members[i] for i in evasion.member} == {"clean"}
    assert torch.equal(evasion.x_adv, x)
    assert not evasion.forward.any()


@pytest.mark.slow
def test_a_row_does_not_depend_on_the_others(generator: torch.Generator) -> None:
    x, y = near_the_border(12, generator)
    together = evade(Toy(), x, y, THREAT, bundle=SHORT, pool=x)
    alone = evade(Toy(), x[3:5], y[3:5], THREAT, bundle=SHORT, pool=x)
    torch.testing.assert_close(alone.x_adv, together.x_adv[3:5])
    assert torch.equal(alone.lost, together.lost[3:5])
    assert torch.equal(alone.forward, together.forward[3:5])


def test_a_random_score_is_judged_by_most_fresh_draws(generator: torch.Generator) -> None:
    """A score of pure noise, accepted three times in ten: single draws pass often, yet nothing is lost."""
    x, y = near_the_border(30, generator)
    noise = torch.Generator().manual_seed(3)

    def rule(limit: float) -> Callable[[Tensor, Tensor], Tensor]:
        return lambda x, label: torch.rand(len(x), generator=noise) - limit + 0 * x[:, 0]

    seldom, often = (Toy(rule(limit), limit=0.0, random=True) for limit in (0.25, 0.75))
    assert not evade(seldom, x, y, THREAT, bundle=SHORT).lost.any()
    assert evade(often, x, y, THREAT, bundle=SHORT).lost.all()


def test_noise_on_a_score_hides_it_from_one_draw_and_not_from_their_mean(generator: torch.Generator) -> None:
    x, y = near_the_border(60, generator)
    noise = torch.Generator().manual_seed(3)

    def hidden(x: Tensor, label: Tensor) -> Tensor:
        pull = 3.0 * torch.randn(x.shape, generator=noise)  # its gradient is noise, its value is not
        return second(x, label) + ((x - x.detach()) * pull).sum(1)

    only = replace(SHORT, match_steps=0, queries=0, score_queries=0, restarts=1, target_steps=0, starts=("random",))
    eot = evade(Toy(hidden, random=True), x, y, THREAT, bundle=replace(only, draws=40, steps=40))
    reachable = second(x, 1 - y) - THREAT.eps
    assert eot.lost[reachable < 0.05].all()
    assert not eot.lost[reachable > 0.1].any()


def test_a_bundle_has_a_long_and_a_short_name() -> None:
    for name in BUNDLES:
        assert _spend(name) is _spend(name.removeprefix("adaptive-")) is BUNDLES[name]
    with pytest.raises(UsageError, match="adaptive-standard, adaptive-strong"):
        _spend("long")


def test_a_norm_without_attacks_is_refused_in_the_user_s_words() -> None:
    with pytest.raises(UsageError, match="changes in linf, l2, l1, but l0 was asked for"):
        evade(Toy(), torch.zeros(2, 2), torch.zeros(2, dtype=torch.int64), ThreatModel("l0", 1.0), bundle=SHORT)


def test_progress_counts_every_input_once(generator: torch.Generator) -> None:
    x, y = near_the_border(20, generator)
    for every in (False, True):
        told: list[float] = []
        evade(Toy(), x, y, THREAT, bundle=replace(SHORT, steps=3), every=every, progress=told.append)
        assert sum(told) == pytest.approx(20)


def test_bad_requests_are_told(generator: torch.Generator) -> None:
    x, y = near_the_border(4, generator)
    with pytest.raises(UsageError, match="s-pgd"):
        evade(Toy(), x, y, THREAT, only=["s-pdg"])
    with pytest.raises(UsageError, match="adaptive-standard"):
        evade(Toy(), x, y, THREAT, bundle="adaptive-standart")
    with pytest.raises(UsageError, match="outside the box"):
        evade(Toy(), x + 1, y, THREAT)
    empty = evade(Toy(), x[:0], y[:0], THREAT)
    assert len(empty.lost) == 0


@pytest.mark.parametrize("name", BUNDLES)
def test_bundles_hold_every_family(name: str) -> None:
    assert set(FAMILIES) >= {
        *("s-pgd", "o-pgd", "lagrangian", "multi-targeted", "reject-class", "matching", "carlini-wagner", "square")
    }
    assert BUNDLES[name].steps >= 100
    assert BUNDLES[name].carlini_steps >= 100


def test_a_family_that_runs_only_by_name(generator: torch.Generator) -> None:
    x, y = near_the_border(10, generator)
    apart = replace(SHORT, steps=2, target_steps=0, match_steps=0, score_queries=0, named=("carlini-wagner",))
    assert "carlini-wagner" in evade(Toy(), x, y, THREAT, bundle=replace(apart, named=())).effort
    assert "carlini-wagner" not in evade(Toy(), x, y, THREAT, bundle=apart).effort
    assert set(evade(Toy(), x, y, THREAT, bundle=apart, only=["carlini-wagner"]).effort) == {"carlini-wagner"}
    for norm in ("l1", "l2"):  # the second of a table, without walls
        threat = ThreatModel(norm, 0.1, *((0.0, 1.0) if norm == "l1" else (-np.inf, np.inf)))  # type: ignore[arg-type]
        with pytest.raises(UsageError, match="this bundle has no carlini-wagner for this norm"):
            evade(Toy(), x, y, threat, bundle=apart, only=["carlini-wagner"])


def test_the_nearest_point_is_asked_for(generator: torch.Generator) -> None:
    """The first value has to cross the border, and the second to come within 0.1 of the other class's place."""
    x, y = near_the_border(40, generator)
    spend = replace(SHORT, carlini_steps=50, carlini_searches=6)
    threat = ThreatModel("linf", 1.0)
    asked = [evade(Toy(), x, y, threat, bundle=spend, only=["carlini-wagner"], smallest=far) for far in (False, True)]
    best = torch.maximum((x[:, 0] - 0.5).abs(), (second(x, 1 - y) - 0.1).clamp(min=0))
    for evasion in asked:
        assert evasion.lost.all()
        is_true(Toy(), evasion, x, y, threat)
    first, nearest = (threat.distance(evasion.x_adv, x) for evasion in asked)
    assert (nearest >= best - 1e-5).all()
    assert (nearest <= 1.05 * best + 0.01).all()
    assert (nearest <= first).all()
    assert first.mean() > nearest.mean() + 0.02


class Brightness(nn.Module):
    """Class 1 where the middle of images (n, 1, 6, 6) is bright."""

    def forward(self, x: Tensor) -> Tensor:
        lead = 10 * (x[:, 0, 2:4, 2:4].flatten(1).mean(1) - 0.5)
        return torch.stack([-lead, lead], 1)


@dataclass(frozen=True)
class Flat(Toy):
    """A guard of images that rejects whatever is not grey around the middle, however little is changed there."""

    @property
    def classifier(self) -> nn.Module:
        return Brightness()

    def score(self, x: Tensor, label: Tensor | None = None) -> Tensor:
        around = x - 0.25
        around[:, :, 2:4, 2:4] = 0
        return (1 + 1e4 * around.abs()).log().flatten(1).sum(1)


def test_who_knows_that_the_background_is_read_leaves_it_alone(generator: torch.Generator) -> None:
    """Steps from random points of the whole ball never bring it back; without a constant background there is no such
    attack.
    """
    x = torch.full((30, 1, 6, 6), 0.25)
    x[:, :, 2:4, 2:4] = 0.45 + 0.04 * torch.rand(30, 1, 2, 2, generator=generator)
    y, threat = torch.zeros(30, dtype=torch.int64), ThreatModel("linf", 0.1)
    few = replace(SHORT, starts=("random",), match_steps=0, carlini_steps=0, queries=0, score_queries=0)
    spend = replace(few, object_steps=20)
    without = evade(Flat(), x, y, threat, bundle=few)
    assert without.rate < 0.5
    found = evade(Flat(), x, y, threat, bundle=spend, every=True)
    assert found.rate == 1
    for name in ("object-s-pgd", "object-lagrangian-0.5"):
        assert found.success(name).value == 1
    assert set(evade(Flat(), x, y, threat, bundle=spend, only=["object"]).effort) == {
        "object-s-pgd",
        "object-lagrangian-0.5",
    }
    noisy = torch.rand(30, 1, 6, 6, generator=generator)
    whole = evade(Flat(), noisy, Brightness()(noisy).argmax(1), threat, bundle=spend)
    assert not any(name.startswith("object") for name in whole.effort)


def test_the_checks_ask_an_attacker_who_leaves_the_background_alone() -> None:
    """Otherwise they would call masked what the bundle passes."""
    x, threat = torch.full((10, 1, 6, 6), 0.25), ThreatModel("linf", 0.1)
    x[:, :, 2:4, 2:4] = 0.47
    guard: Any = Flat()
    probe = _Probe(
        guard, threat, x, torch.zeros(10, dtype=torch.int64), steps=20, eot=1, seed=0, precision="float32", held=None
    )
    assert probe.within_eps.all()


def shattered(x: Tensor, label: Tensor) -> Tensor:
    """`second` with a ripple, too low to matter and too steep to see anything else by the gradient."""
    return second(x, label) + 0.004 * (4000 * x[:, 1]).sin()


@pytest.mark.parametrize(
    ("guard", "asks"),
    [
        (Toy(), False),
        (Toy(shattered), True),
        (Toy(lambda x, label: second(x.detach(), label) + 0 * x[:, 0]), True),
        (Toy(lambda x, label: second(x.detach(), label), differentiable=False), True),
        (Toy(random=True), False),
        (Toy(shattered, random=True), False),
    ],
    ids=["smooth", "shattered", "detached", "without gradients", "random", "random and shattered"],
)
def test_scores_are_asked_where_gradients_mislead(guard: Toy, asks: bool, generator: torch.Generator) -> None:
    x, y = near_the_border(60, generator)
    few = replace(SHORT, steps=2, starts=("random",), target_steps=0, match_steps=0, queries=0, carlini_steps=0)
    spend = replace(few, score_queries=0)
    without = evade(guard, x, y, THREAT, bundle=spend)
    assert 0 < int(without.lost.sum()) < len(x)
    asked = evade(guard, x, y, THREAT, bundle=replace(spend, misled_queries=300))
    whole = evade(guard, x, y, THREAT, bundle=replace(spend, score_queries=300))
    assert ("square-scores" in asked.effort) == ("square-scores" in asked.tried) == asks
    is_true(guard, asked, x, y)
    if asks:
        assert torch.equal(asked.lost, whole.lost)
        assert asked.found["square-scores"].any()
        assert not (asked.tried["square-scores"] & torch.stack(list(without.found.values())).any(0)).any()


def test_scores_are_asked_by_what_is_followed(generator: torch.Generator) -> None:
    """Gradients that were given in place of the guard's own may lead where its own do not, and the other way round."""
    x, y = near_the_border(40, generator)
    spend = replace(SHORT, steps=2, starts=("random",), target_steps=0, match_steps=0, carlini_steps=0, score_queries=0)
    few = replace(spend, queries=0, misled_queries=40)
    for rule, score, asks in ((shattered, second, False), (second, lambda x, label: -second(x, label), True)):
        found = evade(Toy(rule), x, y, THREAT, bundle=few, score=score)
        assert ("square-scores" in found.effort) == asks


def test_scores_are_asked_by_name_and_never_within_nothing(generator: torch.Generator) -> None:
    """A ball of size 0 has no step to look along."""
    x, y = near_the_border(30, generator)
    spend = replace(SHORT, score_queries=0, misled_queries=40)
    assert "square-scores" in evade(Toy(), x, y, THREAT, bundle=spend, only=["square"]).effort
    assert "square-scores" not in evade(Toy(shattered), x, y, ThreatModel("linf", 0.0), bundle=spend).effort


def test_what_is_passed_over_is_told_as_done(generator: torch.Generator) -> None:
    x, y = near_the_border(30, generator)
    spend, told = replace(SHORT, score_queries=0, misled_queries=40), list[float]()
    evade(Toy(), x, y, THREAT, bundle=spend, progress=told.append)
    assert sum(told) == pytest.approx(len(x))


def test_what_is_held_is_not_tried_and_changes_nothing_for_the_others(generator: torch.Generator) -> None:
    x, y = near_the_border(40, generator)
    held = torch.arange(len(x)) % 3 == 0
    whole = evade(Toy(), x, y, THREAT, bundle=SHORT, every=True, seed=3)
    part = evade(Toy(), x, y, THREAT, bundle=SHORT, every=True, seed=3, held=held, pool=x)
    assert torch.equal(part.lost, whole.lost & ~held)
    assert (whole.lost & held).any()
    assert not part.forward[held].any()
    for name, tried in part.tried.items():
        assert torch.equal(tried, ~held) or name == "clean"
    is_true(Toy(), part, x, y)


@pytest.mark.parametrize("native", [True, False])
def test_layers_of_a_detector_are_searched_through_in_mixed_precision_and_judged_in_full(
    native: bool, generator: torch.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, y = near_the_border(30, generator)
    full = evade(Layered(), x, y, THREAT, only=["s-pgd", "square"])
    monkeypatch.setattr(passes, "has_bfloat16", lambda _: native)
    guard = Layered()
    mixed = evade(guard, x, y, THREAT, only=["s-pgd", "square"], precision="mixed")
    searched = torch.bfloat16 if native else torch.float32
    assert {dtype for graded, dtype in guard.seen if graded} == {searched}
    assert (False, torch.float32) in guard.seen
    assert torch.equal(mixed.lost, full.lost)
    assert 0 < int(full.lost.sum()) < 30
    wrong, accepted, *_ = verdicts(guard, mixed.x_adv, y)
    assert torch.equal(wrong & accepted, mixed.lost)
    if not native:
        assert torch.equal(mixed.x_adv, full.x_adv)
