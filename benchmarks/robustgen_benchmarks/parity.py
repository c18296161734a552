"""Are our figures those of others? `art`: FGSM and PGD against ART. `published`: the accuracies of published networks.

python -m robustgen_benchmarks.parity art --data fashion-mnist --victims victims --out parity_art.json
ROBUSTGEN_EXTRA_DATA=FOLDER python -m robustgen_benchmarks.parity published --out parity_published.json
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from robustgen.artifacts import to_json
from robustgen.attacks.art import art_classifier
from robustgen.attacks.fgsm import FGSM
from robustgen.attacks.pgd import PGD
from robustgen.data.load import load
from robustgen.threat import ThreatModel
from robustgen_benchmarks.results_file import ResultsFile
from robustgen_benchmarks.victims import first, predictions, victims

FGSM_EPS = (8 / 255, 0.1)
PGD_EPS, PGD_STEPS = 0.1, 40


def bare_estimator(network: nn.Module, shape: tuple[int, ...]) -> Any:
    """ART's estimator as its examples build it: a mean loss, and convolutions in the usual memory order."""
    from art.estimators.classification import PyTorchClassifier

    loss = nn.CrossEntropyLoss()
    return PyTorchClassifier(
        network, loss=loss, input_shape=shape, nb_classes=10, clip_values=(0.0, 1.0), device_type="cpu"
    )


def compare(network: nn.Module, y: Tensor, ours: Tensor, theirs: Tensor) -> dict[str, Any]:
    """How far two attacks' results are apart: in values, in rows, and in what they fool."""
    fooled, fooled_by_theirs = predictions(network, ours) != y, predictions(network, theirs) != y
    apart = (ours - theirs).abs().flatten(1)
    return {
        "n": len(y),
        "values_that_differ": int((ours != theirs).sum()),
        "values": ours.numel(),
        "rows_that_differ": int((apart > 0).any(1).sum()),
        "rows_within_1e-6": (apart.amax(1) <= 1e-6).double().mean().item(),
        "largest_difference": apart.max().item(),
        "robust_accuracy": (~fooled).double().mean().item(),
        "robust_accuracy_of_art": (~fooled_by_theirs).double().mean().item(),
        "same_verdicts": (fooled == fooled_by_theirs).double().mean().item(),
    }


def against_art(network: nn.Module, x: Tensor, y: Tensor, n_pgd: int) -> list[dict[str, Any]]:
    """FGSM on all of `x`, through both kinds of estimator; PGD without random start on the first `n_pgd`, in full."""
    from art.attacks.evasion import FastGradientMethod, ProjectedGradientDescent

    shape = tuple(x.shape[1:])
    estimators = {"bare": bare_estimator(network, shape), "art_classifier": art_classifier(network, shape, 10)}
    results = []
    for eps in FGSM_EPS:
        ours = FGSM(threat=ThreatModel("linf", eps))(network, x, y)
        for kind, estimator in estimators.items():
            theirs = FastGradientMethod(estimator, eps=eps, batch_size=256).generate(x.numpy(), y.numpy())
            found = compare(network, y, ours, torch.from_numpy(theirs))
            results.append({"attack": "fgsm", "eps": eps, "estimator": kind, **found})
    x, y, size = x[:n_pgd], y[:n_pgd], 2.5 * PGD_EPS / PGD_STEPS
    threat = ThreatModel("linf", PGD_EPS)
    ours = PGD(threat=threat, steps=PGD_STEPS, step_size=size, random_start=False, mode="last")(network, x, y)
    for kind, estimator in estimators.items():
        attack = ProjectedGradientDescent(
            estimator, eps=PGD_EPS, eps_step=size, max_iter=PGD_STEPS, batch_size=256, verbose=False
        )
        found = compare(network, y, ours, torch.from_numpy(attack.generate(x.numpy(), y.numpy())))
        results.append({"attack": "pgd-40", "eps": PGD_EPS, "estimator": kind, **found})
    return results


class Published(NamedTuple):
    """A published network; what others state or measured, in per cent: clean accuracy, and accuracy under attacks."""

    function: str
    weights: str
    data: str
    clean: float
    attacks: tuple[tuple[str, float, float | None], ...]
    """(attack and its options, eps, robust accuracy stated)"""


PGD_40 = "pgd --step-size 0.01 --no-random-start"  # no start that only we could draw
MNIST, CIFAR = "$ROBUSTGEN_EXTRA_DATA/mnist/mnist.npz", "$CIFAR_FOLDER"
PUBLISHED = (
    Published("advertorch_lenet5", "advertorch_mnist_lenet5_clntrained.pt", MNIST, 98.89, ((PGD_40, 0.3, 0.0),)),
    Published(
        "advertorch_lenet5",
        "advertorch_mnist_lenet5_advtrained.pt",
        MNIST,
        98.64,
        ((PGD_40, 0.3, 92.8), ("auto-attack --limit 200", 0.3, None)),
    ),
    Published(
        "convex_adversarial_mnist",
        "convex_adversarial_mnist.pth",
        MNIST,
        98.20,
        (("fgsm", 0.1, 96.1), (PGD_40, 0.1, 95.9), ("auto-attack --limit 1000", 0.1, None)),
    ),
    Published("ccexam_mnist", "ccexam_mnist.pth", MNIST, 99.05, ((PGD_40, 0.1, 35.6),)),
    Published("captum_cifar", "captum_cifar_torchvision.pt", CIFAR, 57.6, (("pgd", 2 / 255, None),)),
)


