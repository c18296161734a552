from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from robustgen.artifacts import staged
from robustgen.calibration import calibrate
from robustgen.data.load import load
from robustgen.detectors.calibrated import CalibratedDetector
from robustgen.detectors.codes import Codec, Sampler, as_codec, as_sampler, encoded, require_form
from robustgen.detectors.making import make
from robustgen.errors import RobustgenError, UsageError

OPTIONS: dict[str, dict[str, object]] = {"pca": {"components": 6}, "autoencoder": {"epochs": 3, "code": 5}}
WIDTH = {"pca": 6, "autoencoder": 5}


@pytest.fixture(scope="module")
def codecs() -> dict[str, CalibratedDetector]:
    return {name: CalibratedDetector.fit(name, load("digits"), options=OPTIONS[name]) for name in OPTIONS}


@pytest.mark.parametrize("name", OPTIONS)
def test_a_code_is_short_and_leads_back(name: str, codecs: dict[str, CalibratedDetector]) -> None:
    detector = codecs[name].detector
    x = next(iter(load("digits").batches("test", 30))).x
    codec = as_codec(detector, name)
    assert isinstance(detector, Codec)
    code = codec.encode(x)
    assert code.shape == (30, WIDTH[name])
    assert codec.decode(code).shape == x.shape
    assert torch.equal(codec.decode(code), codec.reconstruct(x))
    assert torch.equal(encoded(codec, x, batch_size=30), code)


def test_the_code_of_pca_is_that_of_scikit_learn(codecs: dict[str, CalibratedDetector]) -> None:
    from sklearn.decomposition import PCA

    source = load("digits")
    train = source.read(source.rows("train")).x
    x = source.read(source.rows("test")).x
    theirs = PCA(6, svd_solver="full").fit(train.flatten(1).double().numpy())
    ours = as_codec(codecs["pca"].detector, "pca").encode(x)
    np.testing.assert_allclose(ours.numpy(), theirs.transform(x.flatten(1).double().numpy()), atol=1e-4)


def test_codes_need_a_fitted_detector_that_has_one(codecs: dict[str, CalibratedDetector]) -> None:
    with pytest.raises(UsageError, match="k-means has no code of its inputs: use one of .*autoencoder"):
        as_codec(make("k-means", {}), "k-means")
    with pytest.raises(RobustgenError, match="pca is not fitted"):
        as_codec(make("pca", {}), "pca")
    with pytest.raises(UsageError, match="pca cannot draw new inputs"):
        as_sampler(codecs["pca"].detector, "pca")
    assert not isinstance(codecs["autoencoder"].detector, Sampler)


@pytest.mark.parametrize("name", ["pca", "k-means"])
def test_a_detector_on_codes_is_one_fitted_on_the_encoded_inputs(
    name: str, codecs: dict[str, CalibratedDetector], tmp_path: Path
) -> None:
    source, codec = load("digits"), codecs["autoencoder"]
    options = {"pca": {"components": 2}, "k-means": {"clusters": 4}}[name]
    fitted = CalibratedDetector.fit(name, source, options=options, codec=codec)
    splits = {split: source.read(source.rows(split)).x for split in ("train", "calibration", "test")}  # type: ignore[arg-type]
    codes = {split: encoded(as_codec(codec.detector, codec.name), x, len(x)) for split, x in splits.items()}
    plain = make(name, options).fit(codes["train"])
    with torch.no_grad():
        expected = plain.score(codes["test"])
        threshold = calibrate(plain.score(codes["calibration"]).double().numpy(), 0.05)
    np.testing.assert_allclose(fitted.judge(splits["test"]).score, expected.double().numpy(), rtol=1e-4, atol=1e-6)
    assert fitted.threshold.value == pytest.approx(threshold.value, rel=1e-4)
    assert fitted.summary()["codes_of"] == "autoencoder"

    with staged(tmp_path / "d") as directory:
        fitted.save(directory)
    again = CalibratedDetector.load(tmp_path / "d")
    assert again.summary() == fitted.summary()
    np.testing.assert_array_equal(again.judge(splits["test"]).score, fitted.judge(splits["test"]).score)
    with pytest.raises(UsageError, match="looks through the code of another detector"):
        again.codes()


def test_a_score_through_a_code_has_a_gradient(codecs: dict[str, CalibratedDetector]) -> None:
    fitted = CalibratedDetector.fit("pca", load("digits"), codec=codecs["autoencoder"])
    point = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0), requires_grad=True)
    (gradient,) = torch.autograd.grad(fitted.score(point).sum(), point)
    assert bool((gradient.flatten(1).abs().sum(1) > 0).all())


def test_codes_of_other_inputs_are_refused(codecs: dict[str, CalibratedDetector], tmp_path: Path) -> None:
    x = np.random.default_rng(0).random((200, 1, 6, 6), np.float32)
    np.savez(tmp_path / "small.npz", x=x)
    with pytest.raises(UsageError, match=r"shape \(1, 8, 8\) \('digits'\), but 'small.npz' has \(1, 6, 6\)"):
        CalibratedDetector.fit("pca", load(str(tmp_path / "small.npz")), codec=codecs["pca"])
    for number, scale in enumerate((1, 2)):
        lines = ["a,b", *(f"{scale * row},{row}" for row in range(100))]
        (tmp_path / f"{number}.csv").write_text("\n".join(lines))
    tables = [load(str(tmp_path / f"{number}.csv")).spec for number in range(2)]
    require_form(tables[0], tables[0])
    with pytest.raises(UsageError, match="scaling differ"):
        require_form(*tables)
