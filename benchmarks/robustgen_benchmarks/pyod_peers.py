"""PyOD's detectors with their own defaults."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from importlib import import_module
from io import StringIO
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

PYOD = {
    "KNN": "knn",
    "CBLOF": "cblof",
    "PCA": "pca",
    "IForest": "iforest",
    "LOF": "lof",
    "OCSVM": "ocsvm",
    "ECOD": "ecod",
    "AutoEncoder": "auto_encoder",
    "VAE": "vae",
    "DeepSVDD": "deep_svdd",
}
MORE = {"GMM": "gmm", "KPCA": "kpca"}
"""Namesakes of detectors here, for where they are asked for."""
UNSEEDED = ("KNN", "LOF", "OCSVM", "ECOD", "PCA", "KPCA")
"""Those that give the same scores with every seed, with their own defaults."""
GANS = {"ALAD": "alad", "AnoGAN": "anogan", "SO_GAAL": "so_gaal", "MO_GAAL": "mo_gaal"}
"""Their generative adversarial networks, for where they are asked for: slow, and without a seed of their own."""


Scores = Callable[[npt.NDArray[Any]], npt.NDArray[Any]]


def fitted(name: str, train: npt.NDArray[Any], seed: int) -> Scores:
    """Rows to test -> the scores of PyOD's detector `name` fitted on the rows `train`, seeded where it can be."""
    kind: Any = getattr(import_module(f"pyod.models.{(PYOD | MORE | GANS)[name]}"), name)
    given: dict[str, Any] = {"random_state": seed, "n_features": train.shape[1], "verbose": 0}
    wanted = inspect.signature(kind.__init__).parameters
    torch.manual_seed(seed)  # some draw from the global generators alone
    np.random.seed(seed)  # noqa: NPY002
    with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
        detector = kind(**{key: value for key, value in given.items() if key in wanted}).fit(train)

    def score(test: npt.NDArray[Any]) -> npt.NDArray[Any]:
        with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            scores: npt.NDArray[Any] = detector.decision_function(test)
        return scores

    return score


def pyod(name: str) -> Callable[[npt.NDArray[Any], npt.NDArray[Any], int], npt.NDArray[Any]]:
    """(rows to fit, rows to test, seed) -> the scores of PyOD's detector `name`."""
    return lambda train, test, seed: fitted(name, train, seed)(test)
