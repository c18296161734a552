"""An autoencoder and a GAN's discriminator together: one class of a labelled image set against the others.

As `one_class`, but the product's `fusion` of several members is fitted once for each class and seed, without a second
fit, and all of its ways to combine are read off it, beside its members alone (each fitted on nine tenths of the
training inputs; the rest is what the fusion measures them on).

    python -m robustgen_benchmarks.one_class_fusion --data fashion-mnist --members autoencoder gan --out fusion.json
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import get_args

import torch

from robustgen.data.load import load
from robustgen.detectors.base import Detector
from robustgen.detectors.fusion import Combine, FusionDetector
from robustgen.metrics import auroc, tpr_at_fpr
from robustgen_benchmarks.one_class import images, table
from robustgen_benchmarks.results_file import ResultsFile


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="fashion-mnist", help="a data name or path, as for robustgen fit")
    parser.add_argument("--classes", type=int, nargs="+", default=list(range(10)))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--members", nargs="+", default=["autoencoder", "gan"])
    parser.add_argument("--out", type=Path, help="JSON file for the results, and to go on from")
    given = parser.parse_args()
    torch.set_num_threads(1)
    source = load(given.data)
    x, y = images(source, "train", "calibration")
    test, labels = images(source, "test")
    file = ResultsFile(
        given.out,
        f"python -m robustgen_benchmarks.one_class_fusion --data {source.spec.name} --members "
        f"{' '.join(given.members)} --seeds {' '.join(map(str, given.seeds))}",
        "pyod",
        data_sha256=source.spec.sha256,
    )
    done = file.done("class", "seed")
    for seed in given.seeds:
        for number in given.classes:
            if (number, seed) in done:
                continue
            began = time.process_time()
            fused = FusionDetector(members=",".join(given.members), refit=False, seed=seed).fit(x[y == number])
            seconds = time.process_time() - began
            rows: dict[str, torch.Tensor] = {}
            with torch.no_grad():
                for name, member in zip(given.members, fused.parts, strict=True):
                    assert isinstance(member, Detector)
                    rows[f"{name}, as a member"] = torch.cat([member.score(part) for part in test.split(500)])
                for combine in get_args(Combine):
                    fused.combine = combine
                    rows[f"fusion, {combine}"] = torch.cat([fused.score(part) for part in test.split(500)])
            results = []
            for name, scores in rows.items():
                inside, outside = scores[labels == number].double().numpy(), scores[labels != number].double().numpy()
                found = {
                    "auroc": auroc(inside, outside).value,
                    "tpr_at_5": tpr_at_fpr(inside, outside, 0.05).value,
                    "cpu_seconds": seconds,
                }
                results.append({"detector": name, "class": number, "seed": seed, **found})
                sys.stderr.write(f"class {number} seed {seed} {name}: {found['auroc']:.4f}\n")
            file.add(*results)
    sys.stdout.write(table(file.results))


if __name__ == "__main__":
    main()
