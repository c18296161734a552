"""AutoAttack against what the authors' program found on the same network and inputs.

`reference/auto_attack.npz` was made by `benchmarks/robustgen_benchmarks/reference_facts.py`: the weights of a small
network trained on digits, 100 inputs, and for each norm and two seeds the number of the member that fooled each input
(-1 = wrong by itself, 4 = none).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from robustgen.attacks.apgd import APGD, APGDT
from robustgen.attacks.auto_attack import AutoAttack
from robustgen.attacks.fab import FABT
from robustgen.attacks.square import Square
from robustgen.errors import UsageError
from robustgen.objectives import Misclassify, margin
from robustgen.threat import Norm, ThreatModel
from toys import Counting, small_cnn

FACTS = Path(__file__).parent / "reference" / "auto_attack.npz"
THREATS: tuple[tuple[Norm, float], ...] = (("linf", 0.15), ("l2", 0.7), ("l1", 2.5))


@pytest.fixture(scope="module")
def facts() -> dict[str, Tensor]:
    with np.load(FACTS, allow_pickle=False) as stored:
        return {key: torch.from_numpy(stored[key]) for key in stored.files}


@pytest.fixture(scope="module")
def victim(facts: dict[str, Tensor]) -> tuple[nn.Module, Tensor, Tensor]:
    """The network of the facts, and those inputs that it classifies correctly."""
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(128, 24),
        nn.ReLU(),
        nn.Linear(24, 10),
    ).eval()
    model.load_state_dict({name: facts[name.replace(".", "_")] for name in model.state_dict()})
    x, y = facts["x"].float() / 16, facts["y"].long()
    correct = facts["linf_0.15_seed_0"] >= 0
    assert torch.equal(model(x).argmax(1) == y, correct)
    return model, x[correct], y[correct]


def holds(facts: dict[str, Tensor], norm: str, eps: float, seed: int, after: int) -> Tensor:
    """Which of the correctly classified rows no member up to `after` fooled, by the authors' program."""
    fooled = facts[f"{norm}_{eps:g}_seed_{seed}"]
    return fooled[fooled >= 0] > after


@pytest.mark.slow
@pytest.mark.parametrize(("norm", "eps"), THREATS)
def test_stages_and_verdict_are_the_authors(
    norm: Norm, eps: float, victim: tuple[nn.Module, Tensor, Tensor], facts: dict[str, Tensor]
) -> None:
    """Where two seeds of the reference agree, we do: after apgd-ce and after apgd-t but for two rows in a hundred, in
    the end but for one.
    """
    model, x, y = victim
    attack = AutoAttack(threat=ThreatModel(norm, eps))
    result = attack.run(model, x, y)
    assert attack.threat.allows(result.x_adv, x).all()
    assert torch.equal(model(result.x_adv).argmax(1) != y, result.success)
    for stage in (0, 1, 3):
        ours = ~result.success | (result.member > stage)
        theirs, other = (holds(facts, norm, eps, seed, stage) for seed in (0, 1))
        assert int(((theirs == other) & (ours != theirs)).sum()) <= (1 if stage == 3 else 2)
        assert abs(int(ours.sum()) - int(theirs.sum())) <= 3


def test_the_standard_list_is_the_authors() -> None:
    attack = AutoAttack(threat=ThreatModel("linf", 0.1))
    assert attack.members == ("apgd-ce", "apgd-t", "fab-t", "square")
    ce, targeted, fab, square = attack.attacks
    assert isinstance(ce, APGD)
    assert (ce.steps, ce.restarts, ce.rho) == (100, 1, 0.75)
    assert isinstance(targeted, APGDT)
    assert (targeted.steps, targeted.targets, targeted.restarts) == (100, 9, 1)
    assert isinstance(fab, FABT)
    assert (fab.steps, fab.targets, fab.restarts, fab.alpha_max, fab.eta, fab.beta) == (100, 9, 1, 0.1, 1.05, 0.9)
    assert isinstance(square, Square)
    assert (square.queries, square.p_init, square.restarts) == (5000, 0.8, 1)
    sparse_ce, sparse_targeted, *_ = AutoAttack(threat=ThreatModel("l1", 10)).attacks
    assert isinstance(sparse_ce, APGD)
    assert isinstance(sparse_targeted, APGDT)
    assert (sparse_ce.restarts, sparse_targeted.targets) == (5, 5)


