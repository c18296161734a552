"""Anomalies in tables: robustgen's detectors beside PyOD's on ADBench's classical sets, same rows, same run.

Protocols:
- one-class: a random half of the normal rows to fit, the other half and all anomalies to test; columns standardised by
  the rows fitted on.
- unsupervised: 70 % of all rows to fit, anomalies among them and not named, 30 % to test, anomalies in proportion;
  columns scaled to [0, 1] by the rows fitted on (ADBench: Han et al. 2022).
- dte: the "semi-supervised" protocol of Livernoche et al. 2024 ("On Diffusion Modeling for Anomaly Detection"), whose
  table our knn and lof are to reproduce: the first half of the normal rows in file order to fit, the rest to test; sets
  of fewer than 1,000 rows are first drawn to 1,000 with replacement; columns standardised.

    pip install 'robustgen[pyod]'
    python -m robustgen_benchmarks.tables --data adbench/ --protocols one-class unsupervised --seeds 3 --out tables.json
    python -m robustgen_benchmarks.tables --data adbench/ --protocols dte --seeds 1 --out tables_dte.json

`--data` is a folder of ADBench's files (NUMBER_NAME.npz with X and y). The JSON is written after every fit, and what
it holds already is not run again.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from robustgen.detectors.making import accepts, make
from robustgen.errors import RobustgenError
from robustgen.metrics import auroc, tpr_at_fpr
from robustgen_benchmarks.dte_published import KNN, LOF, PUBLISHED
from robustgen_benchmarks.pyod_peers import GANS, PYOD, pyod
from robustgen_benchmarks.results_file import ResultsFile

Values = npt.NDArray[Any]
Scores = Callable[[Values, Values, int], Values]
"""(rows to fit, rows to test, seed) -> one score per row to test"""

TWELVE = [
    "Ionosphere",
    "breastw",
    "cardio",
    "glass",
    "letter",
    "mammography",
    "optdigits",
    "pendigits",
    "satellite",
    "satimage-2",
    "thyroid",
    "vowels",
]
OURS = [
    "fusion",
    "knn",
    "lof",
    "k-means",
    "pca",
    "kernel-pca",
    "mahalanobis",
    "gaussian-mixture",
    "one-class-svm",
    "isolation-forest",
    "autoencoder",
]


class Cell(NamedTuple):
    """Rows to fit, rows to test, and which of the latter are anomalies."""

    train: Values
    test: Values
    odd: Values


def one_class(x: Values, y: Values, seed: int) -> Cell:
    from sklearn.preprocessing import StandardScaler

    normal = np.random.default_rng(seed).permutation(np.flatnonzero(y == 0))
    train, rest = np.split(normal, [len(normal) // 2])
    test = np.concatenate([rest, np.flatnonzero(y == 1)])
    scale = StandardScaler().fit(x[train])
    return Cell(scale.transform(x[train]), scale.transform(x[test]), y[test] == 1)


def unsupervised(x: Values, y: Values, seed: int) -> Cell:
    from sklearn.model_selection import train_test_split
    from sklearn.preprocessing import MinMaxScaler

    train, test = train_test_split(np.arange(len(y)), test_size=0.3, random_state=seed, stratify=y)
    scale = MinMaxScaler().fit(x[train])
    return Cell(scale.transform(x[train]), scale.transform(x[test]), y[test] == 1)


def dte(x: Values, y: Values, seed: int) -> Cell:
    from sklearn.preprocessing import StandardScaler

    if len(y) < 1000:
        drawn = np.random.RandomState(seed).choice(np.arange(len(y)), 1000, replace=True)  # as theirs draws
        x, y = x[drawn], y[drawn]
    normal, odd = np.flatnonzero(y == 0), np.flatnonzero(y == 1)
    half = round(0.5 * len(normal))
    train, test = normal[:half], np.concatenate([normal[half:], odd])
    scale = StandardScaler().fit(x[train])
    return Cell(scale.transform(x[train]), scale.transform(x[test]), y[test] == 1)


PROTOCOLS: dict[str, Callable[[Values, Values, int], Cell]] = {
    "one-class": one_class,
    "unsupervised": unsupervised,
    "dte": dte,
}


def ours(word: str) -> Scores:
    """A robustgen detector, written NAME or NAME:OPTION=VALUE:OPTION=VALUE."""
    name, *pairs = word.split(":")
    options: dict[str, Any] = {}
    for pair in pairs:
        option, _, text = pair.partition("=")
        options[option] = int(text) if text.isdigit() else text

    def run(train: Values, test: Values, seed: int) -> Values:
        detector = make(name, options | ({"seed": seed} if accepts(name, "seed") else {}))
        detector.fit(torch.from_numpy(train.astype(np.float32)))
        rows = torch.from_numpy(test.astype(np.float32))
        with torch.no_grad():
            return torch.cat([detector.score(part) for part in rows.split(500)]).double().numpy()

    return run


def measure(run: Scores, cell: Cell, seed: int) -> dict[str, Any]:
    """AUROC (an infinite or missing score counts as the highest), how many scores are not finite, CPU seconds; or the
    error that it stopped with."""
    began = time.process_time()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            scores = run(cell.train, cell.test, seed).astype(np.float64)
    except (RobustgenError, ValueError, RuntimeError, UnboundLocalError, IndexError, ArithmeticError) as error:
        return {"crash": f"{type(error).__name__}: {error}"[:200]}
    seconds = time.process_time() - began
    infinite = int((~np.isfinite(scores)).sum())
    scores = np.nan_to_num(scores, nan=np.finfo(np.float64).max, posinf=np.finfo(np.float64).max)
    inside, outside = scores[~cell.odd], scores[cell.odd]
    return {
        "auroc": auroc(inside, outside).value,
        "tpr_at_5": tpr_at_fpr(inside, outside, 0.05).value,
        "infinite": infinite,
        "cpu_seconds": round(seconds, 3),
    }


def table(results: list[dict[str, Any]], protocol: str) -> str:
    """A Markdown table: a row per detector, a column per set (means over the seeds), best mean first."""
    results = [result for result in results if result["protocol"] == protocol]
    sets = list(dict.fromkeys(result["set"] for result in results))
    rows = []
    for name in dict.fromkeys(result["detector"] for result in results):
        own = [result for result in results if result["detector"] == name]
        ran = [result for result in own if "auroc" in result]
        cells = [[r["auroc"] for r in ran if r["set"] == place] for place in sets]
        if all(cells):
            broken = f"{len(own) - len(ran)} / {sum(r['infinite'] > 0 for r in ran)}"
            seconds = mean(r["cpu_seconds"] for r in ran)
            rows.append((mean(map(mean, cells)), name, [mean(cell) for cell in cells], broken, seconds, len(own)))
    lines = [
        f"| {protocol} | {' | '.join(sets)} | mean | crashed / infinite of cells | CPU s |",
        f"|---|{'---|' * (len(sets) + 3)}",
    ]
    for average, name, means, broken, seconds, n in sorted(rows, key=lambda row: -row[0]):
        by_set = " | ".join(f"{value:.3f}" for value in means)
        lines.append(f"| {name} | {by_set} | {average:.4f} | {broken} of {n} | {seconds:.1f} |")
    return "\n".join(lines) + "\n"


def against_published(results: list[dict[str, Any]]) -> str:
    """A Markdown table: ours beside the published AUROC in percent, by set."""
    found = {(r["detector"], r["set"]): 100 * r["auroc"] for r in results if r["protocol"] == "dte" and "auroc" in r}
    lines = ["| set | kNN ours | published | LOF ours | published |", "|---|---|---|---|---|"]
    for name, figures in PUBLISHED.items():
        cells = [found.get((word, name)) for word in (KNN, LOF)]
        if None not in cells:
            pairs = " | ".join(f"{ours:.2f} | {theirs:.2f}" for ours, theirs in zip(cells, figures, strict=True))
            lines.append(f"| {name} | {pairs} |")
    return "\n".join(lines) + "\n"


def read(folder: Path, name: str) -> tuple[Values, Values]:
    """X and y of a set. Raises `FileNotFoundError` without it."""
    path = next((path for path in sorted(folder.glob("*.npz")) if path.stem.partition("_")[2] == name), None)
    if path is None:
        raise FileNotFoundError(f"no NUMBER_{name}.npz in {folder}: get ADBench's classical data sets")
    with np.load(path) as arrays:
        return arrays["X"].astype(np.float64), arrays["y"].astype(np.int64)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="a folder of ADBench's .npz files")
    parser.add_argument("--sets", nargs="+", help="by default twelve, for dte those with published figures")
    parser.add_argument("--protocols", nargs="+", choices=list(PROTOCOLS), default=["one-class", "unsupervised"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--detectors", nargs="*", help="NAME or NAME:OPTION=VALUE:...; by default all, for dte two")
    parser.add_argument("--peers", nargs="*", choices=[*PYOD, *GANS], help="by default all but GANs, for dte none")
    parser.add_argument("--out", type=Path, help="JSON file for the results, and to go on from")
    given = parser.parse_args()
    torch.set_num_threads(1)
    alone = given.protocols == ["dte"]
    sets = given.sets or (list(PUBLISHED) if alone else TWELVE)
    detectors = ([KNN, LOF] if alone else OURS) if given.detectors is None else given.detectors
    peers = ([] if alone else list(PYOD)) if given.peers is None else given.peers
    runs: dict[str, Scores] = {word: ours(word) for word in detectors}
    runs |= {f"PyOD {name}": pyod(name) for name in peers}
    file = ResultsFile(
        given.out,
        f"python -m robustgen_benchmarks.tables --data adbench/ --protocols {' '.join(given.protocols)} "
        f"--seeds {given.seeds} --sets {' '.join(sets)} --detectors {' '.join(detectors)} --peers {' '.join(peers)}",
        "pyod",
    )
    done = file.done("detector", "set", "protocol", "seed")
    for seed in range(given.seeds):
        for name in sets:
            x, y = read(given.data, name)
            for protocol in given.protocols:
                cell = PROTOCOLS[protocol](x, y, seed)
                for word, run in runs.items():
                    if (word, name, protocol, seed) not in done:
                        found = measure(run, cell, seed)
                        file.add({"detector": word, "set": name, "protocol": protocol, "seed": seed, **found})
                        said = f"{found['auroc']:.4f}" if "auroc" in found else found["crash"]
                        sys.stderr.write(f"{name} {protocol} seed {seed} {word}: {said}\n")
    for protocol in given.protocols:
        sys.stdout.write(table(file.results, protocol) + "\n")
    if "dte" in given.protocols:
        sys.stdout.write(against_published(file.results))


if __name__ == "__main__":
    main()
