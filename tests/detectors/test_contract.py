from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import TensorDataset

from robustgen.artifacts import staged
from robustgen.calibration import calibrate, p_values
from robustgen.data.load import load
from robustgen.detectors import DETECTORS
from robustgen.detectors.autoencoder import AutoencoderDetector
from robustgen.detectors.base import Detector
from robustgen.detectors.calibrated import CalibratedDetector
from robustgen.detectors.features import Features
from robustgen.detectors.making import make
from robustgen.detectors.parts import PARTS
from robustgen.errors import ArtifactError, DataError, RobustgenError, UsageError
from robustgen.models.build import build
from robustgen.models.load import LoadedModel
from robustgen.testing import check_detector
from robustgen.training.classifier import train
from robustgen.training.descent import Recipe
from toys import APART, FUSED, small_cnn

QUICK: dict[str, dict[str, Any]] = {
    "k-means": {"clusters": 5},
    "isolation-forest": {"trees": 50},
    "simhash": {"epochs": 20},
    "vae": {"epochs": 8},
    "conditional-vae": {"epochs": 8},
    "gan": {"steps": 40, "width": 8},
    "style-gan": {"steps": 40, "width": 8},
    "conditional-gan": {"steps": 150},
    "gat": {"steps": 60, "rest": 0.5},  # without fakes, foreign inputs are none of its business
    **{f"{kind}autoencoder": {"epochs": 8} for kind in ("", "denoising-", "sparse-", "contractive-")},
}
OF_IMAGES = {"style-gan"}


def quick(name: str, shape: tuple[int, ...]) -> dict[str, Any]:
    return FUSED if name == "fusion" and len(shape) == 3 else QUICK.get(name, {})


# foreign images are none of the business of what judges labels alone: test_certified_gat tries it on rows
ANY = [name for name in DETECTORS if name not in (*APART, "certified-gat")]


@pytest.mark.parametrize("name", ANY)
@pytest.mark.parametrize("shape", [(1, 8, 8), (12,)])
def test_every_registered_detector_keeps_the_contract(name: str, shape: tuple[int, ...]) -> None:
    if name in OF_IMAGES and len(shape) == 1:
        with pytest.raises(UsageError, match="needs images"):
            make(name, {}).fit(torch.rand(20, *shape))
        return
    check_detector(lambda: make(name, quick(name, shape)), shape)


@pytest.mark.parametrize("network", ["convolutional", "residual"])
def test_other_networks_keep_it_too(network: str) -> None:
    check_detector(lambda: AutoencoderDetector(network, code=8, epochs=8), (3, 10, 12))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("autoencoder", {"scores": "+".join(PARTS)}),
        ("autoencoder", {"scores": "l2"}),
        ("denoising-autoencoder", {"noise": "masking", "amount": 0.2}),
        ("denoising-autoencoder", {"noise": "salt-and-pepper"}),
        ("sparse-autoencoder", {"penalty": "kl"}),
        ("contractive-autoencoder", {"code": 4}),
    ],
)
def test_every_form_of_an_autoencoder_keeps_it_too(name: str, options: dict[str, object]) -> None:
    check_detector(lambda: make(name, {"epochs": 8} | options))


def test_the_check_notices_a_broken_detector() -> None:
    class Upside(Detector):
        def _fit(self, rows: object, progress: object) -> None:
            pass

        def _score(self, x: torch.Tensor, condition: object) -> torch.Tensor:
            return -x.flatten(1).std(1)

    with pytest.raises(AssertionError, match="higher means more anomalous"):
        check_detector(Upside)


@pytest.mark.parametrize("name", ANY)
def test_a_score_is_differentiable_to_second_order_of_accuracy(name: str, generator: torch.Generator) -> None:
    shape = (1, 6, 6) if name in OF_IMAGES else (6,)
    x = torch.rand(100, *shape, generator=generator)
    y = torch.arange(100) % 2
    made = make(name, quick(name, shape))
    detector = made.fit(TensorDataset(x, y) if made.conditional else x).double()
    if not detector.differentiable:
        pytest.skip("its scores are steps")
    point = torch.rand(3, *shape, generator=generator, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda z: detector.score(z, y[:3] if made.conditional else None), (point,))


def test_unfit_use_is_refused(generator: torch.Generator) -> None:
    x = torch.rand(60, 1, 8, 8, generator=generator)
    detector = make("pca", {}).fit(x)
    with pytest.raises(RobustgenError, match="not fitted"):
        make("pca", {}).score(x)
    with pytest.raises(UsageError, match=r"shape \(1, 8, 8\), but \(8, 8\)"):
        detector.score(x[:, 0])
    with pytest.raises(UsageError, match="no option 'componentz'"):
        make("pca", {"componentz": 3})
    with pytest.raises(UsageError, match="did you mean 'pca'"):
        make("pcaa", {})
    for name, options in (("pca", {"components": 0}), ("k-means", {"clusters": 0}), ("autoencoder", {"code": 0})):
        with pytest.raises(UsageError, match="0"):
            make(name, options)
    with pytest.raises(UsageError, match="at most 60"):
        make("pca", {"components": 61}).fit(x)
    with pytest.raises(UsageError, match="have at most 2"):
        make("pca", {"components": 3}).fit(x.flatten(1)[:, :3])
    assert make("pca", {"components": 0.999}).fit(x.flatten(1)[:, :3]).directions.shape == (
        2,
        3,
    )  # one is left to score
    with pytest.raises(UsageError, match="cannot be made"):
        make("k-means", {"clusters": "many"})


