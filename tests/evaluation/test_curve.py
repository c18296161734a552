"""Robust accuracy against eps, and the per-sample arrays that it follows from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, final

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from robustgen.attacks.base import Attack, Found, Progress
from robustgen.attacks.ddn import DDN
from robustgen.attacks.fgsm import FGSM
from robustgen.attacks.fmn import FMN
from robustgen.attacks.passes import Passes
from robustgen.attacks.pgd import PGD
from robustgen.data.array_source import ArraySource
from robustgen.data.load import load
from robustgen.data.source import Source
from robustgen.errors import UsageError
from robustgen.evaluation.curve import evasions
from robustgen.evaluation.robustness import Robustness, evaluate_attack
from robustgen.evaluation.summary import configuration, full_steps
from robustgen.threat import ThreatModel
from toys import Counting, Linear2

LINF = ThreatModel("linf", 0.2)
GRID = (0.0, 0.05, 0.1, 0.15, 0.2)


@pytest.fixture(scope="module")
def linear() -> Linear2:
    generator = torch.Generator().manual_seed(3)
    return Linear2(torch.randn(16, generator=generator), 0.0)


@pytest.fixture(scope="module")
def source(linear: Linear2, tmp_path_factory: pytest.TempPathFactory) -> Source:
    """90 inputs up to 0.25 away from the boundary, far from the box's walls; ten of them labelled wrongly."""
    generator = torch.Generator().manual_seed(4)
    x = 0.5 + 0.02 * (torch.rand(90, 1, 4, 4, generator=generator) - 0.5)
    linear.bias.data = -0.5 * linear.weight.detach().sum()
    x = x + torch.linspace(-0.25, 0.25, 90)[:, None, None, None] * linear.weight.detach().sign().reshape(1, 1, 4, 4)
    y = linear(x).argmax(1)
    y[:10] = 1 - y[:10]
    path = tmp_path_factory.mktemp("linear") / "x.npz"
    np.savez(path, x=x.numpy(), y=y.numpy())
    return load(str(path))


def evaluated(attack: Attack, model: nn.Module, source: Source, eps: Sequence[float] | None = None) -> Robustness:
    return evaluate_attack("attack", attack, model, source, split="all", eps=eps, diagnose=False)


def truth(linear: Linear2, source: Source, norm: str, eps: float) -> float:
    """The robust accuracy of the linear model, in closed form."""
    batch = source.read(source.rows("all"))
    assert batch.y is not None
    right = linear(batch.x).argmax(1) == batch.y
    return (right & (linear.distance(batch.x, norm) > eps)).double().mean().item()


def test_the_curve_of_a_linear_model_is_the_one_in_closed_form(linear: Linear2, source: Source) -> None:
    found = evaluated(PGD(threat=LINF, steps=10), linear, source, GRID)
    curve = found.summary["curve"]
    assert [point["eps"] for point in curve] == list(GRID)
    for point in curve:
        assert point["robust_accuracy"] == pytest.approx(truth(linear, source, "linf", point["eps"]), abs=1 / 90)
        low, high = point["robust_accuracy_interval"]
        assert low <= point["robust_accuracy"] <= high
    assert curve[0]["robust_accuracy"] == found.summary["clean_accuracy"] == 80 / 90
    assert curve[-1]["robust_accuracy"] == found.summary["robust_accuracy"]
    values = [point["robust_accuracy"] for point in curve]
    assert values == sorted(values, reverse=True)
    assert values[0] > values[2] > values[4]


def test_a_curve_agrees_with_single_runs_and_costs_less(linear: Linear2, source: Source) -> None:
    attack = PGD(threat=LINF, steps=10)
    found = evaluated(attack, linear, source, GRID)
    singles = [evaluated(replace(attack, threat=replace(LINF, eps=eps)), linear, source) for eps in GRID]
    for point, single in zip(found.summary["curve"], singles, strict=True):
        assert point["robust_accuracy"] == single.summary["robust_accuracy"]
        assert single.summary["curve"] == [
            {"eps": single.summary["eps"], "robust_accuracy": point["robust_accuracy"]}
            | {"robust_accuracy_interval": single.summary["robust_accuracy_interval"]}
        ]
    assert found.summary["backward_passes"] < sum(single.summary["backward_passes"] for single in singles)


