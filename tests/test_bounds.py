"""Bounds: nothing in a box leaves what is said of it, in float32 too, and of an affine map it is exactly that."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from robustgen.attacks.pgd import PGD
from robustgen.bounds import METHODS, Box, Outputs, Scaled, box, layers, logit_bounds, pair_bounds, through
from robustgen.errors import UsageError
from robustgen.models.build import build
from robustgen.models.gan import Discriminator
from robustgen.threat import ThreatModel

IMAGE, ROW = (4, 8, 8), (12,)


def _batch_norm(layer: nn.BatchNorm1d | nn.BatchNorm2d) -> nn.Module:
    for buffer in (layer.running_mean, layer.running_var):
        assert buffer is not None
        buffer.uniform_(0.5, 2, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        layer.weight.uniform_(-2, 2, generator=torch.Generator().manual_seed(2))
        layer.bias.fill_(0.3)
    return layer


def _made(kind: str) -> tuple[nn.Module, tuple[int, ...]]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        found: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
            "linear": (nn.Linear(12, 7), ROW),
            "spectral": (spectral_norm(nn.Linear(12, 7)), ROW),
            "convolution": (nn.Conv2d(4, 6, 3, stride=2, padding=1), IMAGE),
            "relu": (nn.ReLU(), IMAGE),
            "leaky": (nn.LeakyReLU(0.2), IMAGE),
            "largest": (nn.MaxPool2d(2), IMAGE),
            "mean": (nn.AvgPool2d(2), IMAGE),
            "whole mean": (nn.AdaptiveAvgPool2d(1), IMAGE),
            "batch norm": (_batch_norm(nn.BatchNorm2d(4)), IMAGE),
            "batch norm of rows": (_batch_norm(nn.BatchNorm1d(12)), ROW),
            "flat": (nn.Flatten(), IMAGE),
            "unshuffled": (nn.PixelUnshuffle(2), IMAGE),
            "padded": (nn.ZeroPad2d((0, 1, 0, 1)), IMAGE),
            "scaled": (Scaled(torch.rand(4), torch.rand(4) + 0.1), IMAGE),
            "small-cnn": (build("small-cnn", IMAGE, 5, mean=[0.3] * 4, std=[0.2] * 4, seed=0), IMAGE),
            "mlp": (build("mlp", ROW, 5, mean=[0.1] * 12, std=[0.5] * 12, seed=0), ROW),
            "small-resnet": (build("small-resnet", IMAGE, 5, mean=[0.3] * 4, std=[0.2] * 4, seed=0), IMAGE),
        }
    network, shape = found[kind]
    return network.eval(), shape


KINDS = (
    "linear", "spectral", "convolution", "relu", "leaky", "largest", "mean", "whole mean", "batch norm",
    "batch norm of rows", "flat", "unshuffled", "padded", "scaled", "small-cnn", "mlp", "small-resnet",
)  # fmt: skip
CLASSIFIERS = ("small-cnn", "mlp", "small-resnet")


def around(x: Tensor, eps: float) -> Box:
    wide = eps * (1 + 1e-6) + (6e-8 if eps else 0)  # the rounding of one addition
    return box((x.double() - wide).clamp(0, 1), (x.double() + wide).clamp(0, 1), rounding=True)


def points(x: Tensor, eps: float, generator: torch.Generator) -> list[Tensor]:
    """Random points of the ball, and random corners."""
    noise = [2 * torch.rand(x.shape, generator=generator) - 1 for _ in range(8)]
    return [(x + eps * delta).clamp(0, 1) for delta in (*noise, *(delta.sign() for delta in noise))]


def inside(found: Box, value: Tensor) -> bool:
    assert found.rounding is not None
    return bool(((value.double() - found.centre).abs() <= found.radius + found.rounding).all())


@pytest.mark.parametrize("kind", KINDS)
def test_no_point_of_the_box_leaves_its_bounds_as_float32_computes_it(kind: str, generator: torch.Generator) -> None:
    network, shape = _made(kind)
    x = torch.rand(5, *shape, generator=generator)
    for eps in (0.0, 0.003, 0.1):
        found = through(network, around(x, eps))
        with torch.no_grad():
            for point in points(x, eps, generator):
                assert inside(found, network(point))


@pytest.mark.parametrize("kind", CLASSIFIERS)
def test_no_attack_leaves_them_either(kind: str, generator: torch.Generator) -> None:
    network, shape = _made(kind)
    x = torch.rand(6, *shape, generator=generator)
    eps = 0.02
    with torch.no_grad():
        found = logit_bounds(network, around(x, eps))
        for target in range(5):
            label = torch.full((6,), target)
            threat = ThreatModel("linf", eps)
            x_adv = PGD(threat=threat, steps=10, mode="max-loss")(network, x, label)
            holds(found, network(x_adv))


def holds(found: Outputs, numbers: Tensor) -> None:
    numbers = numbers.double()
    assert (numbers <= found.upper).all()
    assert (numbers[:, :, None] - numbers[:, None] >= found.lead).all()


@pytest.mark.parametrize("options", [{"spectral": False}, {"spectral": True}, {"pooled": True, "spectral": False}])
@pytest.mark.parametrize("shape", [(1, 9, 12), ROW])
def test_what_a_discriminator_says_with_each_label(
    options: dict[str, bool], shape: tuple[int, ...], generator: torch.Generator
) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = Discriminator(shape, width=8, classes=4, **options).eval()
    x = torch.rand(5, *shape, generator=generator)
    for eps in (0.0, 0.05):
        with torch.no_grad():
            found = pair_bounds(network, around(x, eps))
            for point in points(x, eps, generator):
                holds(found, network.every(point))


def test_of_an_affine_map_they_are_exact(generator: torch.Generator) -> None:
    """The largest value of w.x + b within eps is w.x + b + eps |w|_1, and of a difference eps |w_j - w_k|_1."""
    first, last = nn.Linear(6, 5).double(), nn.Linear(5, 3).double()
    x, eps = torch.rand(4, 6, dtype=torch.float64, generator=generator), 0.1
    found = logit_bounds(nn.Sequential(last), Box(first(x), torch.zeros(4, 5, dtype=torch.float64)))
    assert torch.allclose(found.upper, last(first(x)))
    single = logit_bounds(first, Box(x, torch.full_like(x, eps)))
    weight = first.weight
    assert torch.allclose(single.upper, first(x) + eps * weight.abs().sum(1))
    apart = (weight[:, None] - weight[None]).abs().sum(2)
    lead = first(x)[:, :, None] - first(x)[:, None] - eps * apart
    assert torch.allclose(single.lead, lead)


def test_folding_the_last_layer_in_is_tighter_than_bounding_it_by_itself(generator: torch.Generator) -> None:
    network, shape = _made("small-cnn")
    ball = around(torch.rand(4, *shape, generator=generator), 0.02)
    with torch.no_grad():
        found, apart = logit_bounds(network, ball), through(network, ball)
    loose = (apart.centre - apart.radius)[:, :, None] - (apart.centre + apart.radius)[:, None]
    assert (found.lead > loose)[:, ~torch.eye(5, dtype=torch.bool)].all()


@pytest.mark.parametrize("kind", CLASSIFIERS)
def test_linear_bounds_hold_and_are_tighter(kind: str, generator: torch.Generator) -> None:
    network, shape = _made(kind)
    x = torch.rand(3, *shape, generator=generator)
    eps = 0.02
    ball = around(x, eps)
    with torch.no_grad():
        loose, tight = logit_bounds(network, ball), logit_bounds(network, ball, "crown")
        for point in points(x, eps, generator):
            holds(tight, network(point))
    apart = ~torch.eye(5, dtype=torch.bool)
    assert (tight.lead >= loose.lead).all()
    assert (tight.upper <= loose.upper).all()
    assert (tight.lead - loose.lead)[:, apart].mean() > 0.2 * loose.lead[:, apart].abs().mean()


def test_linear_bounds_of_one_hidden_layer_are_those_by_hand() -> None:
    """f = relu(x) + relu(-x) for x in [-1, 1]: the chords lie above by 1 / 2 + x / 2 and 1 / 2 - x / 2, so that f is at
    most 1 in all, where intervals give 2.
    """
    network = nn.Sequential(nn.Linear(1, 2), nn.ReLU(), nn.Linear(2, 1)).double()
    with torch.no_grad():
        for layer, weight in ((network[0], [[1.0], [-1.0]]), (network[2], [[1.0, 1.0]])):
            assert isinstance(layer, nn.Linear)
            layer.weight.copy_(torch.tensor(weight))
            layer.bias.zero_()
        ball = Box(torch.zeros(1, 1, dtype=torch.float64), torch.ones(1, 1, dtype=torch.float64))
        assert logit_bounds(network, ball).upper.item() == pytest.approx(2)
        assert logit_bounds(network, ball, "crown").upper.item() == pytest.approx(1)


@pytest.mark.parametrize("pooled", [False, True])
def test_linear_bounds_of_a_discriminator_hold(pooled: bool, generator: torch.Generator) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = Discriminator((1, 9, 12), width=4, classes=4, spectral=True, pooled=pooled).eval()
    x = torch.rand(4, 1, 9, 12, generator=generator)
    with torch.no_grad():
        loose, found = (pair_bounds(network, around(x, 0.05), method) for method in METHODS)
        for point in points(x, 0.05, generator):
            holds(found, network.every(point))
    assert (found.lead > loose.lead).double().mean() > 0.5


def test_a_larger_ball_has_wider_bounds_and_rows_do_not_mix(generator: torch.Generator) -> None:
    network, shape = _made("small-cnn")
    x = torch.rand(4, *shape, generator=generator)
    with torch.no_grad():
        leads = [logit_bounds(network, around(x, eps)).lead for eps in (0.0, 0.01, 0.02, 0.1)]
        alone = logit_bounds(network, around(x[2:3], 0.02)).lead
    for small, large in pairwise(leads):
        assert (large <= small).all()
    assert torch.allclose(alone[0], leads[2][2], rtol=1e-12)


def test_bounds_have_gradients(generator: torch.Generator) -> None:
    network = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)).double()
    x = torch.rand(2, 3, dtype=torch.float64, generator=generator)

    def lead(centre: Tensor, *parameters: Tensor) -> Tensor:
        return logit_bounds(network, Box(centre, torch.full_like(centre, 0.1))).lead

    assert torch.autograd.gradcheck(lead, (x.requires_grad_(), *network.parameters()))


def test_what_is_not_known_is_said() -> None:
    with pytest.raises(UsageError, match="no bounds are known of GELU"):
        layers(nn.Sequential(nn.Linear(2, 2), nn.GELU()))
    ball = box(torch.zeros(1, 2), torch.ones(1, 2))
    with pytest.raises(UsageError, match="end in a linear layer"):
        logit_bounds(nn.Sequential(nn.Linear(2, 2), nn.ReLU()), ball)
    with pytest.raises(UsageError, match="evaluation mode"):
        through(nn.Sequential(nn.BatchNorm1d(2)), ball)
    with pytest.raises(UsageError, match="evaluation mode"):
        through(nn.Sequential(nn.Dropout()), ball)
    with pytest.raises(UsageError, match="padded by circular"):
        through(
            nn.Conv2d(1, 1, 3, padding=1, padding_mode="circular"), box(torch.zeros(1, 1, 4, 4), torch.ones(1, 1, 4, 4))
        )
    with pytest.raises(UsageError, match="knows no labels"):
        pair_bounds(Discriminator((2,)), ball)
    with pytest.raises(UsageError, match="slope 2"):
        through(nn.LeakyReLU(2.0), ball)
