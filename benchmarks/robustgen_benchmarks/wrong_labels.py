"""Which detectors can tell that an input's label is wrong?

Each detector is fitted on the labelled training images and judges test images against labels: the right ones; random
wrong ones; the most likely wrong one by a classifier (its runner-up, where it is right); and, as in use, the
classifier's prediction: on clean images and on successful attacks (FGSM and PGD, Linf, all steps taken). AUROC of each
kind against the first, for attacks against clean images under the prediction. As a control, random signs of 0.05, which
fool nobody: the share flagged at 5 % false alarms where the label stays. For reference: the classifier's own -log p of
the label, and, if it is there, an unconditional GAN, which sees no labels.

    python -m robustgen_benchmarks.wrong_labels --data fashion-mnist --victim victim/ --seeds 3 --out wrong_labels.json

The JSON is written after each row, and what it holds is not run again.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import TensorDataset

from robustgen.attacks.fgsm import FGSM
from robustgen.attacks.pgd import PGD
from robustgen.data.load import load
from robustgen.detectors import DETECTORS
from robustgen.detectors.class_conditional import ClassConditionalDetector
from robustgen.detectors.making import accepts, make
from robustgen.metrics import auroc
from robustgen.models.load import load_model
from robustgen.objectives import cross_entropy
from robustgen.threat import ThreatModel
from robustgen_benchmarks.one_class import images
from robustgen_benchmarks.results_file import ResultsFile
from robustgen_benchmarks.victims import predictions

Score = Callable[[Tensor, Tensor], Tensor]
"""(images (n, c, h, w), labels (n,)) -> (n,)"""

ROWS: dict[str, tuple[str, dict[str, Any]]] = {
    "conditional-gan": ("conditional-gan", {}),
    "conditional-gan without wrong labels": ("conditional-gan", {"matching": "none"}),
    "conditional-gan without wrong labels and corruptions": (
        "conditional-gan",
        {"matching": "none", "negatives": "none"},
    ),
    "conditional-vae": ("conditional-vae", {}),
    "gan": ("gan", {}),
    "style-gan": ("style-gan", {}),
}


def kinds(network: Any, x: Tensor, y: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
    """Images and the labels that they are judged against, by kind."""
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        logits = torch.cat([network(part) for part in x.split(500)])
    predicted = logits.argmax(1)
    right = (predicted == y).nonzero()[:, 0]
    runner_up = logits.scatter(1, y[:, None], -torch.inf).argmax(1)
    found = {
        "right": (x, y),
        "predicted": (x, predicted),
        "random": (x, (y + torch.randint(1, logits.shape[1], y.shape, generator=random)) % logits.shape[1]),
        "runner-up": (x[right], runner_up[right]),
    }
    attacks = {
        "fgsm 0.05": FGSM(threat=ThreatModel("linf", 0.05)),
        "pgd 0.05": PGD(threat=ThreatModel("linf", 0.05), steps=20, mode="max-loss"),
        "pgd 0.1": PGD(threat=ThreatModel("linf", 0.1), steps=20, mode="max-loss"),
    }
    few = right[:1000]
    for name, attack in attacks.items():
        x_adv = (255 * attack(network, x[few], y[few])).round() / 255
        label = predictions(network, x_adv)
        found[name] = x_adv[label != y[few]], label[label != y[few]]
    signs = 2.0 * torch.randint(0, 2, x.shape, generator=random) - 1
    noisy = (x + 0.05 * signs).clamp(0, 1)
    label = predictions(network, noisy)
    found["signs 0.05"] = noisy[label == predicted], label[label == predicted]
    return found


def measured(score: Score, pairs: dict[str, tuple[Tensor, Tensor]]) -> dict[str, float]:
    """AUROC by kind, and the share of noisy images flagged."""
    with torch.no_grad():
        found = {
            kind: torch.cat([score(*part) for part in zip(x.split(250), y.split(250), strict=True)]).double().numpy()
            for kind, (x, y) in pairs.items()
        }
    right, predicted, noisy = (found.pop(kind) for kind in ("right", "predicted", "signs 0.05"))
    values = {
        kind: auroc(right if kind in ("random", "runner-up") else predicted, scores).value
        for kind, scores in found.items()
    }
    return values | {"signs flagged": float((noisy > np.quantile(predicted, 0.95)).mean())}


def obeyed(detector: ClassConditionalDetector, network: Any) -> float:
    """The share of generated images that the classifier takes for the class they were asked to be."""
    with torch.no_grad():
        drawn = detector.sample(500, seed=0)
    return float((predictions(network, drawn) == torch.arange(500) % (detector.classes or 1)).double().mean())


def reading(detector: ClassConditionalDetector, name: str) -> Score:
    """One part of its score."""
    return lambda x, y: detector.panel(x, y)[name]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="fashion-mnist")
    parser.add_argument("--victim", required=True, help="a classifier made by robustgen train")
    parser.add_argument("--only", help="names of rows, joined by ;")
    parser.add_argument("--preset", default="fast")
    parser.add_argument("--train", type=int, default=54_000)
    parser.add_argument("--test", type=int, default=2000)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    torch.set_num_threads(1)
    source, victim = load(given.data), load_model(given.victim)
    network = victim.network
    x, y = (value[: given.train] for value in images(source, "train"))
    test, labels = (value[: given.test] for value in images(source, "test"))
    pairs = kinds(network, test, labels)
    file = ResultsFile(
        given.out,
        f"python -m robustgen_benchmarks.wrong_labels --data {source.spec.name} --victim VICTIM --preset "
        f"{given.preset} --train {given.train} --test {given.test} --seeds {given.seeds}",
        data_sha256=source.spec.sha256,
        victim_sha256=victim.sha256,
        n={kind: len(pair[0]) for kind, pair in pairs.items()},
    )
    rows = file.rows
    rows["classifier's -log p"] = {"0": measured(lambda a, b: cross_entropy(network(a), b), pairs)}
    chosen = given.only.split(";") if given.only else [row for row, (name, _) in ROWS.items() if name in DETECTORS]
    for seed in range(given.seeds):
        for row in chosen:
            name, options = ROWS[row]
            if str(seed) in rows.setdefault(row, {}):
                continue
            began = time.process_time()
            taken = {key: value for key, value in (("preset", given.preset), ("seed", seed)) if accepts(name, key)}
            detector = make(name, options | taken).fit(TensorDataset(x, y))
            seconds = time.process_time() - began

            def score(a: Tensor, b: Tensor, judge: Any = detector) -> Tensor:
                found: Tensor = judge.score(a, b if judge.conditional else None)
                return found

            rows[row][str(seed)] = measured(score, pairs) | {"fit_cpu_seconds": seconds}
            if isinstance(detector, ClassConditionalDetector):
                for name in detector.panel(x[:1], y[:1]):
                    alone = measured(reading(detector, name), pairs)
                    rows.setdefault(f"{row}: {name} alone", {})[str(seed)] = alone
                rows[row][str(seed)]["generator obeys"] = obeyed(detector, network)
                rows[row][str(seed)]["training"] = detector.record.verdict()
            file.save()
            sys.stdout.write(f"{row} seed {seed}: {rows[row][str(seed)]}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