def test_what_fell_at_a_smaller_size_is_not_attacked_again(linear: Linear2, source: Source) -> None:
    """A change once found stays the one that is kept, legal at the size at which it was found."""
    found = evaluated(PGD(threat=LINF, steps=10), linear, source, GRID)
    s = found.samples
    assert set(s["eps"][s["success"]]) <= set(GRID)
    assert (s["eps"][~s["success"]] == -1).all()
    assert (s["norm_linf"][s["success"]] <= s["eps"][s["success"]] * (1 + 1e-6) + 6e-8).all()
    counting = Counting(linear)
    again = evaluated(PGD(threat=LINF, steps=10), counting, source, GRID)
    assert again.summary["forward_passes"] == counting.forward_rows - 2 * 64
    assert again.summary["backward_passes"] == counting.backward_rows


@pytest.mark.parametrize(("norm", "kind"), [("l2", DDN), ("linf", FMN), ("l1", FMN)])
def test_one_run_of_an_attack_for_the_smallest_change_gives_the_whole_curve(
    linear: Linear2, source: Source, norm: Any, kind: Any
) -> None:
    attack = kind(threat=ThreatModel(norm, 1.0), steps=200)
    found = evaluated(attack, linear, source)
    s, curve = found.samples, found.summary["curve"]
    assert len(curve) in (16, 17)
    assert curve[0]["eps"] == 0
    assert curve[-1]["eps"] == 1.0
    np.testing.assert_allclose(s["eps"][s["success"]], s[f"norm_{norm}"][s["success"]], rtol=1e-5)
    for point in curve:  # a change found is within a few percent of the smallest: the curve is the true one, moved
        assert point["robust_accuracy"] >= truth(linear, source, norm, point["eps"])
        assert point["robust_accuracy"] <= truth(linear, source, norm, point["eps"] * 0.9) + 2 / 90
    asked = evaluated(attack, linear, source, (0.1, 1.0))
    assert [point["eps"] for point in asked.summary["curve"]] == [0.1, 1.0]
    assert asked.summary["forward_passes"] == found.summary["forward_passes"]


def test_an_attack_for_the_smallest_change_that_stops_early_is_run_at_each_size(
    linear: Linear2, source: Source
) -> None:
    found = evaluated(FMN(threat=LINF, steps=100, mode="evaluate"), linear, source, GRID)
    assert set(found.samples["eps"]) <= {-1.0, *GRID}
    for point in found.summary["curve"]:
        assert point["robust_accuracy"] == pytest.approx(truth(linear, source, "linf", point["eps"]), abs=3 / 90)


def test_sizes_that_are_not_those_of_the_attack(linear: Linear2, source: Source) -> None:
    for grid in ((), (0.1,), (0.1, 0.3), (-0.1, 0.2)):
        with pytest.raises(UsageError, match="own eps, 0.2"):
            evaluated(PGD(threat=LINF), linear, source, grid)


def test_every_sample_has_its_story(linear: Linear2, source: Source) -> None:
    found = evaluated(PGD(threat=LINF, steps=10, restarts=2), linear, source)
    s = found.samples
    won, lost, alone = s["success"], s["attacked"] & ~s["success"], ~s["attacked"]
    assert alone.sum() == 10
    assert (s["first_success"][won] >= 0).all()
    assert (s["first_success"][~won] == -1).all()
    assert (s["first_success"][won] >= s["steps"][won]).all()
    assert (s["restart"][alone] == -1).all()
    assert (s["member"][alone] == -1).all()
    assert (s["member"][s["attacked"]] == 0).all()
    assert (s["margin"][won] > 0).all()
    assert (s["margin"][lost] <= 0).all()
    assert (s["eps"][won] == 0.2).all()
    assert found.summary["members"] == [{"name": "PGD", "fooled": int(won.sum())}]
    assert found.summary["quantise"] is None
    assert {"data_sha256", "seed", "versions", "split"} <= set(found.summary)
    rows = s["attacked"]
    taken = np.where(won, s["first_success"], 20)[rows].mean()
    assert found.summary["steps"] == 20
    assert found.summary["first_success_mean"] == pytest.approx(taken)
    assert found.summary["ceiling"] == pytest.approx(20 / taken)


def test_one_step_without_a_look_of_its_own_has_a_first_success_too(linear: Linear2, source: Source) -> None:
    s = evaluated(FGSM(threat=LINF), linear, source).samples
    assert set(s["first_success"][s["success"]]) == {1}
    assert set(s["first_success"][~s["success"]]) == {-1}


