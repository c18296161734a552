"""Fitting and scoring an autoencoder and a VAE: robustgen beside PyOD, equal networks and epochs, one process.

Both train PyOD's default networks (D - 64 - 32 - 64 - D; D - 128 - 64 - 32 - 2 and back; D is the number of columns,
784 for small images), ReLU, without PyOD's batch norm and dropout, which robustgen's do not have, on the same inputs;
the parameters are counted. What is timed is what a user calls: `fit` and `score` here, `fit` and `decision_function`
there, at equal batch sizes and each library at its own (robustgen 128, PyOD 32): CPU seconds on one thread, or with
`--threads` the clock's on several, which both libraries may use. PyOD scores its training inputs at the end of its fit,
robustgen holds a tenth out and validates on it after each epoch. Both score by the squared error of the reconstruction.
Beside `score` stands what the linear layers of the same network take alone, without activations and errors: no program
that does these products in float32 as fast as torch is further ahead of PyOD than that. Rounds alternate; medians and
the spread of the ratios are stored.

    pip install pyod
    python -m robustgen_benchmarks.peers.detectors --data fashion-mnist shuttle.npz --out detectors_speed.json
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from functools import partial
from io import StringIO
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from robustgen.data.load import load
from robustgen.detectors.making import make
from robustgen.metrics import auroc
from robustgen_benchmarks.one_class import images
from robustgen_benchmarks.results_file import ResultsFile

NETWORKS = {"autoencoder": ("dense:64", 32), "vae": ("dense:128,64,32", 2)}
PAIRS = {"own": (128, 32), "32": (32, 32), "128": (128, 128)}
"""Batch sizes (robustgen, PyOD)."""
RATIOS = {"fit": ("fit", "fit"), "score": ("score", "score"), "most": ("score", "products")}
"""What of PyOD's is divided by what of ours."""


class Fitted(NamedTuple):
    """How many parameters, what gives scores, and, of ours, what only does the network's matrix products."""

    parameters: int
    score: Callable[[Tensor], Any]
    products: Callable[[Tensor], Any] | None = None


def ours(name: str, x: Tensor, epochs: int, batch_size: int) -> Fitted:
    network, code = NETWORKS[name]
    options = {"network": network, "code": code, "scores": "l2", "epochs": epochs, "batch_size": batch_size}
    detector = make(name, options | ({"likelihood": "fixed-gaussian"} if name == "vae" else {})).fit(x)

    def score(test: Tensor) -> Any:
        with torch.no_grad():
            return torch.cat([detector.score(part) for part in test.split(500)]).numpy()

    layers = [layer for layer in detector.modules() if isinstance(layer, nn.Linear)]

    def products(test: Tensor) -> None:
        with torch.no_grad():
            for part in test.flatten(1).split(500):
                for layer in layers:
                    part = layer(part[:, : layer.in_features])  # of a VAE's posterior, the means

    return Fitted(sum(parameter.numel() for parameter in detector.parameters()), score, products)


def theirs(name: str, x: Tensor, epochs: int, batch_size: int) -> Fitted:
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
    return Fitted(count, lambda test: detector.decision_function(test.flatten(1).numpy()))


def timed(call: Callable[[], Any]) -> tuple[float, Any]:
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    began = clock()
    found = call()
    return clock() - began, found


WHO: dict[str, Callable[[str, Tensor, int, int], Fitted]] = {"robustgen": ours, "pyod": theirs}


def measure(who: str, fit: Callable[[], Fitted], test: Tensor, normal: np.ndarray[Any, Any]) -> dict[str, float]:
    """Seconds of fit and score (the median of five), the AUROC and the number of parameters, named by `who`."""
    seconds, fitted = timed(fit)
    scoring = [timed(partial(fitted.score, test)) for _ in range(5)]
    found = np.asarray(scoring[0][1])
    row = {
        f"{who} fit": seconds,
        f"{who} score": median(taken for taken, _ in scoring),
        f"{who} auroc": auroc(found[normal], found[~normal]).value,
        f"{who} parameters": fitted.parameters,
    }
    if fitted.products is not None:
        row[f"{who} products"] = median(timed(partial(fitted.products, test))[0] for _ in range(5))
    return row


def compare(
    name: str, batches: str, data: tuple[Tensor, Tensor, np.ndarray[Any, Any]], epochs: int, rounds: int
) -> dict[str, Any]:
    """Rounds of one detector, ours and theirs in turn, and the ratios of their times. `data`: the inputs to fit on, the
    inputs to score, and which of these are normal.
    """
    x, test, normal = data
    sizes = dict(zip(WHO, PAIRS[batches], strict=True))
    rows = []
    for number in range(rounds):
        order = list(WHO) if number % 2 else list(reversed(WHO))
        row: dict[str, float] = {}
        for who in order:
            row |= measure(who, partial(WHO[who], name, x, epochs, sizes[who]), test, normal)
        rows.append(row)
    found: dict[str, Any] = {"detector": name, "batch_sizes": sizes, "rounds": rows}
    for what, (of_theirs, of_ours) in RATIOS.items():
        ratios = [row[f"pyod {of_theirs}"] / row[f"robustgen {of_ours}"] for row in rows]
        found[f"{what} ratio"] = {"median": median(ratios), "least": min(ratios), "most": max(ratios)}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", nargs="+", default=["fashion-mnist"], help="data names or paths, as for robustgen fit"
    )
    parser.add_argument("--label", type=int, default=0, help="the class that is normal")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--batches", nargs="+", choices=tuple(PAIRS), default=list(PAIRS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, help="JSON file for the results")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    sources = [load(spec) for spec in given.data]
    file = ResultsFile(
        given.out,
        f"python -m robustgen_benchmarks.peers.detectors --data {' '.join(source.spec.name for source in sources)} "
        f"--label {given.label} --epochs {given.epochs} --batches {' '.join(given.batches)} --rounds {given.rounds} "
        f"--threads {given.threads}",
        "pyod",
        go_on=False,
    )
    for source in sources:
        x, y = images(source, "train", "calibration")
        test, labels = images(source, "test")
        data = x[y == given.label], test, (labels == given.label).numpy()
        for name in NETWORKS:  # what is imported and allocated once is not part of either
            for run in WHO.values():
                run(name, x[:300], 1, 100).score(test[:100])
            for batches in given.batches:
                found = compare(name, batches, data, given.epochs, given.rounds)
                file.add({"data": source.spec.name, "data_sha256": source.spec.sha256} | found)
                last = found["rounds"][-1]
                sys.stdout.write(
                    f"{source.spec.name}, {name}, batches {batches}: PyOD / robustgen time: "
                    f"fit {found['fit ratio']['median']:.1f}, score {found['score ratio']['median']:.1f}, "
                    f"at most {found['most ratio']['median']:.1f}; "
                    f"AUROC {last['pyod auroc']:.3f} / {last['robustgen auroc']:.3f}; "
                    f"parameters {last['pyod parameters']} / {last['robustgen parameters']}\n"
                )
                sys.stdout.flush()


if __name__ == "__main__":
    main()
