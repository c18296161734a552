"""What the raw likelihood would have said, beside the score in use."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from robustgen.artifacts import staged
from robustgen.data.load import load
from robustgen.detectors.calibrated import CalibratedDetector
from robustgen.detectors.raw_likelihood import RawLikelihood, beside_raw_likelihood, foreign
from robustgen.detectors.vae import VAEDetector
from robustgen.metrics import auroc


def test_it_shows_where_the_likelihood_is_inverted_and_the_default_is_not(tmp_path: Path) -> None:
    """Blurred digits are likelier than digits. What was found is kept with the detector."""
    source = load("digits")
    detector = CalibratedDetector.fit("vae", source, options={"epochs": 20})
    found = detector.raw
    assert found is not None
    assert found.raw["blurred"] < 0.2
    assert min(found.score.values()) > 0.95
    assert found.warnings == []
    assert "(here: blurred)" in found.reason
    x = source.read(source.spread("calibration", found.n)).x
    with torch.no_grad():
        elbos = [detector.detector.panel(z, names=["elbo"])["elbo"].double() for z in (x, foreign(x)["blurred"])]
    assert found.raw["blurred"] == auroc(*(value.numpy() for value in elbos)).value
    assert json.loads(json.dumps(detector.summary()["raw_likelihood"])) == found.to_json()
    with staged(tmp_path / "d") as directory:
        detector.save(directory)
    assert CalibratedDetector.load(tmp_path / "d").raw == found


def test_other_detectors_have_no_raw_likelihood() -> None:
    detector = CalibratedDetector.fit("pca", load("digits"))
    assert detector.raw is None
    assert detector.summary()["raw_likelihood"] is None


def test_a_collapsed_code_is_named(generator: torch.Generator) -> None:
    x = 0.05 * torch.randn(800, 1, 2, 3, generator=generator)
    idle = VAEDetector("fixed-gaussian", code=4, epochs=5).fit(x)
    (warning,) = beside_raw_likelihood(idle, x[:100], lambda _: None).warnings
    assert "the code says next to nothing of the inputs" in warning


@pytest.mark.parametrize("shape", [(1, 9, 12), (3, 8, 8), (5,)])
def test_foreign_inputs_look_like_inputs_and_are_the_same_every_time(
    shape: tuple[int, ...], generator: torch.Generator
) -> None:
    x = torch.rand(20, *shape, generator=generator)
    before, state = x.clone(), torch.get_rng_state()
    made: dict[str, Tensor] = foreign(x)
    assert torch.equal(x, before)
    assert torch.equal(state, torch.get_rng_state())
    for kind, found in foreign(x).items():
        assert found.shape == x.shape
        assert found.min() >= 0
        assert found.max() <= 1
        assert torch.equal(found, made[kind])


def test_the_reason_names_no_kind_where_none_is_inverted() -> None:
    assert "here" not in RawLikelihood(5, {"noise": 1.0}, {"noise": 1.0}, []).reason
