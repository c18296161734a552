"""GAN detectors: they learn what they are shown, draw, invert, mix, and say how training went."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from robustgen.detectors.adversarial import AdversarialDetector
from robustgen.detectors.gan import GANDetector
from robustgen.detectors.gan_parts import GAN_PARTS
from robustgen.detectors.style_gan import StyleGANDetector
from robustgen.errors import RobustgenError, UsageError
from robustgen.metrics import auroc


def bars(n: int, seed: int = 0) -> Tensor:
    """Images of one bright vertical bar, 12 x 12."""
    generator = torch.Generator().manual_seed(seed)
    x = 0.1 * torch.rand(n, 1, 12, 12, generator=generator)
    place = torch.randint(1, 10, (n,), generator=generator)
    x[torch.arange(n), 0, :, place] += 0.8
    return x


@pytest.fixture(scope="module")
def gan() -> GANDetector:
    return GANDetector(steps=150, width=8, code=8).fit(bars(600))


@pytest.fixture(scope="module")
def style() -> StyleGANDetector:
    return StyleGANDetector(steps=150, width=8, code=8).fit(bars(600))


def test_horizontal_bars_are_anomalies_among_vertical_ones(gan: GANDetector, style: StyleGANDetector) -> None:
    fresh = bars(200, seed=1)
    for detector in (gan, style):
        normal, odd = detector.score(fresh).numpy(), detector.score(fresh.transpose(2, 3)).numpy()
        assert auroc(normal, odd).value > 0.95


def test_the_discriminator_alone_tells_them_apart() -> None:
    gan, fresh = GANDetector(steps=300, width=8, code=8).fit(bars(600)), bars(200, seed=1)
    real, odd = gan.critic(fresh), gan.critic(fresh.transpose(2, 3))
    assert auroc(-real.numpy(), -odd.numpy()).value > 0.9


def test_corrupted_inputs_have_a_number_of_their_own(gan: GANDetector) -> None:
    x = bars(20, seed=1)
    features = gan.discriminator.features(x)
    torch.testing.assert_close(gan.critic(x), gan.discriminator.intact(features))
    assert not torch.allclose(gan.critic(x), gan.discriminator(x))
    without = GANDetector(negatives="none", steps=2, width=4).fit(x)
    torch.testing.assert_close(without.critic(x), without.discriminator(x))
    with pytest.raises(UsageError, match="corrupted"):
        without.discriminator.intact(without.discriminator.features(x))


def test_samples_differ_and_come_back_by_seed(gan: GANDetector, style: StyleGANDetector) -> None:
    for detector in (gan, style):
        x = detector.sample(32, 3)
        assert x.shape == (32, 1, 12, 12)
        assert 0 <= x.min() < x.max() <= 1
        assert torch.equal(x, detector.sample(32, 3))
        assert not torch.equal(x, detector.sample(32, 4))
        spread, real = x.flatten(1).std(0).mean(), bars(32).flatten(1).std(0).mean()
        assert spread > 0.2 * real


def test_truncation_brings_samples_together(gan: GANDetector, style: StyleGANDetector) -> None:
    for detector in (gan, style):
        spreads = [detector.sample_truncated(32, 0, t).flatten(1).std(0).mean() for t in (0.0, 0.5, 1.0)]
        assert spreads[0] < spreads[1] < spreads[2]
        for wrong in (-0.1, 1.1):
            with pytest.raises(UsageError, match="truncation from 0 to 1"):
                detector.sample_truncated(2, 0, wrong)
    assert gan.sample_truncated(3, 0, 0.0).flatten(1).std(0).max() < 1e-6


def test_mixing_keeps_the_samples_on_the_diagonal(style: StyleGANDetector) -> None:
    grid = style.mixed(3, 0)
    assert grid.shape == (3, 3, 1, 12, 12)
    codes, _ = style._styles(3, 0)
    torch.testing.assert_close(grid[torch.arange(3), torch.arange(3)], style.decode(codes))
    assert not torch.allclose(grid[0, 1], grid[0, 0])
    assert not torch.allclose(grid[0, 1], grid[1, 1])


def test_inversion_is_nearer_than_chance(gan: GANDetector, style: StyleGANDetector) -> None:
    fresh = bars(100, seed=2)
    for detector in (gan, style):
        back = detector.reconstruct(fresh)
        own = (back - fresh).square().mean()
        assert own < (back.roll(1, 0) - fresh).square().mean()
        torch.testing.assert_close(detector.decode(detector.encode(fresh)), back)


def test_the_style_without_noise_says_all(style: StyleGANDetector) -> None:
    code = style.encode(bars(4))
    assert torch.equal(style.decode(code), style.decode(code))


@pytest.mark.parametrize("part", GAN_PARTS)
def test_every_part_can_be_the_score(part: str) -> None:
    detector = GANDetector(scores=part, steps=5, width=4, code=4).fit(bars(80))
    scores = detector.score(bars(5))
    assert scores.shape == (5,)
    assert torch.isfinite(scores).all()


def test_it_says_how_training_went(gan: GANDetector) -> None:
    assert "of 6 kept" in gan.record.verdict()
    assert isinstance(gan.record.warnings(), list)
    course = gan.record.course()
    assert set(course) == {"told apart", "variety", "modes", "anomalies it was judged by, AUROC"}
    assert all(len(values) == 6 for values in course.values())
    restored = GANDetector(**gan.config).restore((1, 12, 12), gan.state_dict())
    assert restored.record.verdict() == gan.record.verdict()
    with pytest.raises(RobustgenError, match="not fitted"):
        GANDetector().record.verdict()


@pytest.mark.parametrize("loss", ["non-saturating", "wasserstein"])
def test_other_losses_and_options_work(loss: str) -> None:
    detector = GANDetector(
        loss=loss,  # type: ignore[arg-type]
        history=0.5,
        fence=0.9,
        negatives="noise+blur+flip",
        augment="brightness+cutout",
        steps=5,
        width=4,
    ).fit(bars(80))
    assert torch.isfinite(detector.score(bars(3))).all()


@pytest.mark.parametrize(
    ("options", "norms"),
    [
        ({}, False),  # it judges by the number for corrupted inputs
        ({"negatives": "none"}, True),
        ({"negatives": "none", "loss": "wasserstein"}, False),
        ({"spectral": True}, True),
        ({"negatives": "none", "spectral": False}, False),
        ({"spectral": True, "network": "pooled"}, True),
    ],
)
def test_spectral_norms_are_where_the_discriminator_only_plays(options: dict[str, Any], norms: bool) -> None:
    detector = GANDetector(steps=1, width=4, **options).fit(bars(20))
    layers = [layer for layer in detector.discriminator.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    assert [is_parametrized(layer) for layer in layers] == [norms] * len(layers)


def test_spectral_norms_are_where_tables_are_judged() -> None:
    detector = GANDetector(steps=1, width=4).fit(torch.rand(40, 3))
    assert all(is_parametrized(layer) for layer in detector.discriminator.modules() if isinstance(layer, nn.Linear))


def test_the_discriminator_has_the_layers_that_are_asked_for() -> None:
    kernels = {
        network: {layer.kernel_size for layer in detector.discriminator.modules() if isinstance(layer, nn.Conv2d)}
        for network in ("auto", "strided", "pooled")
        for detector in (GANDetector(steps=1, width=4, network=network).fit(bars(20)),)
    }
    assert kernels == {"auto": {(4, 4)}, "strided": {(4, 4)}, "pooled": {(3, 3)}}
    with pytest.raises(UsageError, match="pooled is for images"):
        GANDetector(steps=1, network="pooled").fit(torch.rand(20, 4))


@pytest.mark.parametrize("kind", [GANDetector, StyleGANDetector])
def test_bad_options_are_refused(kind: type[AdversarialDetector]) -> None:
    wrong = (
        {"loss": "hing"},
        {"network": "dense"},
        {"penalty": -1.0},
        {"history": 1.0},
        {"fence": 0.0},
        {"diversity": -1.0},
        {"code": 0},
        {"width": 0},
        {"steps": 0},
        {"preset": "slow"},
        {"learning_rate": 0.0},
    )
    for options in wrong:
        with pytest.raises(UsageError):
            kind(**options)  # type: ignore[arg-type]
    for options in ({"negatives": "permute"}, {"augment": "sepia"}, {"scores": "elbo"}):
        with pytest.raises(UsageError):
            kind(**options).fit(bars(50))  # type: ignore[arg-type]


@pytest.mark.parametrize("shape", [(1, 5, 12), (1, 1, 60), (3, 5, 8)])
def test_flat_images_are_fitted_as_they_come(shape: tuple[int, ...]) -> None:
    x = torch.rand(60, *shape, generator=torch.Generator().manual_seed(0))
    assert GANDetector(width=4, steps=2).fit(x).score(x).shape == (60,)


def test_a_batch_of_one_is_refused() -> None:
    with pytest.raises(UsageError, match="batch_size 2"):
        GANDetector(batch_size=1)
