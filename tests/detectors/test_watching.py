"""Detectors with a classifier beside them: their contract, and the closed forms of those that look at its logits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from robustgen.artifacts import staged
from robustgen.calibration import calibrate
from robustgen.data.load import load
from robustgen.detectors.calibrated import CalibratedDetector
from robustgen.detectors.making import make
from robustgen.errors import UsageError
from robustgen.models.load import LoadedModel
from robustgen.testing import check_detector
from robustgen.training.classifier import train
from robustgen.training.descent import Recipe
from toys import WATCHING, Bumps, Linear2, small_mlp
from watchers import QUICK, watching

OF_IMAGES = ("denoise-consistency",)
OUTPUTS = ("margin", "max-softmax", "max-logit", "energy")


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


@pytest.mark.parametrize("name", ["max-softmax", "energy"])
@pytest.mark.parametrize("temperature", [0.0, -1.0, float("inf"), float("nan")])
def test_a_temperature_is_above_zero(name: str, temperature: float) -> None:
    with pytest.raises(UsageError, match="temperature"):
        make(name, {"temperature": temperature})
