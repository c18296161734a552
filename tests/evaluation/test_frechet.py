"""The Fréchet distance: closed forms, symmetry, what it needs."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm

from robustgen.errors import DataError, UsageError
from robustgen.evaluation.frechet import compare, embedding, frechet
from robustgen.models.build import build
from robustgen.models.load import LoadedModel


def test_a_shift_costs_its_square(generator: torch.Generator) -> None:
    x = torch.randn(500, 4, generator=generator, dtype=torch.float64)
    assert frechet(x, x) == pytest.approx(0, abs=1e-9)
    assert frechet(x, x + torch.tensor([3.0, 4.0, 0, 0])) == pytest.approx(25, rel=1e-6)


def test_a_scale_costs_the_difference_of_deviations(generator: torch.Generator) -> None:
    x = torch.randn(500, 1, generator=generator, dtype=torch.float64)
    assert frechet(x, 2 * x) == pytest.approx(x.var().item() + x.mean().square().item(), rel=1e-9)


def test_it_is_the_matrix_square_root_s_distance(generator: torch.Generator) -> None:
    a = torch.randn(60, 5, generator=generator, dtype=torch.float64)
    b = torch.randn(60, 5, generator=generator, dtype=torch.float64) @ torch.rand(5, 5, generator=generator).double()
    first, second = (np.cov(x.numpy(), rowvar=False) for x in (a, b))
    gap = ((a.mean(0) - b.mean(0)) ** 2).sum().item()
    expected = gap + np.trace(first + second - 2 * np.real(sqrtm(first @ second)))
    assert frechet(a, b) == pytest.approx(expected, rel=1e-6)
    assert frechet(a, b) == pytest.approx(frechet(b, a), rel=1e-6)


def test_fewer_inputs_than_features_give_no_imaginary_part(generator: torch.Generator) -> None:
    a, b = torch.randn(2, 5, 40, generator=generator, dtype=torch.float64)
    assert np.isfinite(frechet(a, b))
    with pytest.raises(DataError, match="at least 2"):
        frechet(a[:1], b)


def test_equal_numbers_are_compared(generator: torch.Generator) -> None:
    real = torch.rand(80, 1, 8, 8, generator=generator)
    config = {"arch": "small-cnn", "shape": [1, 8, 8], "classes": ["a", "b"]}
    model = LoadedModel(build("small-cnn", (1, 8, 8), 2), "victim", "a" * 64, None, config)
    embed, features = embedding(model, torch.device("cpu"))
    found = compare(torch.zeros(40, 1, 8, 8), real, embed, features, batch_size=7)
    assert found.n == 40
    assert "victim" in found.features
    assert found.distance > found.real > 0
    with pytest.raises(DataError, match="draw at most 40"):
        compare(torch.zeros(41, 1, 8, 8), real, embed, features)


def test_inception_sees_bytes_in_three_channels(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """By the package's own interface, where its file lies where torch.hub keeps it; without the file it is not used."""
    seen: list[torch.Tensor] = []

    class Extractor(torch.nn.Module):
        def __init__(self, name: str, features: list[str], feature_extractor_weights_path: str) -> None:
            super().__init__()
            assert (name, features) == ("inception-v3-compat", ["2048"])
            assert Path(feature_extractor_weights_path).is_file()

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor]:
            seen.append(x)
            return (x.float().flatten(1),)

    package = ModuleType("torch_fidelity.feature_extractor_inceptionv3")
    package.__dict__.update(URL_INCEPTION_V3="https://example.org/weights.pth", FeatureExtractorInceptionV3=Extractor)
    monkeypatch.setitem(sys.modules, "torch_fidelity", ModuleType("torch_fidelity"))
    monkeypatch.setitem(sys.modules, package.__name__, package)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(UsageError, match="are not at hand"):
        embedding(None, torch.device("cpu"))
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "weights.pth").touch()
    embed, features = embedding(None, torch.device("cpu"))
    assert features == "Inception (FID)"
    grey = torch.tensor([0.0, 0.5, 1.0, 2.0]).reshape(1, 1, 2, 2)
    embed(grey)
    assert seen[0].dtype == torch.uint8
    assert seen[0].tolist() == [[[[0, 128], [255, 255]]] * 3]
    with pytest.raises(UsageError, match="1 or 3 channels"):
        embed(torch.rand(2, 2, 4, 4))


def test_features_are_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("robustgen.evaluation.frechet._inception", lambda device: None)
    with pytest.raises(UsageError, match="--model"):
        embedding(None, torch.device("cpu"))
