"""Detectors with a classifier beside them: their contract, and the closed forms of those that look at its logits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from robustgen.artifacts import staged
from robustgen.calibration import calibrate
from robustgen.data.load import load
from robustgen.detectors.bank import BankDetector
from robustgen.detectors.base import Detector
from robustgen.detectors.calibrated import CalibratedDetector
from robustgen.detectors.feature_squeezing import FeatureSqueezingDetector
from robustgen.detectors.layers import Layers
from robustgen.detectors.making import make
from robustgen.detectors.neighbours import nearest
from robustgen.detectors.squeezers import reduce_depth, smooth_means, smooth_median
from robustgen.detectors.watching import WatchingDetector
from robustgen.errors import DataError, UsageError
from robustgen.models.load import LoadedModel
from robustgen.testing import check_detector
from robustgen.training.classifier import train
from robustgen.training.descent import Recipe
from toys import WATCHING, Bumps, Linear2, small_mlp

QUICK: dict[str, dict[str, Any]] = {"magnet": {"epochs": 8}, "denoise-consistency": {"epochs": 8, "draws": 1}}
OF_IMAGES = ("denoise-consistency",)
OUTPUTS = ("margin", "max-softmax", "max-logit", "energy")


def watching(name: str, classifier: nn.Module, **options: Any) -> Detector:
    """A fresh detector beside `classifier`."""
    detector = make(name, QUICK.get(name, {}) | options)
    assert isinstance(detector, WatchingDetector)
    detector.watch(classifier)
    return detector


class Waves(nn.Module):
    """Two classes that change several times along every value, most where values are high: there a few levels less are
    another label, and noise has more high values than the check's normal inputs.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        size = torch.Size(shape).numel()
        self.weight = nn.Parameter(torch.randn(size, generator=torch.Generator().manual_seed(0)))

    def forward(self, x: Tensor) -> Tensor:
        lead = (torch.sin(8 * x.flatten(1)) * self.weight).sum(1)
        return torch.stack([lead, -lead], 1)


def judge_of(name: str, shape: tuple[int, ...]) -> nn.Module:
    """A classifier to whom `check_detector`'s noise looks unlike its normal inputs, as far as `name` sees it."""
    if name == "feature-squeezing":
        return Waves(shape)
    return Bumps(shape) if name in OUTPUTS else small_mlp(shape, classes=2)  # labels of the check are two


@pytest.mark.parametrize("name", WATCHING)
@pytest.mark.parametrize("shape", [(1, 8, 8), (12,)])
def test_every_one_keeps_the_contract(name: str, shape: tuple[int, ...]) -> None:
    judge = judge_of(name, shape)
    if name in OF_IMAGES and len(shape) == 1:
        with pytest.raises(UsageError, match="needs images"):
            watching(name, judge).fit(torch.rand(20, *shape))
        return
    check_detector(lambda: watching(name, judge), shape)


@pytest.mark.parametrize("name", WATCHING)
def test_its_gradient_is_that_of_finite_differences(name: str, generator: torch.Generator) -> None:
    shape = (1, 6, 6) if name in OF_IMAGES else (6,)
    x, y = torch.rand(100, *shape, generator=generator), torch.arange(100) % 4
    judge = small_mlp(shape)
    detector = watching(name, judge).fit(TensorDataset(x, y)).double()
    judge.double()
    if detector.surrogate or not detector.differentiable:
        pytest.skip("it says that it has none, or another")
    point = torch.rand(3, *shape, generator=generator, dtype=torch.float64, requires_grad=True)
    condition = y[:3] if detector.conditional else None
    assert torch.autograd.gradcheck(lambda z: detector.score(z, condition), (point,))


@pytest.fixture(scope="module")
def judge() -> LoadedModel:
    return train(load("digits"), "mlp", recipe=Recipe(epochs=6)).model


@pytest.fixture(scope="module")
def fitted(judge: LoadedModel) -> dict[str, CalibratedDetector]:
    source = load("digits")
    return {
        name: CalibratedDetector.fit(name, source, fpr=0.05, options=QUICK.get(name, {}), model=judge)
        for name in WATCHING
    }