@pytest.fixture(scope="module")
def fitted() -> dict[str, CalibratedDetector]:
    source = load("digits")
    judge = train(source, recipe=Recipe(epochs=4)).model  # its labels are mostly right: wrong ones are anomalies
    models = {"conditional-vae": judge, "conditional-gan": judge, "gat": judge}
    return {
        name: CalibratedDetector.fit(
            name, source, fpr=0.05, options=quick(name, source.spec.shape), model=models.get(name)
        )
        for name in ANY
    }


@pytest.mark.parametrize("name", ANY)
def test_calibration_uses_held_out_inputs_and_keeps_its_rate(name: str, fitted: dict[str, CalibratedDetector]) -> None:
    """Clean test inputs are flagged at the chosen rate; anything beyond four standard errors is a leak between the
    splits.
    """
    detector, source = fitted[name], load("digits")
    assert detector.threshold.n_calibration == len(source.rows("calibration")) == len(detector.calibration_scores)
    scores = detector.scores(source, "test")
    flagged = float((scores > detector.threshold.value).mean())
    deviation = np.sqrt(0.05 * 0.95 * (1 / len(scores) + 1 / 359))
    assert abs(flagged - 0.05) < 4 * deviation
    assert detector.threshold == calibrate(detector.calibration_scores, 0.05)


@pytest.mark.parametrize("name", ANY)
def test_a_saved_detector_judges_the_same(name: str, fitted: dict[str, CalibratedDetector], tmp_path: Path) -> None:
    with staged(tmp_path / "d") as directory:
        fitted[name].save(directory)
    again = CalibratedDetector.load(tmp_path / "d")
    x = next(iter(load("digits").batches("test", 50))).x
    for ours, theirs in zip(fitted[name].judge(x), again.judge(x), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert again.summary() == fitted[name].summary()
    assert again.at(0.2).threshold == calibrate(fitted[name].calibration_scores, 0.2)


@pytest.mark.parametrize("name", ANY)
def test_foreign_inputs_score_higher_and_flags_agree_with_p_values(
    name: str, fitted: dict[str, CalibratedDetector]
) -> None:
    noise = torch.rand(100, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    verdicts = fitted[name].judge(noise)
    assert verdicts.flagged.mean() > 0.9
    np.testing.assert_array_equal(verdicts.flagged, verdicts.p_value <= 0.05)
    np.testing.assert_array_equal(verdicts.p_value, p_values(verdicts.score, fitted[name].calibration_scores))


def test_a_detector_can_look_through_a_classifier(tmp_path: Path) -> None:
    """It judges the input of the last linear layer; a known architecture is stored with it, the user's own code is
    not.
    """
    source = load("digits")
    network = build("small-cnn", (1, 8, 8), 10)
    config = {"arch": "small-cnn", "shape": [1, 8, 8], "classes": list(source.spec.classes)}
    known = LoadedModel(network, "victim", "a" * 64, source.spec, config)
    detector = CalibratedDetector.fit("pca", source, model=known)
    assert detector.detector.shape == (128,)
    with staged(tmp_path / "known") as directory:
        detector.save(directory)
    x = next(iter(source.batches("test", 20))).x
    np.testing.assert_array_equal(CalibratedDetector.load(tmp_path / "known").judge(x).score, detector.judge(x).score)

    own = LoadedModel(small_cnn().eval(), "mine.py:net", "b" * 64)
    other = CalibratedDetector.fit("k-means", source, model=own, options={"clusters": 4}, layer="2")
    with staged(tmp_path / "own") as directory:
        other.save(directory)
    with pytest.raises(UsageError, match="give the same --model"):
        CalibratedDetector.load(tmp_path / "own")
    with pytest.raises(UsageError, match="other weights"):
        CalibratedDetector.load(tmp_path / "own", known)
    np.testing.assert_array_equal(CalibratedDetector.load(tmp_path / "own", own).judge(x).score, other.judge(x).score)


def test_features_are_what_enters_the_layer(generator: torch.Generator) -> None:
    network = small_cnn().eval()
    x = torch.rand(4, 1, 8, 8, generator=generator)
    torch.testing.assert_close(Features(network)(x), network[:5](x))
    torch.testing.assert_close(Features(network, "2")(x), network[:2](x).flatten(1))
    with pytest.raises(UsageError, match="unknown layer"):
        Features(network, "nowhere")
    with pytest.raises(UsageError, match="no linear layer"):
        Features(torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3)))


def test_too_few_held_out_inputs_are_refused_before_training() -> None:
    with pytest.raises(DataError, match="needs at least 9999 calibration inputs, but 359"):
        CalibratedDetector.fit("autoencoder", load("digits"), fpr=0.0001, options={"epochs": 100_000})


def test_a_state_that_does_not_fit_is_refused(fitted: dict[str, CalibratedDetector]) -> None:
    state = fitted["autoencoder"].detector.state_dict()
    with pytest.raises(ArtifactError, match="does not fit"):
        AutoencoderDetector(code=7, epochs=8).restore((1, 8, 8), state)


def test_large_data_are_fitted_in_batches_to_nearly_the_same(
    monkeypatch: pytest.MonkeyPatch, generator: torch.Generator
) -> None:
    basis = torch.randn(5, 40, generator=generator)
    x = torch.randn(9000, 5, generator=generator) @ basis + 0.01 * torch.randn(9000, 40, generator=generator)
    odd = torch.randn(200, 40, generator=generator)
    for name, module in (("pca", "pca"), ("k-means", "k_means")):
        exact = make(name, {}).fit(x)
        monkeypatch.setattr(f"robustgen.detectors.{module}._IN_MEMORY", 10)
        batched = make(name, {}).fit(x)
        for inputs in (x[:500], odd):
            ratio = (batched.score(inputs) / exact.score(inputs)).median()
            assert 0.7 < ratio < 1.4
