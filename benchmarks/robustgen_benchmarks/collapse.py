"""How often does a GAN's training fail? Each detector fitted with several seeds on the same images.

Reported of each: whether the monitor called it collapsed (the generator makes a few images only, or fills fewer than
half of the clusters that real ones fill); the variety of its samples (the distance to the nearest other one over that
of real images) and the clusters filled (`modes`); how many classes a classifier finds among 1,000 samples (the
exponential of the entropy; of real images beside it); the Fréchet distance on that classifier's features; and the AUROC
of made-up anomalies that chose the round.

    python -m robustgen_benchmarks.collapse --data digits --model victim/ --detectors gan style-gan --seeds 10
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from statistics import mean

import torch
from torch import Tensor

from robustgen.data.load import load
from robustgen.detectors.adversarial import AdversarialDetector
from robustgen.detectors.codes import as_sampler
from robustgen.detectors.making import make
from robustgen.evaluation.frechet import compare, embedding
from robustgen.models.load import LoadedModel, load_model
from robustgen.training.monitor import collapsed
from robustgen_benchmarks.results_file import ResultsFile


def classes_found(model: LoadedModel, x: Tensor) -> float:
    """The exponential of the entropy of the predicted classes: as many classes as come equally often."""
    with torch.no_grad():
        labels = torch.cat([model.network(part).argmax(1) for part in x.split(500)])
    share = labels.bincount().double() / len(labels)
    return float(torch.special.entr(share).sum().exp())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="digits")
    parser.add_argument("--model", required=True, help="a classifier of the data")
    parser.add_argument("--detectors", nargs="+", default=["gan", "style-gan"])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--preset", default="default")
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    source, model = load(given.data), load_model(given.model)
    train = source.read(source.rows("train")).x
    real = source.read(source.spread("all", 2 * given.samples)).x
    samples = min(given.samples, len(real) // 2)
    embed, _ = embedding(model, torch.device("cpu"))
    classes_of_real = classes_found(model, real)
    file = ResultsFile(
        given.out,
        f"python -m robustgen_benchmarks.collapse --data {source.spec.name} --detectors "
        f"{' '.join(given.detectors)} --seeds {given.seeds} --preset {given.preset} --samples {given.samples}",
        data_sha256=source.spec.sha256,
        classes_of_real=classes_of_real,
    )
    done = file.done("detector", "seed")
    for seed in range(given.seeds):
        for name in given.detectors:
            if (name, seed) in done:
                continue
            began = time.process_time()
            detector = make(name, {"seed": seed, "preset": given.preset}).fit(train)
            assert isinstance(detector, AdversarialDetector)
            with torch.no_grad():
                x = as_sampler(detector, name).sample(samples, seed)
            course = {key: values[-1] for key, values in detector.record.course().items()}
            row = {
                "detector": name,
                "seed": seed,
                "warnings": detector.record.warnings(),
                "collapsed": collapsed(detector.record.history()),
                "classes": classes_found(model, x),
                "frechet": compare(x, real, embed, "classifier").to_json(),
                **course,
                "cpu_seconds": time.process_time() - began,
            }
            file.add(row)
            sys.stderr.write(f"{name} seed {seed}: {row}\n")
    for name in given.detectors:
        own = [row for row in file.results if row["detector"] == name]
        sys.stdout.write(
            f"{name}: {sum(row['collapsed'] for row in own)} of {len(own)} collapsed, "
            f"{mean(row['classes'] for row in own):.1f} classes (real {classes_of_real:.1f}), Fréchet "
            f"distance {mean(row['frechet']['distance'] for row in own):.1f} "
            f"({mean(row['frechet']['real'] for row in own):.1f}), variety "
            f"{mean(row['variety'] for row in own):.2f}, clusters {mean(row['modes'] for row in own):.2f}\n"
        )


if __name__ == "__main__":
    main()
