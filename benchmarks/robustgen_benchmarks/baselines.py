"""What a detector has to beat: classifiers trained against attacks, and purified ones, each attacked by who knows it.

`trained NAME`: the plain classifier, and the same trained by each way of `robustgen train --adversarial`. `purified
NAME`: the plain classifier behind what a detector rebuilds of an input (MagNet's reformer, Defense-GAN with an
encoder). Robust accuracy at Linf `--eps` is over all test inputs: `oblivious` counts those that PGD, made on the plain
classifier, leaves right; `adaptive` those that neither Auto-PGD (cross-entropy; and towards each wrong class) nor
Square takes, through all of it, each on what the one before left.

    python -m robustgen_benchmarks.baselines --data digits --trained fast-fgsm pgd trades --out baselines.json
    python -m robustgen_benchmarks.baselines --data fashion-mnist --victims victims/ --out baselines_fashion.json

A row that is in the file already is not measured again.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from robustgen.attacks.apgd import APGD, APGDT
from robustgen.attacks.base import Attack
from robustgen.attacks.passes import evaluated
from robustgen.attacks.pgd import PGD
from robustgen.attacks.square import Square
from robustgen.data.load import load
from robustgen.data.source import Source
from robustgen.detectors.calibrated import CalibratedDetector
from robustgen.evaluation.adversaries import adversary
from robustgen.guard.purified import Purified
from robustgen.metrics import proportion
from robustgen.threat import ThreatModel
from robustgen.training.classifier import default_epochs, train
from robustgen.training.descent import Recipe
from robustgen_benchmarks.results_file import ResultsFile
from robustgen_benchmarks.victims import first, predictions, victims


def trained(source: Source, name: str, arch: str, eps: float) -> nn.Module:
    """A classifier trained by way `name`, plainly if that is "plain"."""
    against, config = (None, None) if name == "plain" else adversary(name, source.spec, eps=eps)
    recipe = Recipe(epochs=default_epochs(len(source.rows("train"))))
    return train(source, arch, recipe=recipe, adversary=against, adversary_config=config).model.network


def attackers(threat: ThreatModel, classes: int, queries: int) -> dict[str, Attack]:
    """Who knows the whole: each is shown what the one before left."""
    return {
        "apgd-ce": APGD(threat=threat),
        "apgd-t": APGDT(threat=threat, targets=classes - 1),
        "square": Square(threat=threat, queries=queries),
    }


def measured(network: nn.Module, plain: nn.Module, x: Tensor, y: Tensor, eps: float, queries: int) -> dict[str, Any]:
    """Clean and robust accuracies of a network, as the file's head says."""
    threat, began = ThreatModel("linf", eps), time.process_time()
    with evaluated(plain, channels_last=True), evaluated(network, channels_last=True):
        held = predictions(network, x) == y
        clean, classes = int(held.sum()), int(network(x[:1]).shape[1])
        shown = PGD(threat=threat, steps=40, mode="max-loss")(plain, x, y)
        blind = int((held & (predictions(network, shown) == y)).sum())
        left = {}
        for name, attack in attackers(threat, classes, queries).items():
            row = held.nonzero()[:, 0]
            if len(row):
                held[row] = predictions(network, attack(network, x[row], y[row])) == y[row]
            left[name] = int(held.sum())
    return {
        "n": len(x),
        "clean": proportion(clean, len(x))._asdict(),
        "oblivious": proportion(blind, len(x))._asdict(),
        "adaptive": proportion(left["square"], len(x))._asdict(),
        "left_by": left,
        "attack_cpu_seconds": time.process_time() - began,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="digits")
    parser.add_argument("--arch", default="small-cnn")
    parser.add_argument("--victims", type=Path, help="where plain and fast-fgsm classifiers are kept")
    parser.add_argument("--trained", nargs="*", default=["fast-fgsm"])
    parser.add_argument("--purified", nargs="*", default=["autoencoder", "denoising-autoencoder", "vae", "gan"])
    parser.add_argument("--eps", type=float, default=0.1)
    parser.add_argument("--n", type=int, default=300)
    parser.add_argument("--queries", type=int, default=500)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    torch.set_num_threads(1)
    source = load(given.data)
    batch = first(source, given.n)
    file = ResultsFile(
        given.out,
        f"python -m robustgen_benchmarks.baselines --data {source.spec.name} --arch {given.arch} "
        f"{'' if given.victims is None else '--victims victims/ '}--trained {' '.join(given.trained)} "
        f"--purified {' '.join(given.purified)} --eps {given.eps:g} --n {given.n} --queries {given.queries}",
        data_sha256=source.spec.sha256,
    )
    kept = {} if given.victims is None else victims(source, given.victims)
    ready = {"plain": kept["plain"], "fast-fgsm": kept["adversarial"]} if kept else {}
    plain = ready.get("plain") or trained(source, "plain", given.arch, given.eps)
    jobs = [("trained", name) for name in ("plain", *given.trained)] + [("purified", name) for name in given.purified]
    for how, name in jobs:
        key = f"{how} {name}"
        if key in file.rows:
            continue
        began = time.process_time()
        if how == "purified":
            network: nn.Module = Purified(plain, CalibratedDetector.fit(name, source))
        else:
            network = plain if name == "plain" else ready.get(name) or trained(source, name, given.arch, given.eps)
        fit = None if how == "trained" and name in ready else time.process_time() - began
        row = measured(network, plain, batch.x, batch.y, given.eps, given.queries)
        file.rows[key] = row | {"fit_cpu_seconds": fit}
        file.save()
        told = ", ".join(f"{word} {row[word]['value']:.3f}" for word in ("clean", "oblivious", "adaptive"))
        sys.stdout.write(f"{key}: {told} {row['left_by']}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