def published(limit: int | None) -> list[dict[str, Any]]:
    """Every network of PUBLISHED through `robustgen attack`, as a user would type it."""
    extra = Path(os.environ["ROBUSTGEN_EXTRA_DATA"])
    results = []
    with tempfile.TemporaryDirectory() as folder:
        with zipfile.ZipFile(extra / "cifar10_jpeg" / "cifar10_jpeg_train5k_test3k.zip") as archive:
            archive.extractall(folder)
        environment = {**os.environ, "CIFAR_FOLDER": folder, "ROBUSTGEN_DATA": str(Path(folder, "converted"))}
        for net in PUBLISHED:
            for name, eps, stated in net.attacks:
                command = (
                    f"attack {name} --model published_nets.py:{net.function} "
                    f"--weights $ROBUSTGEN_EXTRA_DATA/models/{net.weights} --data {net.data} --split test "
                    f"--eps {eps:.6g} --device cpu --json --quiet"
                ) + (f" --limit {limit}" if limit else "")
                found = robustgen_command(command, environment)
                results.append(
                    {
                        "command": f"robustgen {command}",
                        "network": net.weights,
                        "attack": name,
                        "eps": eps,
                        "n": found["n"],
                        "clean_accuracy": found["clean_accuracy"],
                        "clean_accuracy_stated": net.clean / 100,
                        "robust_accuracy": found["robust_accuracy"],
                        "robust_accuracy_interval": found["robust_accuracy_interval"],
                        "robust_accuracy_stated": None if stated is None else stated / 100,
                        "seconds": found["seconds"],
                        "forward_passes": found["forward_passes"],
                        "warnings": found["warnings"],
                    }
                )
                sys.stdout.write(row(results[-1]) + "\n")
                sys.stdout.flush()
    return results


def robustgen_command(command: str, environment: dict[str, str]) -> dict[str, Any]:
    """Run the command line beside `published_nets.py`, and read the JSON it prints."""
    words = [
        environment[word[1:].split("/")[0]] + word[len(word.split("/")[0]) :] if word.startswith("$") else word
        for word in command.split()
    ]
    program = [sys.executable, "-c", "from robustgen_cli.main import main; main()"]
    here = Path(__file__).parent
    done = subprocess.run([*program, *words], env=environment, cwd=here, check=False, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"robustgen {command} ended with {done.returncode}: {done.stderr}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def row(found: dict[str, Any]) -> str:
    """A Markdown row: what came, and what is stated elsewhere."""
    stated = found["robust_accuracy_stated"]
    return (
        f"| {found['network']} | {found['n']:,} | {found['clean_accuracy']:.2%} | "
        f"{found['clean_accuracy_stated']:.2%} | {found['attack']} {found['eps']:.3g} | "
        f"{found['robust_accuracy']:.2%} | {'-' if stated is None else f'{stated:.1%}'} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("art", "published"))
    parser.add_argument("--data", default="fashion-mnist", help="of `art`: a data name or path")
    parser.add_argument("--victims", type=Path, default=Path("victims"), help="folder; victims are trained if absent")
    parser.add_argument("--n-pgd", type=int, default=1000, help="of `art`: test inputs for PGD; FGSM takes all")
    parser.add_argument("--limit", type=int, help="of `published`: test inputs")
    parser.add_argument("--out", type=Path, required=True, help="JSON file for the results")
    given = parser.parse_args()
    torch.set_num_threads(1)
    results: list[dict[str, Any]] = []
    if given.what == "art":
        np.random.seed(0)  # noqa: NPY002 - ART draws from the global generator
        source = load(given.data)
        inputs = first(source, len(source.rows("test")))
        for name, network in victims(source, given.victims).items():
            results += [{"victim": name, **found} for found in against_art(network, *inputs, given.n_pgd)]
        sys.stdout.write(to_json(results) + "\n")
    else:
        if "ROBUSTGEN_EXTRA_DATA" not in os.environ:
            parser.error("ROBUSTGEN_EXTRA_DATA must name the folder with mnist/, cifar10_jpeg/ and models/")
        results = published(given.limit)
    file = ResultsFile(
        given.out,
        f"python -m robustgen_benchmarks.parity {given.what}"
        + (f" --data {given.data} --n-pgd {given.n_pgd}" if given.what == "art" else "")
        + (f" --limit {given.limit}" if given.limit else ""),
        go_on=False,
    )
    file.add(*results)


if __name__ == "__main__":
    main()
