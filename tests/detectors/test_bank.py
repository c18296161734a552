"""Detectors in a classifier's layers: what they are by definition, and what they refuse."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from robustgen.detectors.bank import BankDetector
from robustgen.detectors.layers import Layers
from robustgen.detectors.making import make
from robustgen.detectors.neighbours import nearest
from robustgen.errors import DataError, UsageError
from toys import small_mlp
from watchers import watching


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
