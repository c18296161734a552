"""Feature squeezing and MagNet: their closed forms, and what they refuse."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from robustgen.detectors.feature_squeezing import FeatureSqueezingDetector
from robustgen.detectors.making import make
from robustgen.detectors.squeezers import reduce_depth, smooth_means, smooth_median
from robustgen.errors import UsageError
from toys import small_mlp
from watchers import watching


def test_squeezing_is_what_its_parts_say(generator: torch.Generator) -> None:
    shape = (1, 8, 8)
    x, network = torch.rand(20, *shape, generator=generator), small_mlp(shape)
    detector = watching("feature-squeezing", network, squeezers="bits:2+median:3").fit(x)
    said = network(x).softmax(1)
    expected = [
        (said - network(changed).softmax(1)).abs().sum(1) for changed in ((x * 3).round() / 3, smooth_median(x, 3))
    ]
    torch.testing.assert_close(detector.score(x), torch.maximum(*expected))


def test_a_median_is_that_of_scipy(generator: torch.Generator) -> None:
    from scipy.ndimage import median_filter

    x = torch.rand(2, 3, 7, 9, generator=generator)
    for width in (2, 3, 5):
        expected = median_filter(x.numpy(), size=(1, 1, width, width), mode="reflect")
        np.testing.assert_array_equal(smooth_median(x, width).numpy(), expected)


def test_non_local_means_are_those_of_their_definition(generator: torch.Generator) -> None:
    x, strength = torch.rand(1, 2, 6, 7, generator=generator, dtype=torch.float64), 0.3
    padded = np.pad(x[0].numpy(), ((0, 0), (3, 3), (3, 3)), mode="symmetric")
    expected = np.zeros((2, 6, 7))
    for row in range(6):
        for column in range(7):
            i, j, total = row + 3, column + 3, 0.0
            here = padded[:, i - 1 : i + 2, j - 1 : j + 2]
            for down in range(-2, 3):
                for right in range(-2, 3):
                    other = padded[:, i + down - 1 : i + down + 2, j + right - 1 : j + right + 2]
                    weight = np.exp(-((here - other) ** 2).mean() / strength**2)
                    expected[:, row, column] += weight * padded[:, i + down, j + right]
                    total += weight
            expected[:, row, column] /= total
    np.testing.assert_allclose(smooth_means(x, 5, 3, strength)[0].numpy(), expected, rtol=1e-12)


def test_rounding_has_the_gradient_of_the_identity_and_the_detector_says_so(generator: torch.Generator) -> None:
    x = torch.rand(5, 4, generator=generator, requires_grad=True)
    for low, high in ((0.0, 1.0), (-1.0, 3.0)):
        rounded = reduce_depth(x, 2, low, high)
        levels = torch.linspace(low, high, 4)
        assert ((rounded.detach()[..., None] - levels).abs().amin(-1) < 1e-6).all()
        torch.testing.assert_close(torch.autograd.grad(rounded.sum(), x)[0], torch.ones_like(x))
    assert FeatureSqueezingDetector("median:2").surrogate is False
    assert FeatureSqueezingDetector().surrogate is FeatureSqueezingDetector("median:2+bits:1").surrogate is True


@pytest.mark.parametrize("words", ["bits", "bits:0", "bits:x", "median:1", "means:11:3", "means:4:3:4", "blur:3", ""])
def test_a_squeezer_that_does_not_exist_is_refused(words: str) -> None:
    with pytest.raises(UsageError, match=words or "squeezer"):
        FeatureSqueezingDetector(words)


def test_medians_need_images(generator: torch.Generator) -> None:
    with pytest.raises(UsageError, match="needs images"):
        watching("feature-squeezing", small_mlp((6,)), squeezers="median:2").fit(torch.rand(9, 6, generator=generator))


def test_magnet_is_what_its_parts_say(generator: torch.Generator) -> None:
    """Divergences as SciPy has them, of the logits before and after; two in units of their 95 % quantile."""
    from scipy.spatial.distance import jensenshannon
    from scipy.stats import entropy

    x, network = torch.rand(300, 6, generator=generator), small_mlp((6,))
    names = ("l1", "l2", "jsd:10", "jeffreys:0.5")
    detector = watching("magnet", network, scores="+".join(names)).fit(x)
    back = detector.reconstruct(x)  # type: ignore[operator]
    p, q = ((network(z) / 10).softmax(1).detach().double().numpy() for z in (x, back))
    r, s = ((network(z) / 0.5).softmax(1).detach().double().numpy() for z in (x, back))
    change = (x - back).numpy()
    expected = [
        np.abs(change).mean(1),
        (change**2).mean(1),
        jensenshannon(p, q, axis=1) ** 2,
        entropy(r, s, axis=1) + entropy(s, r, axis=1),
    ]
    apart = detector.apart(x).detach()  # type: ignore[operator]
    for found, values in zip(apart, expected, strict=True):
        np.testing.assert_allclose(found.numpy(), values, rtol=1e-3, atol=1e-6)
    units = apart / detector.usual[:, None]  # type: ignore[index]
    torch.testing.assert_close(detector.score(x).detach(), units.sum(0))
    largest = watching("magnet", network, scores="+".join(names), join="largest").fit(x)
    torch.testing.assert_close(largest.score(x).detach(), units.amax(0))
    alone = watching("magnet", network, scores="l1").fit(x)
    torch.testing.assert_close(alone.score(x).detach(), apart[0])


@pytest.mark.parametrize("options", [{"scores": "jsd"}, {"scores": "jsd:0"}, {"scores": "l3"}, {"join": "mean"}])
def test_magnet_refuses_what_it_does_not_know(options: dict[str, str]) -> None:
    with pytest.raises(UsageError):
        make("magnet", options)
