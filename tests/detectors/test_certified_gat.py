"""The discriminator that is trained on bounds: what is proven of it grows with training, and holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from robustgen.artifacts import staged
from robustgen.bounds import box, pair_bounds
from robustgen.data.load import load
from robustgen.detectors.bounded import Bounded
from robustgen.detectors.calibrated import CalibratedDetector
from robustgen.detectors.certified_gat import CertifiedGATDetector
from robustgen.detectors.conditional_gan import ConditionalGANDetector
from robustgen.errors import UsageError
from robustgen.models.build import build
from robustgen.models.gan import Discriminator
from robustgen.models.load import LoadedModel
from robustgen.testing import check_detector
from robustgen.training.certified import start_for_bounds, worst_numbers

STARTS = torch.tensor([[0.2, 0.2, 0.8, 0.5], [0.8, 0.3, 0.2, 0.5], [0.5, 0.8, 0.5, 0.2]])


def toy(n: int, seed: int) -> tuple[Tensor, Tensor]:
    """Three classes, 0.3 or more apart from each other in some value."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.randint(3, (n,), generator=generator)
    return STARTS[y] + 0.02 * torch.randn(n, 4, generator=generator), y


def fit(**options: Any) -> CertifiedGATDetector:
    return CertifiedGATDetector(**({"steps": 150, "width": 8} | options)).fit(TensorDataset(*toy(1500, 0)))


@pytest.fixture(scope="module")
def detector() -> CertifiedGATDetector:
    return fit()


def test_it_keeps_the_contract() -> None:
    check_detector(lambda: CertifiedGATDetector(steps=100, width=8), (12,))


def test_wrong_labels_are_rejected_all_over_the_ball(detector: CertifiedGATDetector) -> None:
    """The classes are more than twice 0.1 apart, so that a perfect one exists."""
    x, y = toy(300, 1)
    with torch.no_grad():
        least = detector.least(box(x.double() - 0.1, x.double() + 0.1, rounding=True))
        own = detector.score(x, y)
    wrong = least.scatter(1, y[:, None], torch.inf).amin(1)
    assert (wrong > own.max()).double().mean() > 0.95


def test_what_is_proven_holds(detector: CertifiedGATDetector, generator: torch.Generator) -> None:
    x, _ = toy(100, 2)
    with torch.no_grad():
        least = detector.least(box(x.double() - 0.1001, x.double() + 0.1001, rounding=True))
        for _ in range(20):
            point = x + 0.1 * (2 * torch.rand(x.shape, generator=generator) - 1).sign()
            for label in range(3):
                assert (detector.score(point, torch.full((100,), label)).double() >= least[:, label]).all()


def test_training_on_the_ball_proves_more_than_on_inputs_as_they_come() -> None:
    digits = load("digits")
    batch = digits.read(digits.rows("test"))
    assert batch.y is not None
    x, y = batch.x.double(), batch.y
    ball = box((x - 0.1).clamp(min=0), (x + 0.1).clamp(max=1), rounding=True)

    def proven(eps: float) -> float:
        found = CertifiedGATDetector(steps=120, width=8, eps=eps).fit(digits)
        with torch.no_grad():
            lowest = found.least(ball).scatter(1, y[:, None], torch.inf).amin(1)
        return float((lowest > 0).double().mean())

    assert proven(0.1) > proven(0.001) + 0.3


def test_boxes_neither_grow_nor_vanish_in_a_fresh_network(generator: torch.Generator) -> None:
    network = Discriminator((1, 28, 28), classes=10, width=16, spectral=False, dense=128)
    start_for_bounds(network, generator)
    x = torch.rand(8, 1, 28, 28, generator=generator)
    with torch.no_grad():
        found = pair_bounds(network, box(x - 0.1, x + 0.1))
        apart = worst_numbers(found, torch.zeros(8, dtype=torch.int64))
    assert 0.02 < float(apart[:, 1:].median()) < 2
    layers = [layer for layer in network.modules() if isinstance(layer, nn.Linear | nn.Conv2d)]
    assert len(layers) == 5


def test_it_is_saved_and_loaded_with_a_classifier(tmp_path: Path) -> None:
    digits = load("digits")
    victim = LoadedModel(build("mlp", digits.spec.shape, 10, seed=0).eval(), "mlp", "0" * 64, digits.spec)
    fitted = CalibratedDetector.fit("certified-gat", digits, model=victim, options={"steps": 10, "width": 4})
    with staged(tmp_path / "made", False, "detector") as directory:
        fitted.save(directory)
    again = CalibratedDetector.load(tmp_path / "made", victim)
    x = digits.read(digits.rows("test")[:20]).x
    assert torch.equal(again.score(x), fitted.score(x))
    assert isinstance(again.detector, Bounded)
    assert isinstance(ConditionalGANDetector(), Bounded)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"eps": 0.0}, "eps must be above 0"),
        ({"clean": 1.0}, "clean is a share"),
        ({"margin": -1.0}, "margin is a number from 0"),
        ({"classes": 1}, "at least 2 classes"),
        ({"width": 0}, "width and steps"),
        ({"steps": 0}, "width and steps"),
        ({"preset": "fst"}, "preset"),
    ],
)
def test_what_is_wrong_is_said(options: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        CertifiedGATDetector(**options)
    with pytest.raises(UsageError, match="judges an input against a label"):
        fit(steps=1).score(torch.rand(2, 4))
