"""An input that looks like one class and is said to be another is what a conditional detector is there to catch."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.utils.data import TensorDataset

from robustgen.data.load import load
from robustgen.detectors.calibrated import CalibratedDetector
from robustgen.detectors.conditional_vae import ConditionalVAEDetector
from robustgen.detectors.inferred import Inferred
from robustgen.errors import DataError, UsageError
from robustgen.models.build import build
from robustgen.models.load import LoadedModel
from robustgen.testing import check_detector


def toy(n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Three classes, each around a line of its own."""
    starts = torch.tensor([[0.2, 0.2, 0.8, 0.5], [0.8, 0.3, 0.2, 0.5], [0.5, 0.8, 0.5, 0.2]])
    y = torch.randint(3, (n,), generator=generator)
    along = 0.2 * torch.randn(n, 1, generator=generator) * torch.tensor([1.0, 1.0, 1.0, 1.0])
    return starts[y] + along + 0.02 * torch.randn(n, 4, generator=generator), y


@pytest.fixture(scope="module")
def fitted() -> ConditionalVAEDetector:
    x, y = toy(2000, torch.Generator().manual_seed(0))
    return ConditionalVAEDetector(code=2, epochs=25, learning_rate=5e-3).fit(TensorDataset(x, y))


def test_an_input_said_to_be_another_class_scores_higher(
    fitted: ConditionalVAEDetector, generator: torch.Generator
) -> None:
    """Also by the gap alone, which is negative where the label given is the best."""
    x, y = toy(200, generator)
    right, wrong = (fitted.panel(x, labels)["gap"] for labels in (y, (y + 1) % 3))
    assert (right < 0).float().mean() > 0.98
    assert (wrong > 0).float().mean() > 0.98
    assert (fitted.score(x, (y + 2) % 3) > fitted.score(x, y)).float().mean() > 0.98


def test_the_gap_is_that_of_the_bounds_of_every_class(
    fitted: ConditionalVAEDetector, generator: torch.Generator
) -> None:
    x, y = toy(10, generator)
    bounds = []
    for label in range(3):
        seen = Inferred(fitted.vae, fitted.standardised(x), fitted.noise, torch.full_like(y, label))
        bounds.append(-seen.error - seen.divergence)
    for row, label in enumerate(y.tolist()):
        others = max(bounds[other][row].item() for other in range(3) if other != label)
        assert fitted.panel(x, y)["gap"][row].item() == pytest.approx(others - bounds[label][row].item(), abs=1e-4)


@pytest.mark.parametrize("shape", [(6,), (1, 8, 8)])
def test_other_scores_keep_the_contract(shape: tuple[int, ...]) -> None:
    check_detector(lambda: ConditionalVAEDetector(scores="gap+density+knn", code=4, epochs=30), shape)


def test_scores_are_differentiable(generator: torch.Generator) -> None:
    x, y = toy(100, generator)
    detector = ConditionalVAEDetector(scores="gap+density", code=2, epochs=2).fit(TensorDataset(x, y)).double()
    new, y = toy(2, generator)  # of a training input itself the distance to the nearest has a kink
    point = new.double().requires_grad_()
    assert torch.autograd.gradcheck(lambda z: detector.score(z, y), (point,))


def test_new_inputs_are_of_the_class_asked_for(fitted: ConditionalVAEDetector) -> None:
    wanted = torch.arange(3).repeat_interleave(40)
    drawn = fitted.sample(120, seed=1, condition=wanted)
    bounds = []
    for label in range(3):
        seen = Inferred(fitted.vae, drawn, fitted.noise, torch.full_like(wanted, label))
        bounds.append(-seen.error - seen.divergence)
    assert (torch.stack(bounds).argmax(0) == wanted).float().mean() > 0.95
    x, y = toy(50, torch.Generator().manual_seed(4))
    torch.testing.assert_close(fitted.decode(fitted.encode(x, y), y), fitted.reconstruct(x, y))
    assert (fitted.reconstruct(x, y) - x).square().mean() < 0.2 * x.var(0).mean()


def test_bad_labels_are_refused(fitted: ConditionalVAEDetector, generator: torch.Generator) -> None:
    x, y = toy(10, generator)
    for labels, says in (
        (None, "pass those that the classifier predicts"),
        (y.float(), "whole numbers"),
        (y[:5], "whole numbers"),
        (y + 3, "labels are below 3"),
        (y - 5, "labels are below 3"),
    ):
        with pytest.raises(UsageError, match=says):
            fitted.score(x, labels)
    with pytest.raises(DataError, match="carry no labels"):
        ConditionalVAEDetector(epochs=1).fit(x)
    with pytest.raises(DataError, match="classes=2 was asked for"):
        ConditionalVAEDetector(classes=2, epochs=1).fit(TensorDataset(x, torch.arange(10) % 3))
    with pytest.raises(UsageError, match="at least 2 classes"):
        ConditionalVAEDetector(classes=1)


def test_a_classifier_gives_the_labels() -> None:
    source = load("digits")
    network = build("small-cnn", (1, 8, 8), 10)
    judged = CalibratedDetector.fit(
        "conditional-vae", source, options={"epochs": 1}, model=LoadedModel(network, "victim", "a" * 64, source.spec)
    )
    x = next(iter(source.batches("test", 30))).x
    with torch.no_grad():
        torch.testing.assert_close(judged.score(x), judged.detector.score(x, network(x).argmax(1)))
        assert not torch.equal(judged.score(x), judged.detector.score(x, (network(x).argmax(1) + 1) % 10))
    assert judged.summary()["model"] == "victim"
    with pytest.raises(UsageError, match="give the classifier with --model"):
        CalibratedDetector.fit("conditional-vae", source)
    with pytest.raises(UsageError, match="leave out --layer"):
        CalibratedDetector.fit("conditional-vae", source, model=judged.model, layer="0")
    other = LoadedModel(build("small-cnn", (1, 8, 8), 7), "seven", "b" * 64)
    with pytest.raises(UsageError, match=r"10 classes, but the classifier seven gives \(7,\)"):
        CalibratedDetector.fit("conditional-vae", source, model=other)
