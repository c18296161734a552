"""The detectors of PyOD 3.6 that take rows of numbers and judge new ones, and why the others do not.

A literal table that imports nothing, so that listing and completion are instant. A test compares it with PyOD.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

from robustgen.errors import UsageError
from robustgen.registry import suggestion

PREFIX = "pyod:"

PYOD = {
    "ABOD": "variance of angles to pairs of neighbours (Kriegel 2008)",
    "ALAD": "adversarially learned inference (Zenati 2018)",
    "AnoGAN": "distance to what a GAN can generate (Schlegl 2017); very slow",
    "AutoEncoder": "reconstruction error of a dense autoencoder",
    "CBLOF": "distance to the nearest large cluster (He 2003)",
    "COPOD": "tails of an empirical copula (Li 2020); one input at a time",
    "DIF": "isolation forests on random networks (Xu 2023)",
    "DeepSVDD": "distance from the centre of a learnt sphere (Ruff 2018)",
    "ECOD": "tails of each column (Li 2022); one input at a time",
    "GMM": "unlikelihood under a mixture of Gaussians",
    "HBOS": "histograms of each column (Goldstein 2012)",
    "HDBSCAN": "clusters by density, and how far outside (Campello 2015)",
    "IForest": "isolation forest (Liu 2008)",
    "INNE": "isolation by nearest neighbours (Bandaragoda 2018)",
    "KDE": "kernel density (Latecki 2007)",
    "KNN": "distance to the nearest neighbours (Ramaswamy 2000)",
    "KPCA": "kernel PCA (Hoffmann 2007)",
    "LODA": "histograms of random projections (Pevny 2016)",
    "LOF": "local outlier factor (Breunig 2000)",
    "LUNAR": "graph network over nearest neighbours (Goodge 2022)",
    "MCD": "robust Mahalanobis distance (Rousseeuw 1999)",
    "MO_GAAL": "several generators of hard negatives (Liu 2019)",
    "OCSVM": "one-class support vector machine (Scholkopf 2001)",
    "PCA": "principal components weighted by variance (Shyu 2003)",
    "QMCD": "quasi-Monte Carlo discrepancy (Fang 2001)",
    "SO_GAAL": "one generator of hard negatives (Liu 2019)",
    "Sampling": "distance to a random sample (Sugiyama 2013)",
    "VAE": "reconstruction error of a variational autoencoder; one input at a time",
}

_WITHIN = "it compares the inputs of one batch with each other, so a score depends on what it comes with"
_LABELS = "it learns from labelled anomalies"

EXCLUDED = {
    "AE1SVM": "PyOD 3.6 fails in it on any data",
    "CD": _WITHIN,
    "COF": _WITHIN,
    "DevNet": _LABELS,
    "FeatureBagging": "it needs the package combo",
    "LMDD": _WITHIN,
    "LOCI": "in PyOD 3.6 far inputs score lower than near ones",
    "LSCP": "it is made of other detectors, which have to be given: use fusion",
    "MAD": "it takes one column only",
    "RGraph": _WITHIN,
    "ROD": _WITHIN,
    "SOD": _WITHIN,
    "SOS": _WITHIN,
    "SUOD": "it needs the package combo: use fusion",
    "XGBOD": _LABELS,
}

_PLAIN = {name.lower().replace("_", ""): name for name in (*PYOD, *EXCLUDED)}
_OWN = ("model", "arguments", "most", "scale", "seed")


def pyod_name(name: str) -> str:
    """PyOD's class for `name`, with or without "pyod:", in any case, with or without dashes.

    Raises `UsageError` for a name that PyOD does not have, or a detector that cannot be used here, with the reason.
    """
    asked = name.removeprefix(PREFIX)
    found = _PLAIN.get(asked.replace("-", "").replace("_", "").lower())
    if found is None:
        raise UsageError(suggestion(asked, PYOD, "detector of PyOD"))
    if found in EXCLUDED:
        raise UsageError(f"pyod:{found} cannot be used here: {EXCLUDED[found]}")
    return found


def pyod_options(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of `PyODDetector` for the detector `name`: its own among `options`, and the rest as PyOD's."""
    theirs = {option: value for option, value in options.items() if option not in _OWN}
    stored = json.loads(options.get("arguments", "{}")) | theirs
    ours = {option: value for option, value in options.items() if option in _OWN}
    return ours | {"model": pyod_name(name), "arguments": json.dumps(stored, sort_keys=True)}


def installed() -> bool:
    """Whether PyOD is there; imports nothing."""
    return find_spec("pyod") is not None
