"""One class of a labelled image set is normal, the others are not: robustgen's detectors beside PyOD's, same inputs.

Each detector is fitted on all official training images of one class (no labels, no anomalies) and scores the whole
official test split; its AUROC tells that class from the nine others. Seeds change the detector, not the images:
what draws nothing is run once.

    pip install pyod
    python -m robustgen_benchmarks.one_class --data fashion-mnist --seeds 3 --out one_class.json

The JSON is written after every fit, and what it holds already is not run again.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import torch
from torch import Tensor

from robustgen.data.load import load
from robustgen.data.source import Source, Split
from robustgen.detectors import DETECTORS
from robustgen.detectors.making import accepts, make
from robustgen.metrics import auroc, tpr_at_fpr
from robustgen_benchmarks import pyod_peers
from robustgen_benchmarks.results_file import ResultsFile

Scores = Callable[[Tensor, Tensor, int], np.ndarray[Any, Any]]
"""(training images of the normal class, test images, seed) -> one score per test image"""

PEERS = ("PCA", "CBLOF", "IForest", "KNN", "AutoEncoder", "VAE", "DeepSVDD")


def ours(name: str, options: dict[str, Any]) -> Scores:
    """A robustgen detector with `options`."""

    def run(x: Tensor, test: Tensor, seed: int) -> np.ndarray[Any, Any]:
        detector = make(name, options | ({"seed": seed} if accepts(name, "seed") else {})).fit(x)
        with torch.no_grad():
            return torch.cat([detector.score(part) for part in test.split(500)]).double().numpy()

    return run


def pyod(name: str) -> Scores:
    """A PyOD detector with its own defaults, on flattened images."""
    found = pyod_peers.pyod(name)
    return lambda x, test, seed: found(x.flatten(1).numpy(), test.flatten(1).numpy(), seed)


def images(source: Source, *splits: Split) -> tuple[Tensor, Tensor]:
    """All inputs and labels of the splits."""
    batches = [batch for split in splits for batch in source.batches(split, 5000)]
    labels = [batch.y for batch in batches if batch.y is not None]
    return torch.cat([batch.x for batch in batches]), torch.cat(labels)


def measure(run: Scores, x: Tensor, test: Tensor, normal: Tensor, seed: int) -> dict[str, Any]:
    """AUROC, the anomalies caught at 5 % false alarms, and CPU seconds; of what crashes, the error alone."""
    began = time.process_time()
    try:
        scores = run(x, test, seed)
    except ValueError as error:  # PyOD's CBLOF, with some seeds
        return {"crash": f"{type(error).__name__}: {error}"[:200]}
    seconds = time.process_time() - began
    if not np.isfinite(scores).all():
        return {"auroc": float("nan"), "tpr_at_5": float("nan"), "cpu_seconds": seconds}
    inside, outside = scores[normal.numpy()], scores[~normal.numpy()]
    return {
        "auroc": auroc(inside, outside).value,
        "tpr_at_5": tpr_at_fpr(inside, outside, 0.05).value,
        "cpu_seconds": seconds,
    }


def table(results: list[dict[str, Any]]) -> str:
    """A Markdown table: a row per detector, a column per class (means over the seeds that did not crash), best mean
    first.
    """
    results = [result for result in results if "crash" not in result]
    classes = sorted({result["class"] for result in results})
    rows = []
    for name in dict.fromkeys(result["detector"] for result in results):
        own = [result for result in results if result["detector"] == name]
        cells = [[r["auroc"] for r in own if r["class"] == number] for number in classes]
        if all(cells):
            means = [mean(cell) for cell in cells]
            caught, seconds = mean(r["tpr_at_5"] for r in own), mean(r["cpu_seconds"] for r in own)
            rows.append((mean(means), name, means, caught, seconds))
    lines = [
        f"| detector | {' | '.join(map(str, classes))} | mean | caught at 5 % | CPU s |",
        f"|---|{'---|' * (len(classes) + 3)}",
    ]
    for average, name, means, caught, seconds in sorted(rows, key=lambda row: -row[0]):
        by_class = " | ".join(f"{value:.3f}" for value in means)
        lines.append(f"| {name} | {by_class} | {average:.4f} | {caught:.1%} | {seconds:.1f} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="fashion-mnist", help="a data name or path, as for robustgen fit")
    parser.add_argument("--classes", type=int, nargs="+", default=list(range(10)))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--detectors", nargs="*", default=list(DETECTORS), help="NAME or NAME:OPTION=VALUE,...")
    parser.add_argument("--peers", nargs="*", default=list(PEERS))
    parser.add_argument("--out", type=Path, help="JSON file for the results, and to go on from")
    given = parser.parse_args()
    torch.set_num_threads(1)
    source = load(given.data)
    x, y = images(source, "train", "calibration")
    test, labels = images(source, "test")
    runs: dict[str, Scores] = {}
    seeds: dict[str, range] = {}
    for word in given.detectors:
        name, _, rest = word.partition(":")
        options = dict(part.split("=") for part in rest.split(",") if part)
        runs[word] = ours(name, {key: int(v) if v.isdigit() else v for key, v in options.items()})
        seeds[word] = range(given.seeds if accepts(name, "seed") else 1)
    for name in given.peers:
        runs[f"PyOD {name}"] = pyod(name)
        seeds[f"PyOD {name}"] = range(1 if name in pyod_peers.UNSEEDED else given.seeds)
    words = [f"--{name} {' '.join(map(str, getattr(given, name)))}" for name in ("classes", "detectors", "peers")]
    command = (
        f"python -m robustgen_benchmarks.one_class --data {source.spec.name} --seeds {given.seeds} {' '.join(words)}"
    )
    file = ResultsFile(given.out, command, "pyod", data_sha256=source.spec.sha256)
    done = file.done("detector", "class", "seed")
    for number in given.classes:
        for name, run in runs.items():
            for seed in seeds[name]:
                if (name, number, seed) not in done:
                    found = measure(run, x[y == number], test, labels == number, seed)
                    file.add({"detector": name, "class": number, "seed": seed, **found})
                    told = found.get("crash") or f"{found['auroc']:.4f}"
                    sys.stderr.write(f"class {number} seed {seed} {name}: {told}\n")
    sys.stdout.write(table(file.results))


if __name__ == "__main__":
    main()