@pytest.mark.parametrize("name", WATCHING)
def test_calibration_keeps_its_rate(name: str, fitted: dict[str, CalibratedDetector]) -> None:
    scores = fitted[name].scores(load("digits"), "test")
    flagged = float((scores > fitted[name].threshold.value).mean())
    assert abs(flagged - 0.05) < 4 * np.sqrt(0.05 * 0.95 * (1 / len(scores) + 1 / 359))
    assert fitted[name].threshold == calibrate(fitted[name].calibration_scores, 0.05)


@pytest.mark.parametrize("name", WATCHING)
def test_it_is_stored_beside_its_classifier_and_not_with_its_weights(
    name: str, fitted: dict[str, CalibratedDetector], judge: LoadedModel, tmp_path: Path
) -> None:
    with staged(tmp_path / "d") as directory:
        fitted[name].save(directory)
    again = CalibratedDetector.load(tmp_path / "d")  # a known classifier is stored with the artifact
    x = next(iter(load("digits").batches("test", 40))).x
    np.testing.assert_array_equal(again.judge(x).score, fitted[name].judge(x).score)
    assert again.summary() == fitted[name].summary()
    weights = [value for value in judge.network.state_dict().values() if value.ndim > 1]
    assert not any(torch.equal(a, b) for a in fitted[name].detector.state_dict().values() for b in weights)


@pytest.mark.parametrize("name", WATCHING)
def test_without_a_classifier_it_says_so(name: str, generator: torch.Generator, judge: LoadedModel) -> None:
    with pytest.raises(UsageError, match="with --model"):
        CalibratedDetector.fit(name, load("digits"), options=QUICK.get(name, {}))
    with pytest.raises(UsageError, match="not at a layer"):
        CalibratedDetector.fit(name, load("digits"), options=QUICK.get(name, {}), model=judge, layer="2")
    shape = (1, 6, 6) if name in OF_IMAGES else (6,)
    x = torch.rand(40, *shape, generator=generator)
    with pytest.raises(UsageError, match="at least 2 classes"):
        watching(name, nn.Sequential(nn.Flatten(0), nn.ReLU())).fit(TensorDataset(x, torch.arange(40) % 2))


def test_scores_of_logits_are_their_closed_forms(generator: torch.Generator) -> None:
    """Of logits (0, z): margin -|z|, largest logit, log(1 + e^z), and -|z| again, since (1 - p) / p = e^-|z|."""
    network = Linear2(torch.tensor([1.0, -2.0, 0.5]), 0.25).double()
    x = torch.rand(50, 3, generator=generator).double()
    z = (x @ network.weight + network.bias).detach()
    expected = {
        "margin": -z.abs(),
        "max-softmax": -z.abs(),
        "max-logit": -z.clamp_min(0),
        "energy": -torch.nn.functional.softplus(z),
    }
    for name, values in expected.items():
        torch.testing.assert_close(watching(name, network).fit(x).score(x).detach(), values)
    hot = watching("energy", network, temperature=4.0).fit(x).score(x)
    torch.testing.assert_close(hot.detach(), -4 * torch.nn.functional.softplus(z / 4))
    soft = watching("max-softmax", network, temperature=4.0).fit(x).score(x)
    torch.testing.assert_close(soft.detach(), -z.abs() / 4)


