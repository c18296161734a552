"""Is our AutoAttack the authors' AutoAttack? Robust accuracy after each member, and row by row, beside their program.

    ROBUSTGEN_AUTO_ATTACK=FOLDER python -m robustgen_benchmarks.parity_auto_attack --victims victims --out parity.json

ROBUSTGEN_AUTO_ATTACK: a copy of github.com/fra31/auto-attack. With ROBUSTGEN_EXTRA_DATA also on published MNIST nets.
Starts and windows are random in both, so rows near the boundary may differ; how many differ between two seeds of one
program is printed beside.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from robustgen.attacks.auto_attack import AutoAttack
from robustgen.data.load import load
from robustgen.models.load import load_model
from robustgen.threat import Norm, ThreatModel
from robustgen_benchmarks.peers.libraries import REFERENCE
from robustgen_benchmarks.results_file import ResultsFile
from robustgen_benchmarks.victims import first, predictions, victims


class Setting(NamedTuple):
    """A network under AutoAttack."""

    victim: str
    network: nn.Module
    x: Tensor
    y: Tensor
    norm: Norm
    eps: float


class Stages(NamedTuple):
    """`fooled` (n,): the number of the member that fooled a row, -1 = wrong by itself, the number of members = none."""

    fooled: Tensor
    seconds: float


def by_robustgen(setting: Setting, seed: int) -> Stages:
    """Our AutoAttack on the rows that are classified correctly."""
    correct = predictions(setting.network, setting.x) == setting.y
    attack = AutoAttack(threat=ThreatModel(setting.norm, setting.eps), seed=seed)
    began = time.process_time()
    result = attack.run(setting.network, setting.x[correct], setting.y[correct])
    seconds = time.process_time() - began
    again = predictions(setting.network, result.x_adv) != setting.y[correct]
    fooled = torch.full_like(setting.y, -1)
    fooled[correct] = torch.where(result.success & again, result.member, len(attack.members))
    return Stages(fooled, seconds)


def by_the_authors(setting: Setting, seed: int, size: int) -> Stages:
    """Their program, one member after the other on the rows that still hold, as its own evaluation does."""
    library = import_module("autoattack")
    norm = {"linf": "Linf", "l2": "L2", "l1": "L1", "l0": "L0"}[setting.norm]
    program = library.AutoAttack(
        setting.network, norm=norm, eps=setting.eps, seed=seed, version="standard", verbose=False, device="cpu"
    )
    fooled = torch.full_like(setting.y, -1)
    holds = (predictions(setting.network, setting.x) == setting.y).nonzero()[:, 0]
    began = time.process_time()
    members = list(program.attacks_to_run)
    for number, member in enumerate(members):
        fooled[holds] = number
        if not len(holds):
            break
        program.attacks_to_run = [member]
        x_adv = program.run_standard_evaluation(setting.x[holds], setting.y[holds], bs=size)
        holds = holds[predictions(setting.network, x_adv) == setting.y[holds]]
    fooled[holds] = len(members)
    return Stages(fooled, time.process_time() - began)


def compare(setting: Setting, size: int) -> dict[str, Any]:
    """Two seeds of ours, one of theirs: robust accuracy after each member, and rows whose final verdict differs."""
    ours, again = by_robustgen(setting, 0), by_robustgen(setting, 1)
    theirs = by_the_authors(setting, 0, size)
    members = AutoAttack(threat=ThreatModel(setting.norm, setting.eps)).members
    last = len(members)

    def accuracies(stages: Stages) -> dict[str, float]:
        after = {name: (stages.fooled > number).double().mean().item() for number, name in enumerate(members)}
        return {"clean": (stages.fooled >= 0).double().mean().item(), **after}

    return {
        "victim": setting.victim,
        "norm": setting.norm,
        "eps": setting.eps,
        "n": len(setting.y),
        "robustgen": accuracies(ours),
        "robustgen_seed_1": accuracies(again),
        "reference": accuracies(theirs),
        "rows_that_differ": int(((ours.fooled == last) != (theirs.fooled == last)).sum()),
        "rows_that_differ_between_our_seeds": int(((ours.fooled == last) != (again.fooled == last)).sum()),
        "cpu_seconds": {"robustgen": ours.seconds, "reference": theirs.seconds},
        "cpu_ratio": theirs.seconds / ours.seconds,
    }


def table(found: dict[str, Any]) -> str:
    """One setting in Markdown."""
    names = list(found["reference"])
    lines = [
        f"**{found['victim']}, {found['norm']} eps {found['eps']:g}, n = {found['n']}**: the final verdict differs on "
        f"{found['rows_that_differ']} rows (between two seeds of ours: {found['rows_that_differ_between_our_seeds']}); "
        f"the reference takes {found['cpu_ratio']:.1f}x our CPU time",
        "",
        "| robust accuracy after | " + " | ".join(names) + " |",
        "|---" * (len(names) + 1) + "|",
    ]
    lines += [
        f"| {who} | " + " | ".join(f"{found[who][name]:.2%}" for name in names) + " |"
        for who in ("robustgen", "robustgen_seed_1", "reference")
    ]
    return "\n".join(lines) + "\n\n"


def settings(given: argparse.Namespace) -> Iterator[Setting]:
    """The victims of these benchmarks and, where they lie, published MNIST networks."""
    source = load(given.data)
    inputs = first(source, max(given.n, given.n_other))
    for name, network in victims(source, given.victims).items():
        for norm, eps in (("linf", 0.1), ("l2", 1.0), ("l1", 10.0)):
            n = given.n if norm == "linf" else given.n_other
            if n:
                yield Setting(name, network, inputs.x[:n], inputs.y[:n], norm, eps)  # type: ignore[arg-type]
    folder = os.environ.get("ROBUSTGEN_EXTRA_DATA")
    if folder:
        mnist = first(load(str(Path(folder, "mnist", "mnist.npz"))), given.n_published)
        code = str(Path(__file__).parent / "published_nets.py")
        for function, weights, eps in (
            ("convex_adversarial_mnist", "convex_adversarial_mnist.pth", 0.1),
            ("advertorch_lenet5", "advertorch_mnist_lenet5_advtrained.pt", 0.3),
        ):
            network = load_model(f"{code}:{function}", weights=Path(folder, "models", weights)).network
            yield Setting(weights, network, mnist.x, mnist.y, "linf", eps)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="fashion-mnist", help="a data name or path, as for robustgen attack")
    parser.add_argument("--n", type=int, default=250, help="test inputs in Linf; 0 = none")
    parser.add_argument("--n-other", type=int, default=50, help="test inputs in L2 and L1; 0 = none")
    parser.add_argument("--n-published", type=int, default=1000, help="test inputs for published networks")
    parser.add_argument("--batch-size", type=int, default=250, help="of the reference; 250 is its default")
    parser.add_argument("--victims", type=Path, default=Path("victims"), help="folder; victims are trained if absent")
    parser.add_argument("--out", type=Path, required=True, help="JSON file for the results")
    given = parser.parse_args()
    if REFERENCE not in os.environ:
        parser.error(f"{REFERENCE} must name a folder with a copy of github.com/fra31/auto-attack")
    sys.path.append(os.environ[REFERENCE])
    torch.set_num_threads(1)
    file = ResultsFile(
        given.out,
        f"python -m robustgen_benchmarks.parity_auto_attack --data {given.data} --n {given.n} "
        f"--n-other {given.n_other} --n-published {given.n_published} --batch-size {given.batch_size}",
        go_on=False,
    )
    for setting in settings(given):
        file.add(compare(setting, given.batch_size))
        sys.stdout.write(table(file.results[-1]))
        sys.stdout.flush()


if __name__ == "__main__":
    main()
