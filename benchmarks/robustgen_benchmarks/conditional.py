"""Does a VAE that knows the predicted class tell fooled inputs from clean ones, and from merely noisy ones?

One conditional VAE is fitted on labelled training images, and each of its scores tells correctly classified test images
from: successful PGD, whole and limited to the object (pixels above 0), both rounded to bytes; random signs of the same
size in the same places, as a control that fools nobody (Fashion-MNIST's background is exactly 0, so that any change
there is seen); clean images under a wrong label; and foreign ones. Each part of a combination is measured in robust
deviations on held-out images.

    python -m robustgen_benchmarks.conditional --data fashion-mnist --victim victim/ --out conditional.json
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import TensorDataset

from robustgen.attacks.pgd import PGD
from robustgen.data.load import load
from robustgen.detectors.conditional_vae import ConditionalVAEDetector
from robustgen.evaluation.handed_in import fooling_images
from robustgen.metrics import Array, auroc
from robustgen.models.load import load_model
from robustgen.objectives import Model
from robustgen.threat import Norm, ThreatModel
from robustgen_benchmarks.one_class import images
from robustgen_benchmarks.results_file import ResultsFile

PARTS = ["gap", "density", "knn", "elbo", "reconstruction", "ssim", "l2"]
SCORES = [*PARTS, "gap+density", "density+knn", "gap+density+knn", "gap+elbo"]
THREATS: tuple[tuple[Norm, float], ...] = (("linf", 0.1), ("l2", 1.5))


def predicted(network: Model, x: Tensor) -> Tensor:
    """The classifier's labels."""
    with torch.no_grad():
        return torch.cat([network(part).argmax(1) for part in x.split(500)])


def changed(network: Model, x: Tensor, y: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
    """Inputs and the label that each is judged against, by kind."""
    generator = torch.Generator().manual_seed(0)
    found: dict[str, tuple[Tensor, Tensor]] = {}
    for norm, eps in THREATS:
        for kind, still in ((f"pgd {norm} {eps:g}", None), (f"pgd {norm} {eps:g} object", 0.0)):
            made = fooling_images(PGD(threat=ThreatModel(norm, eps, still=still), steps=20), network, x, y)
            label = predicted(network, made)
            found[kind] = made[label != y], label[label != y]
    signs = 2 * torch.randint(0, 2, x.shape, generator=generator) - 1
    noisy = (255 * (x + 0.1 * signs).clamp(0, 1)).round() / 255
    for kind, made in (("signs 0.1", noisy), ("signs 0.1 object", torch.where(x > 0, noisy, x))):
        found[kind] = made, predicted(network, made)
    found["wrong label"] = x, (y + 1) % 10
    for kind, made in (("noise", torch.rand(x.shape, generator=generator)), ("vflip", x.flip(2))):
        found[kind] = made, predicted(network, made)
    return found


def read(detector: ConditionalVAEDetector, x: Tensor, y: Tensor) -> dict[str, Array]:
    """Every part's scores."""
    with torch.no_grad():
        parts = [detector.panel(a, b, PARTS) for a, b in zip(x.split(250), y.split(250), strict=True)]
    return {name: torch.cat([part[name] for part in parts]).double().numpy() for name in PARTS}


def table(results: dict[str, dict[str, float]]) -> str:
    """A Markdown table: a row per score, a column per kind."""
    kinds = list(next(iter(results.values())))
    lines = [f"| score | {' | '.join(kinds)} |", f"|---|{'---|' * len(kinds)}"]
    lines += [f"| {name} | {' | '.join(f'{row[kind]:.3f}' for kind in kinds)} |" for name, row in results.items()]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="fashion-mnist")
    parser.add_argument("--victim", required=True, help="a classifier made by robustgen train")
    parser.add_argument("--train", type=int, default=16_000)
    parser.add_argument("--test", type=int, default=800)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    source, network = load(given.data), load_model(given.victim).network
    x, y = (value[: given.train] for value in images(source, "train"))
    held, test, labels = images(source, "calibration")[0][:1500], *images(source, "test")
    right = (predicted(network, test[: 2 * given.test]) == labels[: 2 * given.test]).nonzero()[:, 0][: given.test]
    test, labels = test[right], labels[right]
    kinds = changed(network, test, labels)
    began = time.process_time()
    detector = ConditionalVAEDetector(epochs=given.epochs, seed=given.seed).fit(TensorDataset(x, y))
    seconds = time.process_time() - began
    sys.stderr.write(f"fitted in {seconds:.0f} CPU seconds\n")
    units = {
        name: (float(np.median(scores)), 1.4826 * float(np.median(np.abs(scores - np.median(scores)))))
        for name, scores in read(detector, held, predicted(network, held)).items()
    }

    def combined(found: dict[str, Array]) -> dict[str, Any]:
        return {score: sum((found[p] - units[p][0]) / units[p][1] for p in score.split("+")) for score in SCORES}

    inside = combined(read(detector, test, labels))
    outside = {kind: combined(read(detector, *pair)) for kind, pair in kinds.items()}
    results = {
        score: {kind: auroc(inside[score], found[score]).value for kind, found in outside.items()} for score in SCORES
    }
    ResultsFile(
        given.out,
        f"python -m robustgen_benchmarks.conditional --data {source.spec.name} --victim VICTIM "
        f"--train {given.train} --test {given.test} --epochs {given.epochs} --seed {given.seed}",
        go_on=False,
        data_sha256=source.spec.sha256,
        victim_sha256=load_model(given.victim).sha256,
        fit_cpu_seconds=seconds,
        n={"clean": len(test), **{kind: len(pair[0]) for kind, pair in kinds.items()}},
        auroc=results,
    ).save()
    sys.stdout.write(table(results))


if __name__ == "__main__":
    main()