def test_the_largest_probability_is_told_apart_where_it_rounds_to_one(generator: torch.Generator) -> None:
    class Sure(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return 100 * x

    x = torch.tensor([[1.0, 0.0, 0.2], [0.6, 0.0, 0.1]])
    score = watching("max-softmax", Sure()).fit(x).score(x)
    assert torch.equal((100 * x).softmax(1).amax(1), torch.ones(2))
    assert score[0] < score[1] < -40
    mild = torch.rand(30, 3, generator=generator) / 50
    order = watching("max-softmax", Sure()).fit(x).score(mild).argsort()
    assert torch.equal(order, (1 - (100 * mild).softmax(1).amax(1)).argsort())


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


@pytest.mark.parametrize("name", ["max-softmax", "energy"])
@pytest.mark.parametrize("temperature", [0.0, -1.0, float("inf"), float("nan")])
def test_a_temperature_is_above_zero(name: str, temperature: float) -> None:
    with pytest.raises(UsageError, match="temperature"):
        make(name, {"temperature": temperature})


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


def test_deep_mahalanobis_is_that_of_numpy(generator: torch.Generator) -> None:
    """With one layer: the squared distance from the label's mean by the tied covariance, in its unit."""
    network = small_mlp((6,))
    x, y = torch.randn(400, 6, generator=generator), torch.arange(400) % 4
    detector = watching("deep-mahalanobis", network, layers="4").fit(TensorDataset(x, y))
    nearest = watching("deep-mahalanobis", network, layers="4", among="nearest").fit(TensorDataset(x, y))
    h = network[:5](x).detach().double().numpy()
    means = np.stack([h[y.numpy() == c].mean(0) for c in range(4)])
    centred = h - means[y.numpy()]
    inverse = np.linalg.inv(centred.T @ centred / len(h))
    every = np.stack([np.einsum("ni,ij,nj->n", h - mean, inverse, h - mean) for mean in means], 1)
    own = every[np.arange(400), y.numpy()]
    for found, values in ((detector, own), (nearest, every.min(1))):
        score = found.score(x, y).detach().double().numpy()
        np.testing.assert_allclose(score / score.mean(), values / values.mean(), rtol=2e-3)


def _inside(network: nn.Sequential, generator: torch.Generator, options: dict[str, Any]) -> tuple[Any, ...]:
    """A detector whose bank is all its 60 training inputs; of 30 others its scores, the distances in its layer to the
    bank, and which of the bank are of the same label.
    """
    name = options.pop("name")
    x, y = torch.randn(60, 6, generator=generator), torch.arange(60) % 4
    detector = watching(name, network, layers="4", **options).fit(TensorDataset(x, y))
    assert isinstance(detector, BankDetector)
    new, label = torch.randn(30, 6, generator=generator), torch.arange(30) % 4
    score = detector.score(new, label if detector.conditional else None).detach().double().numpy()
    h, bank = (network[:5](z).detach().double().numpy() for z in (new, x))
    distances = np.linalg.norm(h[:, None] - bank, axis=2)
    return detector, score, distances, y.numpy() == label.numpy()[:, None]


def test_kernel_density_is_that_of_its_definition(generator: torch.Generator) -> None:
    for bandwidth in (0.3, 0.0):
        options = {"name": "kernel-density", "bandwidth": bandwidth}
        detector, score, distances, own = _inside(small_mlp((6,)), generator, options)
        b = float(detector.width(0))
        assert b == pytest.approx(bandwidth) or not bandwidth
        density = np.where(own, np.exp(-(distances**2) / (2 * b**2)), 0).sum(1) / own.sum(1)
        np.testing.assert_allclose(score, -np.log(density), rtol=1e-3, atol=1e-4)


def test_the_bandwidth_is_the_likeliest(generator: torch.Generator) -> None:
    """Of normal features with n per class it is near Silverman's (4 / (d + 2) n)^(1 / (d + 4)), within a grid step."""
    network = nn.Sequential(nn.Identity(), nn.Linear(2, 2))
    x, y = torch.randn(2000, 2, generator=generator), torch.arange(2000) % 2
    detector = watching("kernel-density", network, layers="0").fit(TensorDataset(x, y))
    assert isinstance(detector, BankDetector)
    found, expected = float(detector.width(0)), 900 ** (-1 / 6)
    assert expected / 1.6 < found < expected * 1.6


def test_deep_knn_is_that_of_its_definition(generator: torch.Generator) -> None:
    options = {"name": "deep-knn", "k": 3, "measure": "euclidean"}
    detector, score, distances, own = _inside(small_mlp((6,)), generator, options)
    t = float(detector.width(0))
    weights = np.exp(-distances / t)
    share = [np.sort(np.where(which, weights, 0), 1)[:, -3:].sum(1) for which in (~own, own)]
    nearest_own = np.where(own, distances, np.inf).min(1)
    centre, deviation = detector.centre.numpy(), detector.deviation.numpy()
    expected = (np.log(share[0] / share[1]) - centre[0]) / deviation[0] + (nearest_own - centre[1]) / deviation[1]
    np.testing.assert_allclose(score, expected, rtol=1e-3, atol=1e-4)


def test_lid_is_that_of_its_definition_and_finds_the_dimensions_of_a_cube(generator: torch.Generator) -> None:
    _, score, distances, _ = _inside(small_mlp((6,)), generator, {"name": "lid", "k": 5})
    near = np.sort(distances, 1)[:, :5]
    np.testing.assert_allclose(score, -1 / np.log(near / near[:, -1:]).mean(1), rtol=1e-2)
    found = []
    for dimensions in (1, 4):
        x = torch.rand(3000, dimensions, generator=generator) @ torch.eye(dimensions, 5)
        detector = watching("lid", nn.Sequential(nn.Identity(), nn.Linear(5, 2)), layers="0", k=50).fit(x)
        found.append(float(detector.score(x * 0.5 + 0.25 * (x > 0)).median()))
    assert found[0] == pytest.approx(1, abs=0.3)
    assert found[1] == pytest.approx(4, abs=1)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("deep-knn", {"k": 0}),
        ("deep-knn", {"measure": "l3"}),
        ("deep-knn", {"temperature": 0.0}),
        ("kernel-density", {"bandwidth": -1.0}),
        ("lid", {"k": 1}),
        ("lid", {"most": 3}),
    ],
)
def test_detectors_with_a_bank_refuse_what_is_out_of_range(name: str, options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(options))):
        make(name, options)