def test_plus_and_rand_are_the_authors() -> None:
    plus = AutoAttack(threat=ThreatModel("l2", 1.0), version="plus")
    assert plus.members == ("apgd-ce", "apgd-dlr", "fab", "square", "apgd-t", "fab-t")
    assert [getattr(attack, "restarts", 1) for attack in plus.attacks] == [5, 5, 5, 1, 1, 1]
    rand = AutoAttack(threat=ThreatModel("l2", 1.0), version="rand")
    assert rand.members == ("apgd-ce", "apgd-dlr")
    assert (rand.eot, *(attack.eot for attack in rand.attacks)) == (20, 20, 20)
    assert AutoAttack(threat=ThreatModel("l2", 1.0), version="rand", eot=50).attacks[0].eot == 50


@pytest.mark.slow
def test_each_member_only_sees_what_still_holds_and_every_pass_is_counted(generator: torch.Generator) -> None:
    counting = Counting(small_cnn().eval())
    x = torch.rand(12, 1, 8, 8, generator=generator)
    y = counting.network(x).argmax(1)
    done: list[float] = []
    result = AutoAttack(threat=ThreatModel("linf", 0.06)).run(counting, x, y, done.append)
    assert counting.forward_rows == int(result.forward.sum())
    assert counting.backward_rows == int(result.backward.sum())
    assert sum(done) == pytest.approx(12)
    early = (result.member == 0) & result.success
    assert early.any()
    assert (result.forward[early] == result.first_success[early] + 1).all()


def test_the_verdict_does_not_depend_on_the_batch(victim: tuple[nn.Module, Tensor, Tensor]) -> None:
    """Rows are fooled by the same member whatever the batch size and the order."""
    model, x, y = victim
    attack = AutoAttack(threat=ThreatModel("linf", 0.3))
    whole = attack.run(model, x[:30], y[:30])
    small = AutoAttack(threat=attack.threat, batch_size=7).run(model, x[:30].flip(0), y[:30].flip(0))
    assert torch.equal(whole.success, small.success.flip(0))
    assert int((whole.member != small.member.flip(0)).sum()) <= 1
    assert attack.threat.allows(whole.x_adv, x[:30]).all()


def test_it_finds_at_least_what_each_part_finds(victim: tuple[nn.Module, Tensor, Tensor]) -> None:
    model, x, y = victim
    x, y = x[:20], y[:20]
    threat = ThreatModel("linf", 0.4)
    whole = AutoAttack(threat=threat).run(model, x, y).success
    for part in (APGD(threat=threat, steps=100), Square(threat=threat, queries=100)):
        assert (whole | ~part.run(model, x, y).success).all()


@pytest.mark.parametrize("classes", [2, 3])
def test_few_classes_and_few_rows(classes: int, generator: torch.Generator) -> None:
    weight = torch.randn(classes, 6, generator=generator)

    def model(x: Tensor) -> Tensor:
        return x.flatten(1) @ weight.T

    x = torch.rand(5, 1, 2, 3, generator=generator)
    y = model(x).argmax(1)
    for version in ("standard", "plus", "rand"):
        attack = AutoAttack(threat=ThreatModel("linf", 0.9), version=version)
        assert attack.run(model, x, y).success.double().mean() >= 0.8
        assert attack.run(model, x[:1], y[:1]).x_adv.shape == x[:1].shape
        assert attack.run(model, x[:0], y[:0]).x_adv.shape == x[:0].shape
        wrong = attack.run(model, x, (y + 1) % classes)
        assert wrong.success.all()
        assert torch.equal(wrong.first_success, torch.zeros(5, dtype=torch.int64)) or version != "rand"


def test_what_it_cannot_do_is_refused() -> None:
    with pytest.raises(UsageError, match="did you mean 'plus'"):
        AutoAttack(threat=ThreatModel("linf", 0.1), version="pluss")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="no targeted form"):
        AutoAttack(threat=ThreatModel("linf", 0.1), objective=Misclassify(targeted=True))
    with pytest.raises(UsageError, match="losses of its own"):
        AutoAttack(threat=ThreatModel("linf", 0.1), objective=Misclassify(margin))
    with pytest.raises(UsageError, match="works in linf, l2, l1"):
        AutoAttack(threat=ThreatModel("l0", 3))
