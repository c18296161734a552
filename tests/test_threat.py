from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from torch import Tensor

from robustgen.errors import UsageError
from robustgen.randomness import sample_keys
from robustgen.threat import Norm, ThreatModel

NORMS: tuple[Norm, ...] = ("linf", "l2", "l1")


@settings(max_examples=60, deadline=None)
@given(norm=st.sampled_from(NORMS), eps=st.floats(0, 1), seed=st.integers(0, 10_000), reach=st.floats(0.01, 5))
def test_projection_is_legal_idempotent_and_leaves_legal_points_alone(
    norm: Norm, eps: float, seed: int, reach: float
) -> None:
    generator = torch.Generator().manual_seed(seed)
    threat = ThreatModel(norm, eps)
    x = torch.rand(5, 2, 3, generator=generator)
    far = x + reach * torch.randn(5, 2, 3, generator=generator)
    near = threat.project(far, x)
    assert threat.allows(near, x).all()
    torch.testing.assert_close(threat.project(near, x), near, atol=2e-6, rtol=0)


@pytest.mark.parametrize("norm", NORMS)
def test_projection_is_the_nearest_legal_point(norm: Norm, generator: torch.Generator) -> None:
    """Against a general convex solver: no legal point is nearer."""
    threat = ThreatModel(norm, 0.4)
    x = torch.rand(20, 4, generator=generator, dtype=torch.float64)
    far = x + torch.randn(20, 4, generator=generator, dtype=torch.float64)
    ours = threat.project(far, x)
    for here, target, found in zip(x.numpy(), far.numpy(), ours.numpy(), strict=True):
        best = _nearest(norm, here, target, 0.4)
        assert np.square(found - target).sum() <= np.square(best - target).sum() + 1e-6


def _nearest(norm: Norm, x: np.ndarray, target: np.ndarray, eps: float) -> np.ndarray:
    """delta = p - q with p, q >= 0 makes every ball smooth; SLSQP then solves the projection."""
    d = len(x)

    def size(z: np.ndarray) -> float:
        delta = z[:d] - z[d:]
        return eps**2 - np.square(delta).sum() if norm == "l2" else eps - z.sum()

    top = eps if norm == "linf" else 2.0
    bounds = [(0, min(top, 1 - v)) for v in x] + [(0, min(top, v)) for v in x]
    result = minimize(
        lambda z: np.square(x + z[:d] - z[d:] - target).sum(),
        np.full(2 * d, 1e-3),
        bounds=bounds,
        constraints=[] if norm == "linf" else [{"type": "ineq", "fun": size}],
        method="SLSQP",
        options={"maxiter": 500, "ftol": 1e-12},
    )
    return np.asarray(x + result.x[:d] - result.x[d:])


@pytest.mark.parametrize("norm", NORMS)
def test_a_step_has_its_size_and_gains_the_dual_norm(norm: Norm, generator: torch.Generator) -> None:
    """Far from the walls the steepest unit step gains ||gradient||_q, the most that any step of that norm can
    (Hoelder).
    """
    threat = ThreatModel(norm, 1.0, low=-100, high=100)
    x, gradient = torch.zeros(7, 3, 4), torch.randn(7, 3, 4, generator=generator)
    move = threat.step(x, gradient, 0.5) - x
    torch.testing.assert_close(threat.distance(x + move, x), torch.full((7,), 0.5))
    dual = {"linf": 1.0, "l2": 2.0, "l1": math.inf}[norm]
    gain = (move * gradient).flatten(1).sum(1)
    torch.testing.assert_close(gain, 0.5 * torch.linalg.vector_norm(gradient.flatten(1), dual, dim=1))


def test_an_l1_step_does_not_waste_itself_on_the_walls() -> None:
    threat = ThreatModel("l1", 2.0)
    x = torch.tensor([[1.0, 0.7, 0.5]])
    gradient = torch.tensor([[9.0, 5.0, -2.0]])
    moved = threat.step(x, gradient, 0.6)
    torch.testing.assert_close(moved, torch.tensor([[1.0, 1.0, 0.2]]))


@pytest.mark.parametrize("norm", NORMS)
def test_a_zero_gradient_moves_nothing_and_a_tiny_one_moves_in_full(norm: Norm) -> None:
    threat = ThreatModel(norm, 1.0, low=-10, high=10)
    x = torch.zeros(1, 4)
    assert torch.equal(threat.step(x, torch.zeros(1, 4), 0.5), x)
    tiny = torch.tensor([[3e-30, -4e-30, 0.0, 0.0]])
    torch.testing.assert_close(threat.distance(threat.step(x, tiny, 0.5), x), torch.tensor([0.5]))


@pytest.mark.parametrize("norm", NORMS)
def test_samples_are_legal_and_spread_through_the_ball(norm: Norm, generator: torch.Generator) -> None:
    threat = ThreatModel(norm, 0.3, low=-5, high=5)
    x = torch.randn(400, 2, generator=generator).clamp(-4, 4)
    start = threat.sample(x, sample_keys(x, 0))
    assert threat.allows(start, x).all()
    delta = start - x
    # in two dimensions P(distance <= r) = (r / eps)^2 for a uniform point of any of these balls
    shares = (threat.distance(start, x) / 0.3).square().sort().values
    assert (shares - torch.linspace(0, 1, 400)).abs().max() < 1.63 / 20  # Kolmogorov-Smirnov, 1 %
    assert delta.mean(0).abs().max() < 0.04


def test_samples_differ_by_seed_and_stream_but_not_by_company(generator: torch.Generator) -> None:
    threat = ThreatModel("linf", 0.1)
    x = torch.rand(6, 3, generator=generator)
    first = threat.sample(x, sample_keys(x, 0))
    assert torch.equal(threat.sample(x[2:3], sample_keys(x[2:3], 0)), first[2:3])
    assert not torch.equal(threat.sample(x, sample_keys(x, 1)), first)
    assert not torch.equal(threat.sample(x, sample_keys(x, 0), stream=1), first)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"norm": "linff", "eps": 0.1}, "did you mean 'linf'"),
        ({"norm": "linf", "eps": 8}, "8/255"),
        ({"norm": "l2", "eps": -1}, "from 0 up"),
        ({"norm": "l2", "eps": math.inf}, "from 0 up"),
        ({"norm": "l2", "eps": math.nan}, "from 0 up"),
        ({"norm": "l2", "eps": 1, "low": 1.0, "high": 0.0}, "low < high"),
    ],
)
def test_impossible_threats_are_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        ThreatModel(**arguments)  # type: ignore[arg-type]


def test_allows_sees_what_is_outside() -> None:
    threat = ThreatModel("l2", 0.5)
    x = torch.full((3, 4), 0.9)
    tried: Tensor = torch.stack([x[0], x[1] + 0.1001, x[2] - 0.26])
    assert threat.allows(tried, x).tolist() == [True, False, False]
