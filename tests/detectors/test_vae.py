"""The scores of a variational autoencoder: laws, gradients, and the failure that the default does not have."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from robustgen.detectors.inferred import Inferred
from robustgen.detectors.making import make
from robustgen.detectors.panel import READINGS, Panel
from robustgen.detectors.vae import VAEDetector
from robustgen.errors import UsageError
from robustgen.models.likelihoods import LIKELIHOODS
from robustgen.testing import check_detector

SHAPE = (1, 10, 10)


def normal(n: int, generator: torch.Generator) -> Tensor:
    """Smooth images: sums of three fixed patterns."""
    basis = torch.rand(3, *SHAPE, generator=torch.Generator().manual_seed(7))
    return torch.einsum("nk,k...->n...", torch.rand(n, 3, generator=generator), basis) / 3


@pytest.fixture(scope="module")
def fitted() -> VAEDetector:
    return VAEDetector("gaussian", code=4, epochs=30).fit(normal(600, torch.Generator().manual_seed(0)))


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_every_likelihood_keeps_the_contract(name: str) -> None:
    check_detector(lambda: VAEDetector(name, code=4, epochs=4))


@pytest.mark.parametrize("network", ["convolutional", "residual"])
def test_every_network_keeps_the_contract(network: str) -> None:
    check_detector(lambda: VAEDetector("logistic", network, code=8, epochs=3), (3, 10, 12))


@pytest.mark.parametrize("scores", ["elbo", "iwae+typicality", "density+complexity+ssim"])
def test_chosen_scores_keep_the_contract(scores: str) -> None:
    check_detector(lambda: VAEDetector("gaussian", code=4, draws=2, scores=scores, epochs=4))


@pytest.fixture(scope="module")
def small() -> VAEDetector:
    x = torch.rand(60, 1, 4, 5, generator=torch.Generator().manual_seed(0))
    return VAEDetector("gaussian", code=2, draws=3, epochs=2).fit(x).double()


@pytest.mark.parametrize("name", [name for name in READINGS if name not in ("gap", "complexity", "regret")])
def test_scores_are_differentiable(name: str, small: VAEDetector, generator: torch.Generator) -> None:
    x = torch.rand(2, 1, 4, 5, generator=generator, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda z: small.panel(z, names=[name])[name], (x,))


def test_the_size_of_a_file_has_no_gradient_and_the_likelihood_beside_it_has(fitted: VAEDetector) -> None:
    x = normal(3, torch.Generator().manual_seed(1)).requires_grad_()
    corrected, plain = (
        torch.autograd.grad(fitted.panel(x, names=[name])[name].sum(), x)[0] for name in ("complexity", "iwae")
    )
    torch.testing.assert_close(corrected, plain)


def test_a_panel_judges_each_row_alone_and_repeats_itself(fitted: VAEDetector, generator: torch.Generator) -> None:
    x = torch.cat([normal(3, generator), torch.rand(3, *SHAPE, generator=generator)])
    state = torch.get_rng_state()
    together = fitted.panel(x)
    assert torch.equal(state, torch.get_rng_state())
    assert set(together) == set(READINGS) - {"gap"}
    for name, scores in together.items():
        alone = torch.cat([fitted.panel(x[i : i + 1], names=[name])[name] for i in range(6)])
        torch.testing.assert_close(alone, scores, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(fitted.panel(x.flip(0), names=[name])[name].flip(0), scores, rtol=1e-4, atol=1e-4)


def test_the_bounds_are_ordered_and_regret_is_a_gain(fitted: VAEDetector, generator: torch.Generator) -> None:
    x = torch.cat([normal(20, generator), torch.rand(20, *SHAPE, generator=generator)])
    found = fitted.panel(x)
    assert (found["kl"] >= 0).all()
    assert (found["regret"] >= 0).all()
    assert (found["regret"][20:].median() > found["regret"][:20].median()).item()
    seen = Inferred(fitted.vae, x, fitted.noise)
    torch.testing.assert_close(found["elbo"], -seen.bound)
    torch.testing.assert_close(found["complexity"] < found["iwae"], torch.ones(40, dtype=torch.bool))
    best = Inferred(fitted.vae, x, fitted.noise[:4])
    assert (found["regret"] - best.bound > -best.bound - 1e-3).all()


def test_a_score_is_the_sum_of_its_parts_in_robust_deviations(generator: torch.Generator) -> None:
    x = normal(400, generator)
    both = VAEDetector("gaussian", code=4, scores="density+elbo", epochs=3).fit(x)
    parts = both.panel(x[:5], names=["density", "elbo"])
    centre, scale = both.combination.units.centre, both.combination.units.scale
    expected = sum((parts[name] - centre[i]) / scale[i] for i, name in enumerate(("density", "elbo")))
    torch.testing.assert_close(both.score(x[:5]), expected)
    one = VAEDetector("gaussian", code=4, scores="elbo", epochs=3).fit(x)
    torch.testing.assert_close(one.score(x[:5]), parts["elbo"])


def test_density_is_the_distance_to_the_statistics_of_training_inputs(fitted: VAEDetector) -> None:
    from sklearn.neighbors import NearestNeighbors

    density = fitted.combination.readings["density"]
    seen = Inferred(fitted.vae, torch.rand(8, *SHAPE), fitted.noise)
    standard = (density.statistics(seen) - density.centre) / density.spread
    nearest = NearestNeighbors(n_neighbors=5).fit(density.nearest.bank.numpy()).kneighbors(standard.numpy())[0]
    torch.testing.assert_close(density(seen), torch.from_numpy(nearest).float().mean(1), rtol=1e-4, atol=1e-4)


def test_the_default_has_not_the_failure_of_the_likelihood() -> None:
    """Trained on textured images, the likelihood takes flat ones for more normal than normal ones; the default does
    not.
    """
    generator = torch.Generator().manual_seed(3)

    def textured(n: int) -> Tensor:
        coarse = torch.rand(n, 1, 4, 4, generator=generator)
        smooth = torch.nn.functional.interpolate(coarse, (16, 16), mode="bilinear")
        return (smooth + 0.15 * torch.randn(n, 1, 16, 16, generator=generator)).clamp(0, 1)

    detector = VAEDetector("gaussian", network="dense", epochs=15).fit(textured(1500))
    flat = 0.3 + 0.4 * torch.rand(100, 1, 1, 1, generator=generator).expand(-1, -1, 16, 16)
    new = textured(100)
    raw, foreign = (detector.panel(x, names=["elbo"])["elbo"] for x in (new, flat))
    assert foreign.max() < raw.min()
    assert detector.score(flat).min() > detector.score(new).max()


def test_codes_and_new_inputs(fitted: VAEDetector, generator: torch.Generator) -> None:
    x = normal(50, generator)
    code = fitted.encode(x)
    assert code.shape == (50, 4)
    torch.testing.assert_close(fitted.decode(code), fitted.reconstruct(x))
    assert (fitted.reconstruct(x) - x).square().mean() < 0.25 * x.var(0).mean()
    state = torch.get_rng_state()
    drawn = fitted.sample(30, seed=5)
    assert torch.equal(state, torch.get_rng_state())
    assert drawn.shape == (30, *SHAPE)
    assert torch.equal(drawn, fitted.sample(30, seed=5))
    assert not torch.equal(drawn, fitted.sample(30, seed=6))
    with torch.no_grad():  # more like normal inputs than noise is
        assert fitted.score(drawn).median() < 0.2 * fitted.score(torch.rand(30, *SHAPE, generator=generator)).median()
    with pytest.raises(UsageError, match="n=0 came"):
        fitted.sample(0, seed=0)


def test_a_code_that_says_nothing_is_told_from_one_that_does(fitted: VAEDetector, generator: torch.Generator) -> None:
    """Of independent noise there is nothing to code, and whatever the divergence, the code gains nothing."""
    information, gain = fitted.used.tolist()
    assert information > 0.5
    assert gain > 10
    idle = VAEDetector("fixed-gaussian", code=4, epochs=5).fit(0.05 * torch.randn(800, 1, 2, 3, generator=generator))
    assert idle.used.abs().max() < 0.1


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"likelihood": "gausian"}, "did you mean 'gaussian'"),
        ({"code": 0}, "code=0"),
        ({"draws": 0}, "draws=0"),
        ({"epochs": 0}, "epochs .* at least 1"),
        ({"scores": "elbow"}, "'elbow' came"),
        ({"scores": "elbo+elbo"}, "counts once"),
        ({"scores": "ssim"}, "needs images"),
        ({"scores": "gap"}, "needs labels"),
        ({"network": "deep"}, "'deep' came"),
    ],
)
def test_impossible_options_are_refused(options: dict[str, object], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        make("vae", options).fit(torch.rand(20, 5))


def test_a_panel_offers_what_the_inputs_allow() -> None:
    assert {"ssim", "complexity", "gap"}.isdisjoint(Panel("elbo", (5,)).readings)
    assert "gap" in Panel("elbo", (5,), labelled=True).readings
    assert {"ssim", "complexity"} < set(Panel("elbo", (1, 9, 9)).readings)


def test_what_was_not_prepared_is_not_given(generator: torch.Generator) -> None:
    detector = VAEDetector("gaussian", code=2, scores="l2", epochs=1).fit(torch.rand(60, 6, generator=generator))
    assert "density" not in detector.panel(torch.rand(2, 6, generator=generator))
    with pytest.raises(UsageError, match="cannot give the score 'density'"):
        detector.panel(torch.rand(2, 6, generator=generator), names=["density"])
