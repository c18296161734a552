"""Generative detectors side by side: what each row holds."""

from __future__ import annotations

import math

import pytest
import torch

from robustgen.data.load import load
from robustgen.detectors.calibrated import CalibratedDetector
from robustgen.detectors.self_test import anomalies
from robustgen.evaluation.generative import generative

EMBED = lambda x: x.flatten(1)  # noqa: E731  # pixels as features


@pytest.mark.parametrize(
    ("name", "options", "has"),
    [
        ("vae", {"epochs": 2, "likelihood": "logistic"}, {"frechet", "mse", "ssim", "bits_per_value"}),
        ("vae", {"epochs": 2, "likelihood": "bernoulli"}, {"frechet", "mse", "ssim"}),
        ("gan", {"steps": 5, "width": 4}, {"frechet", "mse", "ssim"}),
        ("pca", {}, {"mse", "ssim"}),
        ("knn", {}, set()),
    ],
)
def test_a_row_holds_what_the_detector_has(name: str, options: dict[str, object], has: set[str]) -> None:
    source = load("digits")
    fitted = CalibratedDetector.fit(name, source, options=options)
    x = source.read(source.rows("test")).x
    made = anomalies(x[:50], "image", 0, 1, torch.Generator().manual_seed(0))
    row = generative(fitted, x, made, EMBED, "pixels", samples=100, seconds_to_fit=1.0)
    values = row.to_json()
    for field in ("frechet", "mse", "ssim", "bits_per_value"):
        assert (values[field] is not None) == (field in has)
    assert set(row.detected) == set(made)
    assert row.detected["noise"] > 0.9
    assert 0 <= row.false_alarms < 0.2
    assert row.milliseconds > 0
    if row.frechet is not None:
        assert row.frechet.n == 100
        assert row.frechet.features == "pixels"
    if row.bits_per_value is not None:
        assert 0 < row.bits_per_value < math.log2(256)
