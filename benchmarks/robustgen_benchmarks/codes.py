"""What codes are good for, measured: counts of hashed codes as novelty, lossy compression, ways between inputs.

For each seed every codec is fitted on the same training inputs. On its code: `simhash` with several numbers of tables,
and the distance to the 5 nearest codes, as detectors of the foreign images; bits and errors of the code as compression;
paths between random pairs of test inputs, judged by a k-means that knows nothing of the codecs. Foreign images: MNIST
(`mnist/mnist.npz` under $ROBUSTGEN_EXTRA_DATA), or any data by --foreign.

    python -m robustgen_benchmarks.codes --codecs autoencoder vae pca --seeds 3 --out codes.json

The JSON is written after every codec and seed, and what it holds already is not run again.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from robustgen.data.load import load
from robustgen.data.source import Source
from robustgen.detectors.calibrated import CalibratedDetector
from robustgen.detectors.making import accepts
from robustgen.evaluation.encoding import encode
from robustgen.evaluation.interpolation import CONTROL, paths
from robustgen.evaluation.rate import rate_distortion
from robustgen.metrics import auroc, tpr_at_fpr
from robustgen_benchmarks.results_file import ResultsFile

BITS = (2, 4, 8, 32)
TABLES = (1, 8, 64)


def apart(normal: Any, foreign: Any) -> dict[str, float]:
    """AUROC, and the share of foreign inputs caught at 5 % false alarms."""
    return {"auroc": auroc(normal, foreign).value, "tpr_at_5": tpr_at_fpr(normal, foreign, 0.05).value}


def novelty(codec: CalibratedDetector, source: Source, foreign: Source, rows: Any, seed: int) -> dict[str, Any]:
    """Detectors on the code against foreign inputs."""
    from sklearn.neighbors import NearestNeighbors

    found: dict[str, Any] = {}
    strange = foreign.spread("test", len(rows))
    for tables in TABLES:
        options = {"network": "none", "tables": tables, "seed": seed}
        detector = CalibratedDetector.fit("simhash", source, options=options, codec=codec)
        scores = [detector.judge(data.read(these).x).score for data, these in ((source, rows), (foreign, strange))]
        found[f"simhash, {tables} tables"] = apart(*scores) | detector.summary()["facts"]
    known, normal, other = (
        encode(codec, data, these).code.numpy()
        for data, these in ((source, source.rows("train")), (source, rows), (foreign, strange))
    )
    near = NearestNeighbors(n_neighbors=5).fit(known)
    found["5 nearest codes"] = apart(*(near.kneighbors(codes)[0].mean(1) for codes in (normal, other)))
    return found


def ways(codec: CalibratedDetector, judge: CalibratedDetector, a: Tensor, b: Tensor) -> dict[str, Any]:
    """Means over paths in a line, and for a VAE in an arc too, with the pixel average beside them."""
    control, line = paths({"line": codec}, a, b, judges={"k-means": judge})
    (_, arc) = paths({"arc": codec}, a, b, along="arc", judges={"k-means": judge})
    return {CONTROL: control.summary(), "line": line.summary(), "arc": arc.summary()}


def measure(name: str, seed: int, source: Source, foreign: Source, given: argparse.Namespace) -> dict[str, Any]:
    """Everything for one codec."""
    wanted = {"code": given.width, "components": given.width, "epochs": given.epochs, "seed": seed}
    options = {option: value for option, value in wanted.items() if accepts(name, option)}
    began = time.process_time()
    codec = CalibratedDetector.fit(name, source, options=options)
    seconds = time.process_time() - began
    judge = CalibratedDetector.fit("k-means", source, options={"seed": seed})
    rows = source.spread("test", given.test)
    random = np.random.Generator(np.random.PCG64(seed))
    pairs = random.permutation(source.rows("test"))[: 2 * given.pairs]
    a, b = (source.read(part).x for part in np.split(pairs, 2))
    loss = rate_distortion(codec, source, rows, BITS).summary()
    return {
        "codec": name,
        "seed": seed,
        "options": options,
        "fit_cpu_seconds": seconds,
        "novelty": novelty(codec, source, foreign, rows, seed),
        "compression": {"lossless": loss["lossless"], "precisions": loss["precisions"], "width": loss["width"]},
        "ways": ways(codec, judge, a, b),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="fashion-mnist", help="a data name or path, as for robustgen fit")
    parser.add_argument("--foreign", help="another; by default MNIST of $ROBUSTGEN_EXTRA_DATA")
    parser.add_argument("--codecs", nargs="+", default=["autoencoder", "pca"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--train", type=int, default=20_000, help="training inputs")
    parser.add_argument("--test", type=int, default=2000, help="test inputs, and foreign ones")
    parser.add_argument("--pairs", type=int, default=500, help="paths")
    parser.add_argument("--width", type=int, default=16, help="of the code")
    parser.add_argument("--epochs", type=int, default=5, help="of training, where there is any")
    parser.add_argument("--out", type=Path, help="JSON file for the results, and to go on from")
    given = parser.parse_args()
    torch.set_num_threads(1)
    whole = load(given.data)
    source = replace(whole, splits=whole.splits | {"train": whole.rows("train")[: given.train]})
    foreign = load(given.foreign or f"{os.environ['ROBUSTGEN_EXTRA_DATA']}/mnist/mnist.npz", like=source.spec)
    file = ResultsFile(
        given.out,
        f"python -m robustgen_benchmarks.codes --data {source.spec.name} --codecs {' '.join(given.codecs)} "
        f"--seeds {given.seeds} --train {given.train} --epochs {given.epochs} --width {given.width}",
        data_sha256=source.spec.sha256,
        foreign=foreign.spec.name,
        foreign_sha256=foreign.spec.sha256,
    )
    done = file.done("codec", "seed")
    for seed in range(given.seeds):
        for name in given.codecs:
            if (name, seed) in done:
                continue
            found = measure(name, seed, source, foreign, given)
            file.add(found)
            best = found["novelty"][f"simhash, {TABLES[-1]} tables"]["auroc"]
            sys.stderr.write(f"{name} seed {seed}: simhash {best:.4f}, {found['fit_cpu_seconds']:.0f} s\n")
    sys.stdout.write(file.text())


if __name__ == "__main__":
    main()