def test_a_bank_needs_every_class_and_is_drawn_apart_from_its_units(generator: torch.Generator) -> None:
    x, network = torch.randn(200, 6, generator=generator), small_mlp((6,))
    with pytest.raises(DataError, match="at least 2 training inputs of each"):
        watching("deep-knn", network).fit(TensorDataset(x, torch.arange(200) % 3))
    detector = watching("lid", network, layers="4", most=90).fit(x)
    assert isinstance(detector, BankDetector)
    assert len(detector.bank(0)) == 90
    with pytest.raises(UsageError, match="label"):
        watching("deep-knn", network).fit(TensorDataset(x, torch.arange(200) % 4)).score(x)


def test_layers_are_averaged_over_places_and_found_by_name(generator: torch.Generator) -> None:
    network = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(108, 5), nn.ReLU(), nn.Linear(5, 2))
    x = torch.rand(4, 1, 8, 8, generator=generator)
    layers = Layers(network)
    assert layers.names == ["1", "4"]
    torch.testing.assert_close(layers(x)[0], network[:2](x).mean((2, 3)))
    torch.testing.assert_close(layers(x)[1], network[:5](x))
    assert Layers(network, "last").names == ["4"]
    assert Layers(network, "3,0").names == ["3", "0"]
    assert not network[1]._forward_hooks
    with pytest.raises(UsageError, match="nowhere"):
        Layers(network, "nowhere")
    with pytest.raises(UsageError, match="torch.nn.Module"):
        Layers(lambda x: x)


@pytest.mark.parametrize("name", ["deep-knn", "kernel-density", "lid"])
def test_one_with_a_bank_can_be_exported_for_any_number_of_inputs(name: str, generator: torch.Generator) -> None:
    network = small_mlp((6,)).eval()
    x, y = torch.randn(100, 6, generator=generator), torch.arange(100) % 4
    detector = watching(name, network).fit(TensorDataset(x, y))

    class Scored(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network, self.detector = network, detector

        def forward(self, x: Tensor) -> Tensor:
            return detector.score(x, network(x).argmax(1) if detector.conditional else None)

    scored = Scored()
    program = torch.export.export(scored, (x[:5],), dynamic_shapes=({0: torch.export.Dim("n")},)).module()
    torch.testing.assert_close(program(x[:9]), scored(x[:9]))


def test_neighbours_among_some_of_a_bank(generator: torch.Generator) -> None:
    x, bank = torch.randn(7, 3, generator=generator), torch.randn(40, 3, generator=generator)
    allowed = torch.rand(7, 40, generator=generator) < 0.3
    allowed[0] = torch.arange(40) < 2
    near, chosen = nearest(x, bank, 4, allowed)
    expected = torch.cdist(x, bank).masked_fill(~allowed, torch.inf).topk(4, largest=False)
    torch.testing.assert_close(near, expected.values)
    assert torch.equal(chosen[1:], expected.indices[1:])
    assert near[0].isinf().tolist() == [False, False, True, True]
