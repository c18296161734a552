"""Do detectors keep the false-alarm rate that they were asked for, on fresh data?

Each detector is fitted once on the training split; every held-out input (calibration and test splits) is scored once.
`split`: the threshold comes from the calibration split and the realised rate from the test split, as in use. Then all
held-out scores are cut at random into a calibration half and a fresh half, 100 times. Two figures for each rate: the
mean realised rate, which is to be at most the nominal one in expectation; and the share of resamplings within the 95 %
prediction interval of the number of false alarms. That number is beta-binomial: given the calibration half, the rate
follows Beta(k, n + 1 - k) with k = floor((n + 1) fpr) (Vovk 2012, "Conditional validity of inductive conformal
predictors"). Random halves are exchangeable whatever the detector, so that the resamplings try thresholds and ties
(the share is to be 0.95 or a little more, as counts are whole, give or take 0.04), and `split` tries the detector.

    python -m robustgen_benchmarks.calibration --data digits --out calibration.json

The JSON is written after each detector, and what it holds is not run again.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from robustgen.calibration import calibrate
from robustgen.data.load import load
from robustgen.data.source import Source
from robustgen.detectors import DETECTORS
from robustgen.detectors.calibrated import CalibratedDetector
from robustgen.detectors.making import accepts, kind_of
from robustgen.guard import Guard
from robustgen.metrics import Array
from robustgen.models.load import LoadedModel
from robustgen.training.classifier import train
from robustgen.training.descent import Recipe
from robustgen_benchmarks.results_file import ResultsFile

RATES = (0.1, 0.05, 0.01)
EVERY = tuple(name for name in DETECTORS if name != "pair-gan" and not kind_of(name).labelled)
"""All but those that judge pairs of pictures or learn from two domains."""


def interval(n_calibration: int, n_fresh: int, fpr: float, level: float = 0.95) -> tuple[int, int]:
    """The central prediction interval of the number of false alarms among `n_fresh`, for scores without ties."""
    from scipy.stats import betabinom

    k = math.floor((n_calibration + 1) * fpr * (1 + 1e-12))
    low, high = betabinom(n_fresh, k, n_calibration + 1 - k).ppf([(1 - level) / 2, (1 + level) / 2])
    return int(low), int(high)


def resampled(scores: Array, fpr: float, times: int = 100, seed: int = 0) -> dict[str, Any]:
    """What random halves of exchangeable scores give: the mean realised rate, and the share within the interval."""
    rng, half = np.random.default_rng(seed), len(scores) // 2
    fresh = len(scores) - half
    low, high = interval(half, fresh, fpr)
    alarms = []
    for _ in range(times):
        order = rng.permutation(len(scores))
        threshold = calibrate(scores[order[:half]], fpr).value
        alarms.append(int((scores[order[half:]] > threshold).sum()))
    found = np.array(alarms)
    rates = found / fresh
    return {
        "nominal": fpr,
        "mean": float(rates.mean()),
        "standard_error": float(rates.std(ddof=1) / math.sqrt(times)),
        "interval": [low / fresh, high / fresh],
        "within": float(((found >= low) & (found <= high)).mean()),
        "n_calibration": half,
        "n_fresh": fresh,
        "resamplings": times,
        "distinct_scores": len(np.unique(scores)),
    }


def as_split(held: Array, fresh: Array, fpr: float) -> dict[str, Any]:
    """The realised rate on `fresh` scores, the threshold from `held` ones, and whether it lies in its interval."""
    low, high = interval(len(held), len(fresh), fpr)
    alarms = int((fresh > calibrate(held, fpr).value).sum())
    return {
        "realised": alarms / len(fresh),
        "interval": [low / len(fresh), high / len(fresh)],
        "within": low <= alarms <= high,
        "n_calibration": len(held),
        "n_fresh": len(fresh),
    }


def pool(judge: CalibratedDetector | Guard, source: Source, start: int = 0) -> tuple[Array, Array]:
    """Scores of the calibration and of the test inputs. Of a guard of several, the calibration inputs that
    taught it p-values are left out: with `start` 1 those at odd places alone.
    """
    calibration, test = source.rows("calibration")[start :: 1 + start], source.rows("test")
    with torch.no_grad():
        return tuple(  # type: ignore[return-value]
            np.concatenate(
                [judge.score(source.read(rows[k : k + 250]).x).double().numpy() for k in range(0, len(rows), 250)]
            )
            for rows in (calibration, test)
        )


def made(name: str, source: Source, model: LoadedModel) -> tuple[Array, Array]:
    if name.startswith("guard "):
        members = [fit(member, source, model) for member in name.removeprefix("guard ").split("+")]
        return pool(Guard.fit(model, members, source, fpr=0.05), source, start=1)
    return pool(fit(name, source, model), source)


def fit(name: str, source: Source, model: LoadedModel) -> CalibratedDetector:
    options = {"preset": "fast"} if accepts(name, "preset") else {}
    kind = kind_of(name)
    needed = kind.conditional or hasattr(kind, "watch")
    return CalibratedDetector.fit(name, source, options=options, model=model if needed else None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="digits")
    parser.add_argument("--only", default=",".join([*EVERY, "guard pca+knn", "guard pca+knn+autoencoder"]))
    parser.add_argument("--times", type=int, default=100)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    torch.set_num_threads(1)
    source = load(given.data)
    file = ResultsFile(
        given.out,
        f"python -m robustgen_benchmarks.calibration --data {source.spec.name} --only '{given.only}' "
        f"--times {given.times}",
        data_sha256=source.spec.sha256,
    )
    model = train(source, "mlp", recipe=Recipe(epochs=15)).model
    for name in given.only.split(","):
        if name in file.rows:
            continue
        began = time.process_time()
        held, fresh = made(name, source, model)
        scores = np.r_[held, fresh]
        rows = {
            f"{fpr:g}": resampled(scores, fpr, given.times) | {"split": as_split(held, fresh, fpr)} for fpr in RATES
        }
        file.rows[name] = rows | {"cpu_seconds": time.process_time() - began}
        file.save()
        told = ", ".join(
            f"{fpr}: mean {row['mean']:.4f}, within {row['within']:.2f}, split {row['split']['realised']:.4f}"
            for fpr, row in rows.items()
        )
        sys.stdout.write(f"{name}: {told}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
