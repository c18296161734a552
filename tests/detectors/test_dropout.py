"""Uncertainty by dropout: its closed form, and beside the kernel density the contract of any detector."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from robustgen.detectors.dropout import Thinned, spread
from robustgen.detectors.making import make
from robustgen.detectors.watching import WatchingDetector
from robustgen.errors import UsageError
from robustgen.testing import check_detector
from toys import small_mlp


def thinned(size: int, classes: int = 4, rate: float = 0.5) -> nn.Sequential:
    """A random smooth classifier with dropout before its last layer."""
    layers = list(small_mlp((size,), classes))
    return nn.Sequential(*layers[:-1], nn.Dropout(rate), layers[-1]).eval()


def beside(network: nn.Module, **options: float | str) -> WatchingDetector:
    """A fresh kernel density that watches `network`."""
    detector = make("kernel-density", options)
    assert isinstance(detector, WatchingDetector)
    detector.watch(network)
    return detector


def test_a_unit_is_there_twice_as_large_or_not_at_all(generator: torch.Generator) -> None:
    """Of one unit: p (1 - p) |softmax(2 w x + b) - softmax(b)|^2 with p the share of passes that kept it."""
    last = nn.Linear(1, 3).double()
    network = nn.Sequential(nn.Dropout(0.5), last).eval()
    x = torch.rand(5, 1, generator=generator).double()
    made = Thinned(network, 100, 0)(x)
    with_it, without = last(2 * x), last(0 * x)
    kept = (made[:, 0] - with_it[0]).abs().amax(1) < 1e-12
    for number in range(100):
        torch.testing.assert_close(made[number], with_it if kept[number] else without)
    share = kept.double().mean()
    assert abs(float(share) - 0.5) < 4 * 0.5 / 10
    expected = share * (1 - share) * (with_it.softmax(1) - without.softmax(1)).square().sum(1)
    torch.testing.assert_close(spread(made), expected)


def test_the_spread_is_that_of_the_paper(generator: torch.Generator) -> None:
    """mean of y.y over passes, less that of their mean with itself."""
    logits = torch.randn(20, 6, 3, generator=generator, dtype=torch.float64)
    said = logits.softmax(2)
    mean = said.mean(0)
    torch.testing.assert_close(spread(logits), said.square().sum(2).mean(0) - mean.square().sum(1))


def test_channels_are_left_out_as_a_whole(generator: torch.Generator) -> None:
    network = nn.Sequential(nn.Dropout2d(0.5), nn.Flatten()).eval()
    made = Thinned(network, 30, 1)(torch.rand(4, 6, 5, 5, generator=generator) + 0.1).reshape(30, 4, 6, 25) != 0
    assert torch.equal(made.any(3), made.all(3))
    assert torch.equal(made.any(1), made.all(1))  # of all inputs alike
    assert 0.3 < made.double().mean() < 0.7


def test_other_seeds_leave_out_other_units(generator: torch.Generator) -> None:
    network, x = thinned(6), torch.rand(3, 6, generator=generator)
    assert torch.equal(Thinned(network, 5, 0)(x), Thinned(network, 5, 0)(x))
    assert not torch.equal(Thinned(network, 5, 0)(x), Thinned(network, 5, 1)(x))
    assert not any(module._forward_hooks for module in network.modules())


@pytest.mark.parametrize("shape", [(1, 4, 4), (6,)])
def test_density_and_uncertainty_keep_the_contract(shape: tuple[int, ...]) -> None:
    network = nn.Sequential(nn.Flatten(), thinned(torch.Size(shape).numel(), classes=2))
    check_detector(lambda: beside(network, passes=5), shape)


def test_they_are_added_in_their_own_units(generator: torch.Generator) -> None:
    """The score is affine in the density's own score and the log variance, with a slope for each of its unit."""
    network = thinned(6)
    x, y = torch.randn(300, 6, generator=generator), torch.arange(300) % 4
    data, new, label = TensorDataset(x, y), torch.randn(40, 6, generator=generator), torch.arange(40) % 4
    both, density = beside(network, passes=20).fit(data), beside(network).fit(data)
    uncertain = (spread(Thinned(network, 20, 0)(new)) + 1e-12).log()
    parts = torch.stack([density.score(new, label), uncertain, torch.ones(40)], 1).detach().double()
    score = both.score(new, label).detach().double()
    slopes = torch.linalg.lstsq(parts, score[:, None]).solution[:, 0]
    torch.testing.assert_close(parts @ slopes, score, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(slopes[:2], 1 / both.deviation.double(), rtol=1e-3, atol=1e-4)  # type: ignore[operator]


def test_its_gradient_is_that_of_finite_differences(generator: torch.Generator) -> None:
    network = thinned(6)
    x, y = torch.rand(100, 6, generator=generator), torch.arange(100) % 4
    detector = beside(network, passes=4).fit(TensorDataset(x, y)).double()
    network.double()
    point = torch.rand(3, 6, generator=generator, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda z: detector.score(z, y[:3]), (point,))


@pytest.mark.parametrize("network", [small_mlp((6,)), thinned(6, rate=0.0)])
def test_without_dropout_layers_it_is_refused(network: nn.Module, generator: torch.Generator) -> None:
    data = TensorDataset(torch.rand(60, 6, generator=generator), torch.arange(60) % 4)
    with pytest.raises(UsageError, match="needs a classifier with dropout layers"):
        beside(network, passes=10).fit(data)
    beside(network).fit(data)
    with pytest.raises(UsageError, match="needs a classifier with dropout layers"):
        Thinned(lambda x: x, 3, 0)


@pytest.mark.parametrize("passes", [-1, 1])
def test_a_variance_needs_two_passes(passes: int) -> None:
    with pytest.raises(UsageError, match=f"passes={passes}"):
        make("kernel-density", {"passes": passes})


def test_it_can_be_exported_for_any_number_of_inputs(generator: torch.Generator) -> None:
    network = thinned(6)
    x, y = torch.rand(100, 6, generator=generator), torch.arange(100) % 4
    detector = beside(network, passes=4).fit(TensorDataset(x, y))

    class Scored(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network, self.detector = network, detector

        def forward(self, x: Tensor) -> Tensor:
            return detector.score(x, network(x).argmax(1))

    scored = Scored()
    program = torch.export.export(scored, (x[:5],), dynamic_shapes=({0: torch.export.Dim("n")},)).module()
    for _ in range(2):  # the masks are part of the program
        torch.testing.assert_close(program(x[:9]), scored(x[:9]))
