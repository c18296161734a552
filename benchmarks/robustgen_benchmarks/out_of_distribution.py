"""Fashion-MNIST is normal; MNIST, Omniglot, noise, blank and constant images are not: a VAE's scores side by side.

The raw likelihood (elbo, iwae) takes simple foreign images for more normal than the ones it was trained on (Nalisnick
et al. 2019); the default must not. Flips are the near case: the same images upside down or mirrored. For each
likelihood one VAE is fitted and all of its scores are read; the default autoencoder is beside it.

Detectors that need more get it: `conditional-gan` and `gat` the labels in training and a classifier's answers in use,
`pair-gan` every image below its edge map, `cycle-gan` the classifier and, as the other domain, what PGD (Linf 0.1)
makes against it of a third of the images; its readings are told one by one. `PyOD:NAME` is a peer with its own
defaults, on flattened images.

    export ROBUSTGEN_EXTRA_DATA=FOLDER  # with mnist/mnist.npz (x_test) and omniglot/*.npz (images)
    python -m robustgen_benchmarks.out_of_distribution --data fashion-mnist --out out_of_distribution.json

The JSON is written after every fit, and what it holds already is not run again.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from robustgen.data.edges import edge_map
from robustgen.data.load import load
from robustgen.detectors.base import Detector
from robustgen.detectors.cycle_gan import CycleGANDetector
from robustgen.detectors.making import accepts, make
from robustgen.detectors.vae import VAEDetector
from robustgen.metrics import auroc
from robustgen.models.likelihoods import LIKELIHOODS
from robustgen_benchmarks import pyod_peers
from robustgen_benchmarks.cycles import EPS, attacked
from robustgen_benchmarks.one_class import images
from robustgen_benchmarks.results_file import ResultsFile
from robustgen_benchmarks.victims import predictions, victims

Scores = Callable[[Tensor], dict[str, Tensor]]
REGRET = "regret"  # some hundred times as dear as the others


def foreign(test: Tensor, n: int) -> dict[str, Tensor]:
    """Inputs that are not normal, at most `n` of each kind, quantised to bytes as images are."""
    folder = Path(os.environ.get("ROBUSTGEN_EXTRA_DATA", "."))
    if not (folder / "mnist/mnist.npz").is_file():
        sys.exit("set ROBUSTGEN_EXTRA_DATA to a folder with mnist/mnist.npz and omniglot/*.npz")
    generator = torch.Generator().manual_seed(0)
    shape = tuple(test.shape[1:])
    drawn = [np.load(path)["images"] for path in sorted((folder / "omniglot").glob("*.npz"))]
    levels = torch.randint(256, (n, 1, 1, 1), generator=generator).float()
    return {
        "mnist": _spread(np.load(folder / "mnist/mnist.npz")["x_test"], n, shape),
        "omniglot": _spread(np.concatenate(drawn), n, shape),
        "noise": torch.randint(256, (n, *shape), generator=generator).float() / 255,
        "blank": torch.zeros(1, *shape),
        "constant": levels.expand(-1, *shape).clone() / 255,
        "hflip": test[:n].flip(3),
        "vflip": test[:n].flip(2),
    }


def _spread(array: np.ndarray[Any, Any], n: int, shape: tuple[int, ...]) -> Tensor:
    """`n` images spread over those there are, in [0, 1]."""
    chosen = array[np.linspace(0, len(array) - 1, min(n, len(array))).round().astype(int)]
    x = torch.from_numpy(chosen).float().reshape(-1, *shape)
    return x / 255 if x.max() > 1 else x


def apart(scores: Scores, test: Tensor, others: dict[str, Tensor]) -> dict[str, dict[str, float]]:
    """AUROC by score and by kind of foreign input."""

    def of(x: Tensor) -> dict[str, Any]:
        with torch.no_grad():
            parts = [scores(part) for part in x.split(250)]
        return {name: torch.cat([part[name] for part in parts]).double().numpy() for name in parts[0]}

    inside, outside = of(test), {kind: of(x) for kind, x in others.items()}
    return {name: {kind: auroc(inside[name], found[name]).value for kind, found in outside.items()} for name in inside}


class Training(NamedTuple):
    """What detectors are fitted on: `x` (n, 1, 28, 28), labels `y` (n,), and the classifier of those that need one."""

    x: Tensor
    y: Tensor
    network: nn.Module | None

    def watched(self, name: str) -> nn.Module:
        """The classifier for detector `name`."""
        if self.network is None:
            sys.exit(f"{name} judges an input together with what a classifier says of it: give --victims FOLDER")
        return self.network


def fitted(name: str, options: dict[str, Any], training: Training) -> tuple[Detector, Callable[[Tensor], Tensor]]:
    """A detector and how it scores images of the data's shape."""
    detector, x, y = make(name, options), training.x, training.y
    if detector.conditional:
        network = training.watched(name)
        detector.fit(TensorDataset(x, y))
        return detector, lambda part: detector.score(part, predictions(network, part))
    if name == "pair-gan":
        detector.fit(torch.cat([edge_map(x), x], 1))
        return detector, lambda part: detector.score(torch.cat([edge_map(part), part], 1))
    if isinstance(detector, CycleGANDetector):
        network, third = training.watched(name), len(x) // 3
        detector.watch(network)
        other = attacked(network, x[:third], y[:third], "pgd", "linf", EPS)
        label = (torch.arange(len(x)) < third).long()
        detector.fit(TensorDataset(torch.cat([other, x[third:]]), label))
        return detector, detector.score
    return detector.fit(x), detector.score


