from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from robustgen.objectives import (
    LOSSES,
    Diverge,
    Evade,
    Misclassify,
    Rejection,
    VerdictOnly,
    cross_entropy,
    divergence,
    dlr,
    margin,
    ranked,
)
from robustgen.registry import resolve


@pytest.mark.parametrize("name", LOSSES)
def test_losses_are_differentiable_and_per_sample(name: str, generator: torch.Generator) -> None:
    loss = resolve(LOSSES, name, "loss")
    logits = torch.randn(6, 5, generator=generator, dtype=torch.float64, requires_grad=True)
    y = torch.tensor([0, 1, 2, 3, 4, 0])
    assert loss(logits, y).shape == (6,)
    assert torch.autograd.gradcheck(lambda z: loss(z, y), (logits,))
    assert torch.equal(loss(logits[2:3], y[2:3]), loss(logits, y)[2:3])


def test_known_values() -> None:
    logits = torch.tensor([[3.0, 1.0, 0.0, -1.0]])
    y, wrong = torch.tensor([0]), torch.tensor([1])
    assert margin(logits, y).item() == -2.0
    assert margin(logits, wrong).item() == 2.0
    assert dlr(logits, y).item() == pytest.approx(-2.0 / 3.0)
    assert cross_entropy(logits, y).item() == pytest.approx(-torch.log_softmax(logits, 1)[0, 0].item())


def test_divergence_is_that_of_the_probabilities(generator: torch.Generator) -> None:
    p, q = torch.randn(2, 9, 5, generator=generator, dtype=torch.float64)
    expected = torch.nn.functional.kl_div(q.log_softmax(1), p.softmax(1), reduction="none").sum(1)
    torch.testing.assert_close(divergence(p, q), expected)
    assert (divergence(p, q) > 0).all()
    assert divergence(p, p).abs().max() == 0
    assert divergence(torch.tensor([[0.0, 0.0]]), torch.tensor([[0.0, 0.0]]) + 7).item() == 0
    q.requires_grad_()
    assert torch.autograd.gradcheck(divergence, (p, q))


def test_diverge_looks_up_each_row_and_is_flat_where_it_begins(generator: torch.Generator) -> None:
    model = torch.nn.Linear(4, 3)
    x = torch.rand(6, 4, generator=generator).requires_grad_()
    objective = Diverge(model(x).detach())
    value, achieved = objective(model, x, torch.arange(6))
    assert value.abs().max() < 1e-6
    assert not achieved.any()
    assert torch.autograd.grad(value.sum(), x)[0].abs().max() < 1e-6
    rows = torch.tensor([4, 1])
    moved = x.detach()[rows] + 0.5
    value, achieved = objective(model, moved, rows)
    torch.testing.assert_close(value, divergence(model(x)[rows], model(moved)))
    assert torch.equal(achieved, model(moved).argmax(1) != model(x)[rows].argmax(1))


def test_margin_is_positive_exactly_where_the_label_is_not_predicted(generator: torch.Generator) -> None:
    logits = torch.randn(500, 4, generator=generator)
    y = torch.randint(0, 4, (500,), generator=generator)
    assert torch.equal(margin(logits, y) > 0, logits.argmax(1) != y)


def test_dlr_is_blind_to_scale_and_falls_back_for_two_classes(generator: torch.Generator) -> None:
    logits, y = torch.randn(50, 6, generator=generator), torch.zeros(50, dtype=torch.int64)
    torch.testing.assert_close(dlr(1000 * logits + 5, y), dlr(logits, y), atol=1e-3, rtol=1e-3)
    assert torch.equal(dlr(logits[:, :2], y), margin(logits[:, :2], y))


def test_a_targeted_objective_is_achieved_at_the_target(generator: torch.Generator) -> None:
    logits = torch.randn(50, 4, generator=generator)
    target = torch.full((50,), 2)
    value, achieved = Misclassify(targeted=True)(lambda x: x, logits, target)
    assert torch.equal(achieved, logits.argmax(1) == 2)
    torch.testing.assert_close(value, -cross_entropy(logits, target))


def sides(x: Tensor) -> Tensor:
    """Class 1 where the first value is above a half."""
    lead = 10 * (x[:, 0] - 0.5)
    return torch.stack([-lead, lead], 1)


def second(x: Tensor, label: Tensor) -> Tensor:
    """The distance of the second value from the label's place: 0.2 for class 0, 0.8 for class 1."""
    return (x[:, 1] - (0.2 + 0.6 * label)).abs()


def test_a_wrong_label_ranks_above_a_right_one_and_then_the_score_counts() -> None:
    x = torch.tensor([[0.4, 0.8], [0.6, 0.3], [0.6, 0.5], [0.45, 0.8], [0.6, 0.75]])
    value, achieved = Evade(Rejection(second, 0.1))(sides, x, torch.zeros(5, dtype=torch.int64))
    assert value.argsort().tolist() == [0, 3, 1, 2, 4]
    assert achieved.tolist() == [False, False, False, False, True]
    verdict, same = VerdictOnly(Rejection(second, 0.1))(sides, x, torch.zeros(5, dtype=torch.int64))
    assert verdict.tolist() == [0, 1, 1, 0, 2]
    assert torch.equal(achieved, same)


