from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from robustgen.attacks.evading import EvadingPGD, next_classes
from robustgen.attacks.matching import Matching, Pool
from robustgen.attacks.passes import Passes
from robustgen.attacks.pgd import Steepest
from robustgen.attacks.square import Square
from robustgen.errors import UsageError
from robustgen.objectives import Accept, Evade, Misclassify, Rejection, VerdictOnly
from robustgen.testing import check_attack
from robustgen.threat import ThreatModel


def mean(x: Tensor, label: Tensor) -> Tensor:
    """A score that grows with the values' mean, and with the label."""
    return x.flatten(1).mean(1) + 0.01 * label


REJECTION = Rejection(mean, 0.5)


@pytest.mark.parametrize(
    "options",
    [{}, {"start": "pgd"}, {"start": "detector"}, {"start": "clean"}, {"targets": 2, "restarts": 2}, {"restarts": 2}],
)
@pytest.mark.parametrize("mode", ["evaluate", "max-loss"])
def test_evading_pgd_keeps_the_promises_of_an_attack(options: dict[str, Any], mode: Any) -> None:
    check_attack(lambda threat: EvadingPGD(threat=threat, objective=Evade(REJECTION), steps=4, mode=mode, **options))


@pytest.mark.parametrize("references", [1, 3])
def test_matching_keeps_the_promises_of_an_attack(references: int, generator: torch.Generator) -> None:
    pool = Pool(torch.rand(9, 1, 6, 6, generator=generator), torch.arange(9) % 4)
    check_attack(lambda threat: Matching(threat=threat, rejection=REJECTION, pool=pool, steps=4, references=references))


@pytest.mark.parametrize("objective", [VerdictOnly(REJECTION), Evade(REJECTION)])
def test_square_keeps_its_promises_with_a_detector(objective: Any) -> None:
    check_attack(lambda threat: Square(threat=threat, objective=objective, queries=20, drift=True))


def test_matching_reaches_what_it_matches(generator: torch.Generator) -> None:
    """With a linear map as the network and room to move, the input takes over the other's logits."""
    weight = torch.randn(4, 6, generator=generator)

    def model(x: Tensor) -> Tensor:
        return x @ weight.T

    x = torch.rand(8, 6, generator=generator)
    y = model(x).argmax(1)
    pool = Pool(x.clone(), y)
    goals = model(pool.x)

    def away(x: Tensor, label: Tensor) -> Tensor:
        """How far the logits are from the nearest of the pool's with that label."""
        return (torch.cdist(model(x), goals) + 1e9 * (pool.label[None] != label[:, None])).amin(1)

    attack = Matching(threat=ThreatModel("linf", 1.0), rejection=Rejection(away, 0.01), pool=pool, steps=400)
    found = attack.run(model, x, y)
    assert found.success.all()
    assert (model(found.x_adv).argmax(1) != y).all()


def test_matching_without_anything_to_match_is_refused() -> None:
    with pytest.raises(UsageError, match="pool is empty"):
        Matching(threat=ThreatModel("linf", 0.1), rejection=REJECTION, pool=Pool(torch.zeros(0, 2), torch.zeros(0)))


def test_next_classes_are_the_likeliest_others() -> None:
    logits = torch.tensor([[3.0, 1.0, 2.0], [0.0, 1.0, 2.0]])
    passes = Passes(lambda x: x, Misclassify(), 2, logits.device, rows_at_once=8)
    y = torch.tensor([0, 0])
    assert next_classes(passes, logits, y, 5).tolist() == [[[0, 2], [0, 1]], [[0, 2], [0, 1]]]
    assert next_classes(passes, logits, y, 1).tolist() == [[[0, 2]], [[0, 2]]]


def test_class_zero_is_a_target_like_any_other() -> None:
    """The reference code of orthogonal PGD takes target 0 for none."""

    def model(x: Tensor) -> Tensor:
        return x

    x = torch.tensor([[0.4, 0.6, 0.5]])
    objective = Evade(Rejection(lambda x, label: (label != 0).float(), 0.5))  # only class 0 is accepted
    attack = EvadingPGD(threat=ThreatModel("linf", 0.2), objective=objective, targets=2, steps=20)
    result = attack.run(model, x, torch.tensor([1]))
    assert result.success.all()
    assert model(result.x_adv).argmax(1).tolist() == [0]


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_steps_shrink_to_nothing_along_half_a_cosine(norm: Any, generator: torch.Generator) -> None:
    threat = ThreatModel(norm, 0.5, -100.0, 100.0)
    clean = torch.zeros(5, 7)
    gradient = torch.randn(5, 7, generator=generator)
    sizes = torch.tensor([1.0, 0.75, 0.5, 0.25, 0.0]) * 0.4
    moved = threat.step(clean, gradient, sizes)
    torch.testing.assert_close(threat.distance(moved, clean), sizes)
    for row in range(5):
        torch.testing.assert_close(
            moved[row : row + 1], threat.step(clean[:1], gradient[row : row + 1], float(sizes[row]))
        )
    assert Steepest(threat, 0.4).until is None


def test_the_first_restart_begins_where_plain_pgd_ends() -> None:
    """The descent that follows keeps the wrong label, though the score's own gradient leads back."""

    def model(x: Tensor) -> Tensor:
        return torch.stack([0 * x[:, 0], 10 * (x[:, 0] - 0.5)], 1)

    x = torch.full((3, 2), 0.45)
    y = torch.zeros(3, dtype=torch.int64)
    objective = Evade(Rejection(lambda x, label: x.sum(1), 0.8))
    attack = EvadingPGD(threat=ThreatModel("linf", 0.2), objective=objective, start="pgd", steps=50)
    assert attack.run(model, x, y).success.all()


def test_momentum_follows_a_valley_that_single_steps_only_cross() -> None:
    """Every gradient points across the valley, and their mean along it."""

    def model(x: Tensor) -> Tensor:
        return torch.stack([0 * x[:, 0], 1 + 0 * x[:, 0]], 1)

    def valley(x: Tensor, label: Tensor) -> Tensor:
        return 30 * (x[:, 0] - x[:, 1]).abs() - x.sum(1)

    x, y = torch.tensor([[0.2, 0.21]]), torch.zeros(1, dtype=torch.int64)
    threat, objective = ThreatModel("linf", 0.5), Evade(Rejection(valley, -1.2))

    def reached(decay: float) -> bool:
        attack = EvadingPGD(threat=threat, objective=objective, start="clean", decay=decay, step_size=0.1, steps=100)
        return bool(attack.run(model, x, y).success)

    assert reached(0.9)
    assert not reached(0.0)


def test_accept_asks_nothing_of_the_label() -> None:
    x = torch.tensor([[0.2, 0.2], [0.9, 0.9]])
    value, achieved = Accept(REJECTION)(lambda x: x, x, torch.zeros(2, dtype=torch.int64))
    assert achieved.tolist() == [True, False]
    torch.testing.assert_close(value, -mean(x, torch.zeros(2)))


def test_unusable_options_are_refused() -> None:
    threat = ThreatModel("linf", 0.1)
    with pytest.raises(UsageError, match="start"):
        EvadingPGD(threat=threat, objective=Evade(REJECTION), start="noise")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="targets"):
        EvadingPGD(threat=threat, objective=Evade(REJECTION), targets=-1)
    with pytest.raises(UsageError, match="steps"):
        EvadingPGD(threat=threat, objective=Evade(REJECTION), steps=0)
    for decay in (-0.1, float("inf"), float("nan")):
        with pytest.raises(UsageError, match="decay"):
            EvadingPGD(threat=threat, objective=Evade(REJECTION), decay=decay)
