"""Penalties and corruptions of autoencoders, against what they are by definition."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from robustgen.models.autoencoder import DenseAutoencoder
from robustgen.training.terms import AbsoluteCode, Contraction, RareCode, corruption


@pytest.fixture
def network() -> DenseAutoencoder:
    with torch.random.fork_rng():
        torch.random.manual_seed(0)
        return DenseAutoencoder((5,), 3).double()


def test_the_contraction_is_the_jacobians_size(network: DenseAutoencoder, generator: torch.Generator) -> None:
    x = torch.rand(4, 5, generator=generator, dtype=torch.float64)
    expected = torch.stack([torch.func.jacrev(network.encoder)(row[None])[0].square().sum() for row in x]) / 3
    torch.testing.assert_close(Contraction(1.0)(network.encoder, x, network.encoder(x)), expected)
    with torch.random.fork_rng():
        torch.random.manual_seed(0)
        estimates = [Contraction(1.0, exact=0)(network.encoder, x, network.encoder(x)) for _ in range(3000)]
    torch.testing.assert_close(torch.stack(estimates).mean(0), expected, rtol=0.1, atol=0)


def test_the_contraction_trains_the_encoder(network: DenseAutoencoder, generator: torch.Generator) -> None:
    x = torch.rand(4, 5, generator=generator, dtype=torch.float64)
    Contraction(1.0)(network.encoder, x, network.encoder(x)).sum().backward()
    first, last = network.encoder[1], network.encoder[3]
    assert isinstance(first, nn.Linear)
    assert isinstance(last, nn.Linear)
    assert first.weight.grad is not None
    assert last.weight.grad is not None
    assert last.weight.grad.abs().sum() > 0


def test_sparsity_penalties_know_their_optimum(network: DenseAutoencoder) -> None:
    x = torch.zeros(2, 5)
    code = torch.tensor([[1.0, -3.0, 0.0], [0.0, 0.0, 0.0]])
    assert AbsoluteCode(3.0)(network.encoder, x, code).tolist() == [4.0, 0.0]
    rare = torch.full((10, 3), -2.9444390)  # its sigmoid is 0.05
    assert RareCode(1.0)(network.encoder, x, rare).abs().max() < 1e-6
    assert (RareCode(1.0)(network.encoder, x, torch.zeros(10, 3)) > 0.4).all()


def test_corruptions_spoil_what_they_say() -> None:
    x = torch.full((200, 50), 0.25)
    with torch.random.fork_rng():
        torch.random.manual_seed(0)
        noisy, masked, salted = (
            corruption(kind, 0.2)(x)
            for kind in ("gaussian", "masking", "salt-and-pepper")  # type: ignore[arg-type]
        )
    assert (noisy - x).std().item() == pytest.approx(0.2, rel=0.05)
    assert (masked == 0).double().mean().item() == pytest.approx(0.2, abs=0.02)
    assert (masked[masked != 0] == 0.25).all()
    assert (salted == 0).double().mean().item() == pytest.approx(0.1, abs=0.02)
    assert (salted == 1).double().mean().item() == pytest.approx(0.1, abs=0.02)
    assert (salted == 0.25).double().mean().item() == pytest.approx(0.8, abs=0.02)
