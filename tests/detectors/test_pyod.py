"""PyOD's detectors by name: the same scores as PyOD's, stored without pickles, and what its own objects do not keep."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from robustgen.artifacts import staged
from robustgen.data.load import load
from robustgen.detectors.base import Detector
from robustgen.detectors.calibrated import CalibratedDetector
from robustgen.detectors.making import accepts, declared, make
from robustgen.detectors.pyod import PyODDetector
from robustgen.detectors.pyod_names import EXCLUDED, PYOD, pyod_name
from robustgen.errors import ArtifactError, DataError, MissingPackageError, UsageError
from robustgen.testing import check_detector
from robustgen_cli.list import TABLES

needs_pyod = pytest.mark.skipif(importlib.util.find_spec("pyod") is None, reason="PyOD is not installed")

QUICK = {
    "ALAD": {"epochs": 3},
    "AutoEncoder": {"epoch_num": 3},
    "DIF": {"n_ensemble": 3},
    "DeepSVDD": {"epochs": 5},
    "LUNAR": {"n_epochs": 5},
    "MO_GAAL": {"stop_epochs": 1, "k": 2},
    "SO_GAAL": {"stop_epochs": 1},
    "VAE": {"epoch_num": 3},
    "IForest": {"n_estimators": 20},
}
# what a few epochs do not teach: noise need not score higher than what they were fitted on
UNTAUGHT = {"ALAD", "DeepSVDD", "LUNAR", "MO_GAAL", "SO_GAAL", "QMCD"}
SLOW = {"AnoGAN"}


@needs_pyod
@pytest.mark.parametrize("name", ["KNN", "ECOD", "IForest"])
def test_a_detector_of_pyod_keeps_the_contract(name: str) -> None:
    check_detector(lambda: make(f"pyod:{name}", QUICK.get(name, {})), (6,))


@needs_pyod
@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(PYOD) - SLOW))
def test_every_name_scores_the_same_for_any_batch_and_after_a_round_trip(name: str, generator: torch.Generator) -> None:
    x, threads = torch.rand(90, 5, generator=generator), torch.get_num_threads()
    states = np.random.get_state()[1].copy(), torch.get_rng_state()  # type: ignore[index]  # noqa: NPY002
    detector = make(f"pyod:{name}", QUICK.get(name, {})).fit(x)
    scores = detector.score(x[:6])
    np.testing.assert_array_equal(states[0], np.random.get_state()[1])  # type: ignore[index]  # noqa: NPY002
    assert torch.equal(states[1], torch.get_rng_state())
    assert torch.get_num_threads() == threads
    assert torch.isfinite(scores).all()
    torch.testing.assert_close(torch.cat([detector.score(row[None]) for row in x[:6]]), scores, rtol=1e-4, atol=1e-6)
    again = make(f"pyod:{name}", detector.config).restore((5,), detector.state_dict())
    torch.testing.assert_close(again.score(x[:6]), scores, rtol=1e-4, atol=1e-6)
    if name not in UNTAUGHT:
        assert detector.score(x[:30] + 5).median() >= scores.median()


@needs_pyod
def test_scores_are_pyods(generator: torch.Generator) -> None:
    from pyod.models.knn import KNN

    x, new = torch.rand(100, 4, generator=generator), torch.rand(20, 4, generator=generator)
    expected = KNN(n_neighbors=3, method="mean").fit(x.double().numpy()).decision_function(new.double().numpy())
    found = make("pyod:knn", {"n_neighbors": 3, "method": "mean", "scale": "none"}).fit(x).score(new)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@needs_pyod
def test_it_is_stored_without_pickles_and_judges_the_same(tmp_path: Path) -> None:
    fitted = CalibratedDetector.fit("pyod:IForest", load("digits"), options={"n_estimators": 20, "seed": 3})
    with staged(tmp_path / "d") as directory:
        fitted.save(directory)
    assert sorted(path.suffix for path in (tmp_path / "d").iterdir()) == [".json", ".safetensors"]
    again = CalibratedDetector.load(tmp_path / "d")
    x = next(iter(load("digits").batches("test", 50))).x
    np.testing.assert_array_equal(fitted.judge(x).score, again.judge(x).score)
    assert again.summary() == fitted.summary()
    assert again.detector.config["arguments"] == '{"n_estimators": 20}'


@needs_pyod
def test_another_outcome_of_the_second_fit_is_an_error(generator: torch.Generator) -> None:
    x = torch.rand(50, 3, generator=generator)
    detector = make("pyod:KNN", {}).fit(x)
    state = detector.state_dict()
    state["expected"] = state["expected"] * 1.01
    changed = make("pyod:KNN", {}).restore((3,), state)
    with pytest.raises(ArtifactError, match="otherwise than when it was saved"):
        changed.score(x)


@needs_pyod
def test_no_more_rows_are_kept_than_asked(generator: torch.Generator) -> None:
    x = torch.rand(80, 3, generator=generator)
    assert make("pyod:KNN", {"most": 20}).fit(x).state_dict()["kept"].shape == (20, 3)


@needs_pyod
def test_infinite_scores_and_failures_are_named(generator: torch.Generator) -> None:
    x = torch.rand(60, 4, generator=generator)
    with pytest.raises(DataError, match="infinite scores"):
        make("pyod:PCA", {}).fit(torch.ones(60, 4))
    with pytest.raises(DataError, match="PyOD's KNN failed"):
        make("pyod:KNN", {"n_neighbors": 70}).fit(x)


@needs_pyod
def test_options_are_pyods() -> None:
    hints = declared("pyod:KNN")
    assert isinstance(hints, dict)
    assert hints["n_neighbors"] == int | float
    assert hints["method"] is str
    assert "contamination" not in hints
    assert accepts("pyod:KNN", "seed")
    with pytest.raises(UsageError, match="did you mean 'n_neighbors'"):
        make("pyod:KNN", {"n_neighbor": 3})


@needs_pyod
def test_every_detector_of_tables_is_named_or_excluded() -> None:
    import pyod.models

    folder = Path(pyod.models.__file__).parent
    others = ("base", "gaal_base", "combination", "embedding", "thresholds", "sklearn", "so_gaal_new", "hdbscan")
    files = {path.stem for path in folder.glob("[a-z]*.py") if not path.stem.startswith(("pyg_", "ts_", *others))}
    files -= {"audio_ae"}
    known = {"auto_encoder" if name == "AutoEncoder" else name.lower() for name in (*PYOD, *EXCLUDED)}
    named = {"deep_svdd" if name == "deepsvdd" else name for name in known}
    named = {"feature_bagging" if name == "featurebagging" else name for name in named}
    assert files == named - {"hdbscan"}


def test_names_are_forgiving_and_refusals_give_reasons() -> None:
    for name in ("pyod:AutoEncoder", "pyod:auto-encoder", "AUTO_ENCODER"):
        assert pyod_name(name) == "AutoEncoder"
    with pytest.raises(UsageError, match="unknown detector of PyOD 'KNNN'"):
        make("pyod:KNNN", {})
    with pytest.raises(UsageError, match="pyod:COF cannot be used here: it compares"):
        make("pyod:cof", {})
    with pytest.raises(UsageError, match="most=1"):
        PyODDetector(most=1)
    with pytest.raises(UsageError, match="JSON object"):
        PyODDetector(arguments="{")


def test_without_pyod_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyod", None)
    monkeypatch.delitem(sys.modules, "pyod.models.knn", raising=False)
    monkeypatch.delitem(sys.modules, "pyod.models", raising=False)
    detector: Detector = make("pyod:KNN", {})
    with pytest.raises(MissingPackageError, match=r"pip install 'robustgen\[pyod\]'"):
        detector.fit(torch.rand(20, 3))


def test_names_are_listed_without_loading_pyod() -> None:
    code = "import sys, robustgen.detectors.pyod_names; print({'pyod', 'torch', 'numpy', 'numba'} & set(sys.modules))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "set()"
    if importlib.util.find_spec("pyod") is not None:
        assert {f"pyod:{name}" for name in PYOD} < set(TABLES["detectors"])