def pyod_fitted(name: str, x: Tensor, seed: int) -> Callable[[Tensor], Tensor]:
    """How PyOD's detector `name`, fitted on flattened images with its own defaults, scores images."""
    score = pyod_peers.fitted(name, x.flatten(1).numpy(), seed)
    return lambda part: torch.from_numpy(np.asarray(score(part.flatten(1).numpy()), dtype=np.float64))


def measure(
    name: str, seed: int, training: Training, test: Tensor, others: dict[str, Tensor], given: argparse.Namespace
) -> dict[str, Any]:
    """Every score of one detector against every kind, and the CPU seconds of the fit and of the default's scores."""
    kind, _, likelihood = name.partition(":")
    began = time.process_time()
    detector: Detector | None = None
    if kind == "PyOD":
        score_of = pyod_fitted(likelihood, training.x, seed)
    else:
        options = {"likelihood": likelihood} if likelihood else {}
        options |= ({"epochs": given.epochs} if accepts(kind, "epochs") else {}) | {"seed": seed}
        detector, score_of = fitted(kind, options, training)
    fit = time.process_time() - began
    began = time.process_time()
    found = apart(lambda part: {"default": score_of(part)}, test, others)
    score = (time.process_time() - began) / (len(test) + sum(map(len, others.values())))
    if isinstance(detector, VAEDetector):
        names = [reading for reading in detector.combination.readings if reading != REGRET]
        found |= apart(lambda part: detector.panel(part, names=names), test, others)
        few = {key: value[: given.regret] for key, value in others.items()}
        found |= apart(lambda part: detector.panel(part, names=[REGRET]), test[: given.regret], few)
    if isinstance(detector, CycleGANDetector):
        found |= apart(detector.panel, test, others)
    return {
        "detector": name,
        "seed": seed,
        "auroc": found,
        "fit_cpu_seconds": fit,
        "score_cpu_microseconds": 1e6 * score,
    }


def table(results: list[dict[str, Any]]) -> str:
    """A Markdown table: a row per detector and score, a column per kind of foreign input (means over the seeds)."""
    kinds = list(results[0]["auroc"]["default"])
    lines = [f"| detector | score | {' | '.join(kinds)} |", f"|---|---|{'---|' * len(kinds)}"]
    for name in dict.fromkeys(result["detector"] for result in results):
        own = [result["auroc"] for result in results if result["detector"] == name]
        for score in own[0]:
            cells = " | ".join(f"{mean(found[score][kind] for found in own):.3f}" for kind in kinds)
            lines.append(f"| {name} | {score} | {cells} |")
    return "\n".join(lines) + "\n"


def main(arguments: Iterable[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="fashion-mnist", help="a data name or path of images of 28 x 28")
    parser.add_argument("--detectors", nargs="*", default=[*(f"vae:{name}" for name in LIKELIHOODS), "autoencoder"])
    parser.add_argument("--victims", type=Path, help="classifiers, trained there if absent, for those that need one")
    parser.add_argument("--train", type=int, default=16_000, help="the first of the training split")
    parser.add_argument("--test", type=int, default=1000, help="inputs of each kind")
    parser.add_argument("--regret", type=int, default=100, help="inputs of each kind for likelihood regret")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--out", type=Path, help="JSON file for the results, and to go on from")
    given = parser.parse_args(None if arguments is None else list(arguments))
    torch.set_num_threads(1)
    source = load(given.data)
    x, y = (part[: given.train] for part in images(source, "train"))
    test = images(source, "test")[0][: given.test]
    network = None if given.victims is None else victims(source, given.victims)["plain"].eval()
    training = Training(x, y, network)
    others = foreign(test, given.test)
    file = ResultsFile(
        given.out,
        f"python -m robustgen_benchmarks.out_of_distribution --data {source.spec.name} "
        f"--detectors {' '.join(given.detectors)} {'' if network is None else '--victims victims/ '}"
        f"--train {given.train} --test {given.test} --regret {given.regret} --epochs {given.epochs} "
        f"--seeds {given.seeds}",
        "Pillow",
        data_sha256=source.spec.sha256,
    )
    done = file.done("detector", "seed")
    for seed in range(given.seeds):
        for name in given.detectors:
            if (name, seed) in done:
                continue
            file.add(measure(name, seed, training, test, others, given))
            sys.stderr.write(f"{name} seed {seed}: {file.results[-1]['auroc']['default']}\n")
    sys.stdout.write(table(file.results))


if __name__ == "__main__":
    main()
