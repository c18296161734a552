"""Likelihoods that sum to one, divergences in closed form, and the evidence of a linear Gaussian model."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from robustgen.detectors.inferred import Inferred
from robustgen.errors import UsageError
from robustgen.models.complexity import code_length, compressed_bits
from robustgen.models.likelihoods import LIKELIHOODS, DiscretisedLogistic, FixedGaussian, Gaussian, likelihood
from robustgen.models.vae import VAE, Posterior
from robustgen.training.variational import usage


@pytest.mark.parametrize("place", [-0.2, 0.0, 0.3, 0.5001, 1.0, 1.4])
@pytest.mark.parametrize("scale", [0.002, 0.03, 0.5])
def test_a_discretised_logistic_sums_to_one_over_its_levels(place: float, scale: float) -> None:
    found = DiscretisedLogistic((1, 1, 1)).double()
    nn.init.constant_(found.log_scale, math.log(scale))
    levels = torch.arange(256, dtype=torch.float64).reshape(-1, 1, 1, 1) / 255
    logs = found(levels, torch.full_like(levels, place))
    assert logs.exp().sum().item() == pytest.approx(1, abs=1e-12)
    expected = (levels.flatten() * logs.exp()).sum()
    if 0.1 < place < 0.9 and scale < 0.1:
        assert expected.item() == pytest.approx(place, abs=2e-3)
        torch.testing.assert_close(found.mean(torch.tensor(place)), torch.tensor(place))


def test_a_discretised_logistic_stays_finite_in_its_tails() -> None:
    found = DiscretisedLogistic((1, 1, 1))
    nn.init.constant_(found.log_scale, -50.0)  # held at its floor
    x = torch.rand(6, 1, 1, 1)
    out = torch.tensor([-1e3, 0.0, 1.0, 1e3, 0.5, 0.2]).reshape(-1, 1, 1, 1).requires_grad_()
    logs = found(x, out)
    logs.sum().backward()
    assert torch.isfinite(logs).all()
    assert out.grad is not None
    assert torch.isfinite(out.grad).all()


def test_gaussians_are_torchs(generator: torch.Generator) -> None:
    x, out = torch.rand(5, 3, generator=generator), torch.rand(5, 3, generator=generator)
    learnt = Gaussian((3,))
    with torch.no_grad():
        learnt.log_scale.copy_(torch.tensor([-1.0, 0.5, -20.0]))
    scale = torch.tensor([math.exp(-1), math.exp(0.5), 1e-3])  # the last held at its floor
    torch.testing.assert_close(learnt(x, out), torch.distributions.Normal(out, scale).log_prob(x).sum(1))
    torch.testing.assert_close(FixedGaussian(0.2)(x, out), torch.distributions.Normal(out, 0.2).log_prob(x).sum(1))
    torch.testing.assert_close(
        likelihood("bernoulli", (3,))(x.round(), out),
        torch.distributions.Bernoulli(logits=out).log_prob(x.round()).sum(1),
    )


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_likelihoods_are_summed_over_values_and_differentiable(name: str, generator: torch.Generator) -> None:
    found = likelihood(name, (2, 3, 4)).double()
    x = torch.rand(3, 2, 3, 4, generator=generator, dtype=torch.float64).requires_grad_()
    out = torch.rand(3, 2, 3, 4, generator=generator, dtype=torch.float64).requires_grad_()
    torch.testing.assert_close(found(x, out), found.each(x, out).sum((1, 2, 3)))
    torch.testing.assert_close(found(x[1:2], out[1:2]), found(x, out)[1:2])
    assert torch.autograd.gradcheck(found, (x, out))


def test_unknown_likelihoods_are_refused() -> None:
    with pytest.raises(UsageError, match="'poisson' came"):
        likelihood("poisson", (3,))


def test_the_divergence_is_that_of_two_gaussians(generator: torch.Generator) -> None:
    mean, log_variance = torch.randn(4, 3, generator=generator), torch.randn(4, 3, generator=generator)
    posterior = torch.distributions.Normal(mean, (0.5 * log_variance).exp())
    prior = torch.distributions.Normal(torch.zeros(3), torch.ones(3))
    expected = torch.distributions.kl_divergence(posterior, prior).sum(1)
    torch.testing.assert_close(Posterior(mean, log_variance).divergence(), expected)


class LinearGaussian:
    """x = W z + b + noise of a known scale: log p(x) is that of N(b, W W' + scale^2) (probabilistic PCA, Tipping,
    Bishop 1999), and the true posterior is a Gaussian.
    """

    def __init__(self, generator: torch.Generator, width: float) -> None:
        # orthogonal columns: the values of the true posterior are independent, as those of q are
        self.weight = 2 * torch.linalg.qr(torch.randn(5, 2, generator=generator, dtype=torch.float64))[0]
        self.offset = torch.randn(5, generator=generator, dtype=torch.float64)
        self.scale = 0.3
        self.vae = VAE("dense", (5,), 2, FixedGaussian(self.scale)).double()
        precision = torch.eye(2, dtype=torch.float64) + self.weight.T @ self.weight / self.scale**2
        gain = torch.linalg.solve(precision, self.weight.T) / self.scale**2
        variance = width * precision.diagonal().reciprocal()
        encoder, decoder = nn.Linear(5, 4).double(), nn.Linear(2, 5).double()
        with torch.no_grad():
            decoder.weight.copy_(self.weight)
            decoder.bias.copy_(self.offset)
            encoder.weight.copy_(torch.cat([gain, torch.zeros_like(gain)]))
            raw = 10 * torch.atanh(variance.log() / 10)
            encoder.bias.copy_(torch.cat([-gain @ self.offset, raw]))
        self.vae.encoder, self.vae.decoder = encoder, decoder

    def evidence(self, x: Tensor) -> Tensor:
        covariance = self.weight @ self.weight.T + self.scale**2 * torch.eye(5, dtype=torch.float64)
        return torch.distributions.MultivariateNormal(self.offset, covariance).log_prob(x)


def test_the_evidence_of_a_linear_gaussian_model_is_that_of_probabilistic_pca(generator: torch.Generator) -> None:
    """ELBO <= importance-weighted bound of the same draws, which rises with their number up to log p(x)."""
    model = LinearGaussian(generator, width=1.5)
    code = torch.randn(50, 2, generator=generator, dtype=torch.float64)
    noise = torch.randn(50, 5, generator=generator, dtype=torch.float64)
    x = code @ model.weight.T + model.offset + model.scale * noise
    exact = model.evidence(x)
    draws = torch.randn(4000, 2, generator=generator, dtype=torch.float64)

    def gap(k: int) -> float:
        """log p(x) less the bound of k draws, which is an expectation over these: averaged over blocks of them."""
        blocks = [Inferred(model.vae, x, block).evidence for block in draws[: max(k, 512)].split(k)]
        return (exact - torch.stack(blocks).mean(0)).mean().item()

    with torch.no_grad():
        gaps = [gap(k) for k in (1, 8, 64, 4000)]
        seen, few = Inferred(model.vae, x, draws), Inferred(model.vae, x, draws[:16])
    assert gaps[0] > gaps[1] > gaps[2] > abs(gaps[3])
    assert abs(gaps[3]) < 0.01
    # the bound in closed form: the expected log p(x | z) under q is that at its mean less W's share of q's variance
    spread = (model.weight.square() @ seen.posterior.log_variance.exp().T).sum(0) / (2 * model.scale**2)
    bound = -seen.error - spread - seen.divergence
    torch.testing.assert_close(seen.bound, bound, atol=0.2, rtol=0)
    assert (bound <= exact).all()
    # draw for draw, the mean of the logarithms is below the logarithm of the mean
    one_by_one = torch.stack([Inferred(model.vae, x, row[None]).evidence for row in draws[:16]])
    assert (one_by_one.mean(0) < few.evidence).all()
    torch.testing.assert_close(one_by_one.logsumexp(0) - math.log(16), few.evidence)


def test_with_the_true_posterior_one_draw_gives_the_evidence_and_the_information_is_known(
    generator: torch.Generator,
) -> None:
    """I(x; z) = log det(I + W' W / scale^2) / 2."""
    model = LinearGaussian(generator, width=1.0)
    code = torch.randn(1000, 2, generator=generator, dtype=torch.float64)
    noise = torch.randn(1000, 5, generator=generator, dtype=torch.float64)
    x = code @ model.weight.T + model.offset + model.scale * noise
    with torch.no_grad():
        for draw in torch.randn(3, 1, 2, generator=generator, dtype=torch.float64):
            torch.testing.assert_close(Inferred(model.vae, x, draw).evidence, model.evidence(x))
        information, gain = usage(model.vae, [(x[:600], None), (x[600:], None)]).tolist()
    exact = 0.5 * torch.logdet(torch.eye(2, dtype=torch.float64) + model.weight.T @ model.weight / model.scale**2)
    assert information == pytest.approx(exact.item(), abs=0.1)
    assert gain > exact
    # a decoder that does not look at the code gains nothing from it
    with torch.no_grad():
        model.vae.decoder.weight.zero_()
    assert usage(model.vae, [(x, None)])[1].item() == 0


@pytest.mark.parametrize(("kind", "shape"), [("dense", (7,)), ("convolutional", (3, 9, 12)), ("residual", (1, 8, 8))])
@pytest.mark.parametrize("classes", [0, 4])
def test_networks_fit_the_shape_and_judge_each_row_alone(
    kind: str, shape: tuple[int, ...], classes: int, generator: torch.Generator
) -> None:
    network = VAE(kind, shape, 3, likelihood("gaussian", shape), classes).double()
    x = torch.rand(6, *shape, generator=generator, dtype=torch.float64)
    y = torch.randint(classes, (6,), generator=generator) if classes else None
    noise = torch.randn(6, 3, generator=generator, dtype=torch.float64)
    evidence, divergence = network(x, noise, y)
    assert evidence.shape == divergence.shape == (6,)
    assert network.decode(noise, y).shape == x.shape
    alone = network(x[2:3], noise[2:3], None if y is None else y[2:3])
    torch.testing.assert_close(alone[0], evidence[2:3])
    torch.testing.assert_close(alone[1], divergence[2:3])
    if y is not None:
        other = network(x, noise, (y + 1) % classes)
        assert (other[0] != evidence).all()
        assert (other[1] != divergence).all()


def test_a_posterior_stays_finite_far_away() -> None:
    network = VAE("dense", (4,), 2, likelihood("gaussian", (4,)))
    assert torch.isfinite(network.encode(torch.full((1, 4), 1e6)).divergence()).all()


def test_complexity_orders_images_as_a_compressor_does(generator: torch.Generator) -> None:
    ramp = torch.linspace(0, 1, 24).expand(1, 24, 24)
    blank, noise = torch.zeros(1, 24, 24), torch.rand(1, 24, 24, generator=generator)
    bars = (torch.arange(24) // 3 % 2).float().expand(1, 24, 24)
    x = torch.stack([blank, bars, 0.5 * ramp + 0.02 * noise, noise])
    for measure in (code_length, compressed_bits):
        found = measure(x)
        assert (found.diff() > 0).all()
        torch.testing.assert_close(measure(x[2:3]), found[2:3])
    point = torch.rand(2, 2, 5, 6, generator=generator, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(code_length, (point,))


def test_code_length_is_that_of_a_cauchy_around_the_prediction() -> None:
    """On one row of values the prediction is the left neighbour, the width the mean of what came before, plus 1/2."""
    x = torch.tensor([10.0, 14.0, 8.0]).reshape(1, 1, 1, 3) / 255
    errors, widths = [10, 4, -6], [0.5, 10 / 5 + 0.5, (4 + 10) / 5 + 0.5]
    expected = sum(math.log(math.pi * w) + math.log(1 + (e / w) ** 2) for e, w in zip(errors, widths, strict=True))
    assert code_length(x).item() == pytest.approx(expected, rel=1e-5)
