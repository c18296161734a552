"""Combining p-values: known answers, monotone, and what least variance means."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.stats import cauchy, combine_pvalues
from torch import Tensor

from robustgen.errors import UsageError
from robustgen.guard.combine import Combine, in_order

WAYS = ("fisher", "smallest", "cauchy", "harmonic", "weighted", "or")


def evidence(k: int, n: int, seed: int = 0) -> Tensor:
    return -torch.log(torch.rand(k, n, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)))


def test_fisher_is_half_of_scipys_statistic() -> None:
    found = evidence(4, 20)
    expected = [combine_pvalues(np.exp(-row), method="fisher").statistic / 2 for row in found.T.numpy()]
    torch.testing.assert_close(Combine("fisher", 4)(found), torch.tensor(expected))


def test_cauchy_orders_inputs_as_the_mean_of_cauchy_quantiles_does() -> None:
    found = evidence(3, 200)
    expected = cauchy.isf(np.clip(np.exp(-found.numpy()), None, 0.99)).mean(0)
    torch.testing.assert_close(
        torch.sinh(Combine("cauchy", 3)(found)), torch.from_numpy(expected), rtol=1e-6, atol=1e-6
    )


def test_cauchy_goes_on_smoothly_where_it_would_overflow() -> None:
    far = torch.tensor([[11.999, 12.001, 50.0, 5000.0], [1.0, 1.0, 1.0, 1.0]], dtype=torch.float64)
    values = Combine("cauchy", 2)(far)
    assert torch.isfinite(values).all()
    assert (values.diff() > 0).all()
    assert float(values[1] - values[0]) == pytest.approx(0.002, rel=0.05)


@pytest.mark.parametrize("how", WAYS)
def test_more_evidence_from_any_member_never_lowers_it(how: str) -> None:
    combine, found = Combine(how, 3).double(), evidence(3, 50)
    combine.prepare(evidence(3, 400, seed=1))
    for member in range(3):
        more = found.clone()
        more[member] += 1.0
        assert (combine(more) >= combine(found) - 1e-12).all()


@pytest.mark.parametrize("how", WAYS)
def test_a_single_member_keeps_its_order(how: str) -> None:
    found = evidence(1, 30)
    order = Combine(how, 1).double()(found).argsort()
    kept = found[0].clamp(min=-math.log(0.99)) if how == "cauchy" else found[0]
    assert (kept[order].diff() >= 0).all()


def test_members_that_say_the_same_share_one_say() -> None:
    alone, other = evidence(2, 4000)
    combine = Combine("weighted", 3)
    combine.prepare(torch.stack([alone, alone, other]))
    twins, single = float(combine.weights[:2].sum()), float(combine.weights[2])
    assert float(combine.weights.sum()) == pytest.approx(3.0)
    assert twins == pytest.approx(single, rel=0.15)
    assert (combine.weights >= 0).all()


def test_weights_are_those_of_least_variance() -> None:
    found = evidence(3, 5000) * torch.tensor([[1.0], [2.0], [0.5]])
    combine = Combine("weighted", 3)
    combine.prepare(found)
    expected = 1 / found.var(1)
    torch.testing.assert_close(combine.weights, expected / expected.sum() * 3, rtol=0.1, atol=0.02)


def test_another_name_is_refused() -> None:
    with pytest.raises(UsageError, match="fisher"):
        Combine("fischer", 2)


def test_equal_shares_change_nothing() -> None:
    found = evidence(3, 50)
    torch.testing.assert_close(Combine("or", 3, [0.2, 0.2, 0.2])(found), Combine("or", 3)(found))


def test_a_member_causes_its_share_of_the_false_alarms() -> None:
    """Of independent p-values; a hundredth of those rejected is owed to both."""
    found, combine = evidence(2, 200_000), Combine("or", 2, [3, 1])
    score = combine(found)
    rejected = score > score.quantile(0.99)
    first = combine.each(found)[:, rejected].argmax(0) == 0
    assert float(first.double().mean()) == pytest.approx(0.75, abs=0.03)
    equal = Combine("or", 2)(found)
    both = Combine("or", 2).each(found)[:, equal > equal.quantile(0.99)].argmax(0)
    assert float(both.double().mean()) == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize("shares", [[1.0], [1.0, 0.0], [1.0, -1.0], [1.0, math.nan], [1.0, math.inf]])
def test_shares_that_are_none_are_refused(shares: list[float]) -> None:
    with pytest.raises(UsageError, match="2 numbers above 0"):
        Combine("or", 2, shares)


def test_shares_belong_to_channels_joined_by_or() -> None:
    with pytest.raises(UsageError, match="'fisher'"):
        Combine("fisher", 2, [1.0, 2.0])
    assert in_order({"b": 2.0, "a": 1.0}, ["a", "b"]) == [1.0, 2.0]
    with pytest.raises(UsageError, match=r"every channel \(a, b\), but of a came"):
        in_order({"a": 1.0}, ["a", "b"])
