from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from robustgen.attacks import ATTACKS
from robustgen.attacks.base import Attack
from robustgen.attacks.build import kind_of, make
from robustgen.attacks.pgd import PGD
from robustgen.errors import UsageError
from robustgen.testing import check_attack
from robustgen.threat import ThreatModel

LINF = ThreatModel("linf", 0.1)


SHORT: dict[str, dict[str, int]] = {
    "apgd-ce": {"steps": 20},
    "apgd-dlr": {"steps": 20},
    "apgd-t": {"steps": 12},
    "apgd-minimal": {"steps": 10, "rounds": 3},
    "fab": {"steps": 12},
    "fab-t": {"steps": 12},
    "square": {"queries": 60},
    "carlini-wagner": {"steps": 20, "searches": 3},
    "ddn": {"steps": 30},
    "fmn": {"steps": 30},
    "sigma-zero": {"steps": 30},
    "hop-skip-jump": {"queries": 120, "initial_probes": 30},
    "universal": {"steps": 4},
}


@pytest.mark.parametrize("name", [name for name in ATTACKS if name != "auto-attack"])  # its members are here one by one
def test_every_registered_attack_keeps_the_contract(name: str) -> None:
    if name == "fooling":
        pytest.skip("it makes its own inputs, whatever eps: tests/attacks/test_fooling.py")
    check_attack(lambda threat: make(name, threat, SHORT.get(name)))


@pytest.mark.parametrize("name", [name for name in ATTACKS if name != "fooling"])
def test_without_walls_an_attack_is_legal_or_refused(name: str, generator: torch.Generator) -> None:
    """A table's columns have no bounds: where an attack needs them it says so, else it works as everywhere."""
    weight = torch.randn(4, 6, generator=generator)

    def model(x: Tensor) -> Tensor:
        return x @ weight.T

    x = 3 * torch.randn(12, 6, generator=generator)
    y = model(x).argmax(1)
    kind = kind_of(name)
    for norm in kind.norms:
        threat = ThreatModel(norm, 2.0, -math.inf, math.inf)
        if norm in kind.bounded:
            with pytest.raises(UsageError, match="lowest and a highest"):
                make(name, threat)
            continue
        result = make(name, threat, SHORT.get(name)).run(model, x, y)
        assert torch.isfinite(result.x_adv).all()
        assert threat.allows(result.x_adv, x).all()
        assert (model(result.x_adv).argmax(1) != y)[result.success].all()


@pytest.mark.parametrize("options", [{"restarts": 3}, {"mode": "max-loss"}, {"mode": "last"}, {"random_start": False}])
def test_pgd_keeps_it_in_every_mode(options: dict[str, object]) -> None:
    check_attack(lambda threat: make("pgd", threat, {"steps": 7, **options}))


def test_the_check_notices_a_broken_attack() -> None:
    class Outside(PGD):  # type: ignore[misc]  # final, and broken on purpose
        def _run(self, passes, x, y, progress, verify):  # type: ignore[no-untyped-def]
            result = super()._run(passes, x, y, progress, verify)
            result.x_adv.add_(0.05)
            return result

    with pytest.raises(AssertionError, match="eps = 0|ball and the box"):
        check_attack(lambda threat: Outside(threat=threat, steps=3))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "steps must be a whole number"),
        ({"steps": 2.5}, "steps must be a whole number"),
        ({"step_size": -0.1}, "above 0"),
        ({"restarts": 2, "random_start": False}, "need random starts"),
        ({"restarts": 2, "mode": "last"}, "need random starts"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"stepz": 3}, "no option 'stepz'"),
    ],
)
def test_impossible_configurations_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make("pgd", LINF, options)


def test_an_attack_is_a_value() -> None:
    a: Attack = PGD(threat=LINF, steps=5)
    assert a == PGD(threat=LINF, steps=5)
    assert a != PGD(threat=LINF, steps=6)
    with pytest.raises(AttributeError):
        a.steps = 7  # type: ignore[attr-defined]
