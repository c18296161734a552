"""Fitting and scoring an autoencoder and a VAE: robustgen beside PyOD, equal networks and epochs, one process.

Both train PyOD's default networks (784 - 64 - 32 - 64 - 784; 784 - 128 - 64 - 32 - 2 and back), ReLU, without PyOD's
batch norm and dropout, which robustgen's do not have, on the same inputs; the parameters are counted. What is timed is
what a user calls: `fit` and `score` here, `fit` and `decision_function` there, in CPU seconds on one thread, at equal
batch sizes and each library at its own (robustgen 128, PyOD 32). PyOD scores its training inputs at the end of its fit,
robustgen holds a tenth out and validates on it after each epoch. Both score by the squared error of the reconstruction.
Rounds alternate; medians and the spread of the ratios are stored.

    pip install pyod
    python -m robustgen_benchmarks.peers.detectors --data fashion-mnist --out detectors_speed.json
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from datetime import UTC, datetime
from functools import partial
from io import StringIO
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor

from robustgen.artifacts import to_json
from robustgen.data.load import load
from robustgen.detectors.making import make
from robustgen.metrics import auroc
from robustgen_benchmarks.machine import describe_machine, versions_with
from robustgen_benchmarks.one_class import images

NETWORKS = {"autoencoder": ("dense:64", 32), "vae": ("dense:128,64,32", 2)}
PAIRS = {"own": (128, 32), "32": (32, 32), "128": (128, 128)}
"""Batch sizes (robustgen, PyOD)."""


def ours(name: str, x: Tensor, epochs: int, batch_size: int) -> tuple[int, Callable[[Tensor], Any]]:
    network, code = NETWORKS[name]
    options = {"network": network, "code": code, "scores": "l2", "epochs": epochs, "batch_size": batch_size}
    detector = make(name, options | ({"likelihood": "fixed-gaussian"} if name == "vae" else {})).fit(x)

    def score(test: Tensor) -> Any:
        with torch.no_grad():
            return torch.cat([detector.score(part) for part in test.split(500)]).numpy()

    return sum(parameter.numel() for parameter in detector.parameters()), score


def theirs(name: str, x: Tensor, epochs: int, batch_size: int) -> tuple[int, Callable[[Tensor], Any]]:
    common = {"epoch_num": epochs, "batch_size": batch_size, "dropout_rate": 0.0, "batch_norm": False, "verbose": 0}
    detector: Any
    if name == "autoencoder":
        from pyod.models.auto_encoder import AutoEncoder

        detector = AutoEncoder(device="cpu", preprocessing=False, **common)
    else:
        from pyod.models.vae import VAE

        detector = VAE(
            device="cpu",
            preprocessing=False,
            **common,
        )
    with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
        detector.fit(x.flatten(1).numpy())
    count = sum(parameter.numel() for parameter in detector.model.parameters())
    return count, lambda test: detector.decision_function(test.flatten(1).numpy())


def timed(call: Callable[[], Any]) -> tuple[float, Any]:
    began = time.process_time()
    found = call()
    return time.process_time() - began, found


Fitted = tuple[int, Callable[[Tensor], Any]]
"""How many parameters, and what gives scores."""

WHO: dict[str, Callable[[str, Tensor, int, int], Fitted]] = {"robustgen": ours, "pyod": theirs}


def measure(who: str, fit: Callable[[], Fitted], test: Tensor, normal: np.ndarray[Any, Any]) -> dict[str, float]:
    """CPU seconds of fit and score, the AUROC and the number of parameters, named by `who`."""
    seconds, (count, score) = timed(fit)
    scoring, scores = timed(partial(score, test))
    found = np.asarray(scores)
    value = auroc(found[normal], found[~normal]).value
    return {f"{who} fit": seconds, f"{who} score": scoring, f"{who} auroc": value, f"{who} parameters": count}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="fashion-mnist", help="a data name or path, as for robustgen fit")
    parser.add_argument("--label", type=int, default=0, help="the class that is normal")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--batches", nargs="+", choices=tuple(PAIRS), default=list(PAIRS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, help="JSON file for the results")
    given = parser.parse_args()
    torch.set_num_threads(1)
    source = load(given.data)
    x, y = images(source, "train", "calibration")
    test, labels = images(source, "test")
    x, normal = x[y == given.label], (labels == given.label).numpy()
    for name in NETWORKS:  # what is imported and allocated once is not part of either
        for run in WHO.values():
            run(name, x[:300], 1, 100)[1](test[:100])
    results: list[dict[str, Any]] = []
    for name in NETWORKS:
        for batches in given.batches:
            sizes = dict(zip(WHO, PAIRS[batches], strict=True))
            rounds = []
            for number in range(given.rounds):
                order = list(WHO) if number % 2 else list(reversed(WHO))
                row: dict[str, float] = {}
                for who in order:
                    row |= measure(who, partial(WHO[who], name, x, given.epochs, sizes[who]), test, normal)
                rounds.append(row)
            found: dict[str, Any] = {"detector": name, "batch_sizes": sizes, "rounds": rounds}
            for what in ("fit", "score"):
                ratios = [row[f"pyod {what}"] / row[f"robustgen {what}"] for row in rounds]
                found[f"{what} ratio"] = {"median": median(ratios), "least": min(ratios), "most": max(ratios)}
            results.append(found)
            last = rounds[-1]
            sys.stdout.write(
                f"{name}, batches {batches}: PyOD / robustgen CPU time: fit {found['fit ratio']['median']:.1f}, "
                f"score {found['score ratio']['median']:.1f}; AUROC {last['pyod auroc']:.3f} / "
                f"{last['robustgen auroc']:.3f}; parameters {last['pyod parameters']} / "
                f"{last['robustgen parameters']}\n"
            )
            sys.stdout.flush()
    if given.out is not None:
        stored = {
            "command": f"python -m robustgen_benchmarks.peers.detectors --data {source.spec.name} "
            f"--label {given.label} "
            f"--epochs {given.epochs} --batches {' '.join(given.batches)} --rounds {given.rounds}",
            "date": datetime.now(UTC).date().isoformat(),
            "data_sha256": source.spec.sha256,
            "machine": describe_machine(),
            "versions": versions_with("pyod"),
            "results": results,
        }
        given.out.write_text(to_json(stored) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