def test_effort_of_a_curve_counts_every_size(linear: Linear2, source: Source) -> None:
    found = evaluated(PGD(threat=LINF, steps=10), linear, source, GRID)
    s = found.samples
    rows = s["attacked"]
    assert found.summary["steps"] == 10
    runs = np.where(s["success"], np.searchsorted(GRID[1:], s["eps"]), 4)[rows]
    taken = (runs * 10 + np.where(s["success"], s["first_success"], 0)[rows]).mean() / 4
    assert found.summary["first_success_mean"] == pytest.approx(taken)
    assert found.summary["ceiling"] == pytest.approx(10 / taken)


@final
@dataclass(frozen=True, kw_only=True)
class Shared(Attack):
    """One change for all inputs that it is given: their mean direction."""

    whole: ClassVar[bool] = True

    def _run(self, passes: Passes, x: Tensor, y: Tensor, progress: Progress, verify: bool) -> Found:
        found, rows = Found.nothing(x), torch.arange(len(x))
        gradient = passes.ascent(rows, x, y).gradient.mean(0, keepdim=True)
        found.x_adv = self.threat.project(x + self.threat.eps * gradient.sign(), x)
        found.member += len(x)  # to see how many rows came together
        progress(len(x))
        return found


def test_an_attack_with_one_change_for_all_gets_all_inputs_at_once(
    linear: Linear2, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("robustgen.evaluation.robustness._BLOCK_VALUES", 16 * 7)
    s = evaluated(Shared(threat=LINF), linear, source, GRID).samples
    assert set(s["member"]) == {80, -1}


def test_the_verdict_survives_a_full_memory(linear: Linear2, source: Source) -> None:
    class Full(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            if len(x) > 64:
                raise torch.OutOfMemoryError("out of memory")
            logits: Tensor = linear(x)
            return logits

    attack = PGD(threat=LINF, steps=5, batch_size=90)
    ours, theirs = (evaluated(attack, model, source) for model in (Full(), linear))
    np.testing.assert_array_equal(ours.samples["success"], theirs.samples["success"])


def test_configurations_are_plain_values() -> None:
    @dataclass(frozen=True)
    class Mixed:
        objective: object
        parts: tuple[object, ...]
        table: dict[str, object]
        function: object

    attack = FGSM(threat=LINF)
    found = configuration(Mixed(attack.objective, (attack, 1.5, None), {"a": torch.relu}, object()))  # type: ignore[arg-type]
    assert found["objective"] == {"loss": "cross_entropy", "targeted": False}
    assert found["parts"][0]["threat"]["norm"] == "linf"
    assert found["parts"][1:] == [1.5, None]
    assert (found["table"], found["function"]) == ({"a": "relu"}, "object")


def test_full_steps() -> None:
    assert full_steps(PGD(threat=LINF, steps=7, restarts=3)) == 21
    assert full_steps(FGSM(threat=LINF)) is None


def test_adversarials_are_float32(linear: Linear2, source: Source, tmp_path: Path) -> None:
    assert isinstance(source, ArraySource)
    evaluate_attack("fgsm", FGSM(threat=LINF), linear, source, split="all", diagnose=False, directory=tmp_path)
    with np.load(tmp_path / "block-00000.npz") as block:
        assert block["x_adv"].dtype == np.float32


def test_an_attack_that_never_stops_early_has_no_ceiling(linear: Linear2, source: Source) -> None:
    found = evaluated(FMN(threat=LINF, steps=10), linear, source)
    assert found.summary["steps"] == 10
    assert found.summary["ceiling"] is None


def test_success_against_eps_of_what_was_found() -> None:
    """Ten inputs, the smallest changes known: the share within each size, up to the largest allowed."""
    needed = np.array([0.0, 0.01, 0.02, 0.02, 0.05, 0.07, 0.1, 0.2, 0.2, 0.2])
    lost = np.arange(10) < 7
    points = evasions(LINF, lost, needed)
    for point in points[:-1]:
        assert point["success"] == (lost & (needed <= point["eps"] + 1e-7)).mean()
        low, high = point["success_interval"]
        assert low <= point["success"] <= high
    assert (points[0]["eps"], points[0]["success"]) == (0.0, 0.1)
    assert (points[-1]["eps"], points[-1]["success"]) == (0.2, 0.7)
    none = evasions(LINF, np.zeros(10, dtype=bool), needed)
    assert none[-1]["eps"] == 0.2
    assert not any(point["success"] for point in none)