@pytest.mark.parametrize("way", ["selective", "orthogonal", "lagrangian", "reject-class"])
def test_the_detector_is_asked_only_where_its_answer_counts(way: Any, generator: torch.Generator) -> None:
    """Beside a right label it never does for a verdict, and for a step only on the ways that use both gradients."""
    asked: list[int] = []

    def counted(x: Tensor, label: Tensor) -> Tensor:
        asked.append(len(x))
        return second(x, label)

    x = torch.rand(50, 2, generator=generator)
    label = torch.zeros(50, dtype=torch.int64)
    wrong = int((sides(x).argmax(1) != 0).sum())
    assert 0 < wrong < 50
    whole = [Evade(Rejection(second, 0.1), way)(sides, x[i : i + 1], label[:1]) for i in range(50)]
    for objective in (VerdictOnly(Rejection(counted, 0.1)), Evade(Rejection(counted, 0.1), way)):
        _, achieved = objective(sides, x, label)
        assert asked.pop() == wrong
        assert torch.equal(achieved, torch.cat([found for _, found in whole]))
    value, achieved = Evade(Rejection(counted, 0.1), way)(sides, x.clone().requires_grad_(), label)
    assert asked.pop() == (wrong if way == "selective" else 50)
    assert torch.equal(value.detach(), torch.cat([value for value, _ in whole]))
    VerdictOnly(Rejection(counted, 0.1))(sides, x[sides(x).argmax(1) == 0], label[: 50 - wrong])
    assert not asked


def test_a_score_is_followed_before_the_label_is_wrong_where_the_slack_says_so() -> None:
    x = torch.tensor([[0.45, 0.9]]).requires_grad_()  # the right label, by less than the slack
    value, achieved = Evade(Rejection(second, 0.1), slack=-2.0)(sides, x, torch.zeros(1, dtype=torch.int64))
    assert torch.autograd.grad(value.sum(), x)[0].tolist() == [[0.0, -1.0]]
    assert not achieved.any()


def test_ranks_tell_far_scores_apart_and_take_infinite_ones() -> None:
    excess = torch.tensor([1e6, 1.001e6, 1e30, -1e30, -2.0, 0.0])
    rank = ranked(torch.ones(6, dtype=torch.bool), torch.zeros(6), excess)
    assert (rank > 0).all()
    assert (rank <= 2).all()
    assert rank[0] > rank[1] > rank[2]
    assert rank[3] > rank[4] > rank[5]
    rejection = Rejection(second, 1.0)
    assert torch.isfinite(rejection.excess(torch.tensor([torch.nan, torch.inf, -torch.inf]))).all()
    nothing = Rejection(lambda x, label: x[:, 0] * torch.nan, 1.0)
    assert not nothing(torch.ones(2, 2), torch.zeros(2, dtype=torch.int64))[1].any()


def test_directions_are_those_of_the_ways() -> None:
    """With gradients a of the margin and b of the score: selective a or -b; orthogonal a without b, or -b without a."""
    a, b = torch.tensor([1.0, 1.0, 0.0]), torch.tensor([0.0, 2.0, 1.0])

    def model(x: Tensor) -> Tensor:
        lead = (x * a).sum(1)
        return torch.stack([-lead / 2, lead / 2], 1)

    def direction(point: Tensor, beside: Tensor | None = None, aim: Any = (0,), **options: Any) -> Tensor:
        x = torch.stack([point, *([] if beside is None else [beside])]).requires_grad_()
        y = torch.tensor([aim[0] if len(aim) == 1 else aim] * len(x))
        value, _ = Evade(Rejection(lambda x, _: (x * b).sum(1), -10.0), **options)(model, x, y)
        return torch.autograd.grad(value.sum(), x)[0][0]

    held, fooled = torch.tensor([-1.0, 0.0, 0.0]), torch.tensor([1.0, 0.0, 0.0])
    for beside in (None, held, fooled):  # also where the batch spares a gradient
        torch.testing.assert_close(direction(held, beside), a)
        torch.testing.assert_close(direction(fooled, beside), -b)
        torch.testing.assert_close(direction(held, beside, (0, 1)), a)
        torch.testing.assert_close(direction(held, beside, way="orthogonal"), a - (a @ b) / (b @ b) * b)
        torch.testing.assert_close(direction(fooled, beside, way="orthogonal"), -(b - (a @ b) / (a @ a) * a))
        both = direction(held, beside, way="lagrangian", weight=0.5)
        torch.testing.assert_close(both, a / a.norm() - 0.5 * b / b.norm())
        torch.testing.assert_close(direction(fooled, beside, way="lagrangian"), -b / b.norm())
    accepted = torch.tensor([30.0, -20.0, 0.0])
    assert not direction(accepted, way="lagrangian").any()


def test_draws_average_gradients_and_accept_by_majority(generator: torch.Generator) -> None:
    steps = iter([1.0, 2.0, 6.0] * 2)
    rejection = Rejection(lambda x, _: next(steps) * x[:, 0], 2.5, draws=3)
    x = torch.ones(2, 1, requires_grad=True)
    score, accepted = rejection(x, torch.zeros(2, dtype=torch.int64))
    torch.testing.assert_close(score, torch.full((2,), 3.0))
    assert accepted.all()
    torch.testing.assert_close(torch.autograd.grad(score.sum(), x)[0], torch.full((2, 1), 3.0))
