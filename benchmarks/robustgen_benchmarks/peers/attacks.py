"""PGD and FGSM of robustgen, ART, Foolbox and torchattacks: the same images, victims, steps and starts, in one process.

Every attack starts at the clean input and takes steps of equal size; each library gets the images in batches of one
size, and the victim as its users have it: in evaluation mode, parameters with `requires_grad`. Rounds are interleaved,
so that a busy machine slows all alike; passes are counted by hooks on the victim, in a run of their own.

    python -m robustgen_benchmarks.peers.attacks --data fashion-mnist --victims victims --out attacks.json
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from statistics import median
from typing import Any, Literal

import torch
from torch import Tensor, nn

from robustgen.artifacts import to_json
from robustgen.attacks.fgsm import FGSM
from robustgen.attacks.pgd import PGD
from robustgen.data.load import load
from robustgen.threat import Norm, ThreatModel
from robustgen_benchmarks.machine import describe_machine, versions_with
from robustgen_benchmarks.victims import first, predictions, victims


@dataclass(frozen=True)
class Case:
    """One attack to compare; `steps` and `step_size` mean nothing to FGSM."""

    attack: Literal["pgd", "fgsm"]
    norm: Norm
    eps: float
    steps: int
    step_size: float

    @property
    def threat(self) -> ThreatModel:
        return ThreatModel(self.norm, self.eps)


CASES = (
    Case("pgd", "linf", 0.1, 40, 0.00625),
    Case("pgd", "l2", 1.0, 40, 0.0625),
    Case("fgsm", "linf", 0.1, 1, 0.1),
)

Run = Callable[[Tensor, Tensor], Tensor]
"""(x, y) -> x_adv"""


def robustgen(case: Case, network: nn.Module, size: int) -> Run:
    """As `robustgen attack` runs it: a row leaves at its first success, and every verdict is verified."""
    if case.attack == "fgsm":
        return lambda x, y: FGSM(threat=case.threat, batch_size=size).run(network, x, y).x_adv
    return lambda x, y: _pgd(case, size).run(network, x, y).x_adv


def robustgen_in_full(case: Case, network: nn.Module, size: int) -> Run:
    """Every row takes all steps, as with the peers: what is left is the cost of a step."""
    if case.attack == "fgsm":
        return lambda x, y: FGSM(threat=case.threat, batch_size=size)(network, x, y)
    return lambda x, y: _pgd(case, size, "last")(network, x, y)


def _pgd(case: Case, size: int, mode: Literal["evaluate", "last"] = "evaluate") -> PGD:
    return PGD(
        threat=case.threat,
        steps=case.steps,
        step_size=case.step_size,
        random_start=False,
        mode=mode,
        batch_size=size,
    )


def art(case: Case, network: nn.Module, size: int) -> Run:
    """ART, with the estimator that its examples build."""
    from art.attacks.evasion import FastGradientMethod, ProjectedGradientDescent
    from art.estimators.classification import PyTorchClassifier

    def run(x: Tensor, y: Tensor) -> Tensor:
        estimator = PyTorchClassifier(
            network,
            loss=nn.CrossEntropyLoss(),
            input_shape=tuple(x.shape[1:]),
            nb_classes=10,
            clip_values=(0.0, 1.0),
            device_type="cpu",
        )
        if case.attack == "fgsm":
            attack = FastGradientMethod(estimator, eps=case.eps, batch_size=size)
        else:
            attack = ProjectedGradientDescent(
                estimator,
                norm="inf" if case.norm == "linf" else 2,
                eps=case.eps,
                eps_step=case.step_size,
                max_iter=case.steps,
                num_random_init=0,
                batch_size=size,
                verbose=False,
            )
        return torch.from_numpy(attack.generate(x.numpy(), y.numpy()))

    return run


def foolbox(case: Case, network: nn.Module, size: int) -> Run:
    """Foolbox; its call returns raw and clipped points and a verdict, which costs one more forward pass."""
    library = import_module("foolbox")
    attacks = import_module("foolbox.attacks")
    if case.attack == "fgsm":
        attack = attacks.LinfFastGradientAttack(random_start=False)
    else:
        kind = attacks.LinfPGD if case.norm == "linf" else attacks.L2PGD
        attack = kind(abs_stepsize=case.step_size, steps=case.steps, random_start=False)

    def run(x: Tensor, y: Tensor) -> Tensor:
        model = library.PyTorchModel(network, bounds=(0, 1), device="cpu")
        parts = zip(x.split(size), y.split(size), strict=True)
        return torch.cat([attack(model, *part, epsilons=case.eps)[1] for part in parts])  # [1] = clipped to eps

    return run


def torchattacks(case: Case, network: nn.Module, size: int) -> Run:
    """torchattacks."""
    library = import_module("torchattacks")

    def run(x: Tensor, y: Tensor) -> Tensor:
        if case.attack == "fgsm":
            attack = library.FGSM(network, eps=case.eps)
        else:
            kind = library.PGD if case.norm == "linf" else library.PGDL2
            attack = kind(network, eps=case.eps, alpha=case.step_size, steps=case.steps, random_start=False)
        return torch.cat([attack(*part) for part in zip(x.split(size), y.split(size), strict=True)])

    return run


PEERS: dict[str, Callable[[Case, nn.Module, int], Run]] = {  # the int is the batch size
    "robustgen": robustgen,
    "robustgen, all steps": robustgen_in_full,
    "ART": art,
    "Foolbox": foolbox,
    "torchattacks": torchattacks,
}


@contextmanager
def counted(network: nn.Module) -> Iterator[dict[str, int]]:
    """Rows that go forward and backward through `network`."""
    rows = {"forward": 0, "backward": 0}

    def backward(gradient: Tensor) -> None:
        rows["backward"] += len(gradient)

    def forward(_: nn.Module, __: Any, logits: Tensor) -> None:
        rows["forward"] += len(logits)
        if logits.requires_grad:
            logits.register_hook(backward)

    handle = network.register_forward_hook(forward)
    try:
        yield rows
    finally:
        handle.remove()


def measure(case: Case, network: nn.Module, x: Tensor, y: Tensor, size: int, rounds: int) -> dict[str, Any]:
    """All peers on one case: what they found, what it cost, and the ratios to robustgen's cost."""
    runs: dict[str, Run] = {}
    found: dict[str, dict[str, Any]] = {}
    verdicts: dict[str, Tensor] = {}
    for name, peer in PEERS.items():
        try:
            runs[name] = peer(case, network, size)
        except ModuleNotFoundError as error:
            found[name] = {"missing": f"{error.name} is not installed"}
            continue
        with counted(network) as rows:
            x_adv = runs[name](x, y)
        verdicts[name] = predictions(network, x_adv) != y
        found[name] = {
            "robust_accuracy": (~verdicts[name]).double().mean().item(),
            "same_verdicts": (verdicts[name] == verdicts["robustgen"]).double().mean().item(),
            "largest_norm": case.threat.distance(x_adv.double(), x.double()).max().item(),
            "largest_step_out_of_the_box": max(0.0, -x_adv.min().item(), x_adv.max().item() - 1),
            "forward_per_input": rows["forward"] / len(x),
            "backward_per_input": rows["backward"] / len(x),
        }
    _time(runs, found, x, y, rounds)
    result: dict[str, Any] = {**asdict(case), "n": len(x), "batch_size": size, "peers": found}
    result["clean_accuracy"] = (predictions(network, x) == y).double().mean().item()
    if case.attack == "pgd":
        ours = _pgd(case, size).run(network, x, y)
        taken = torch.where(ours.success, ours.steps, case.steps).double().mean().item()
        result |= {"mean_first_success_step": taken, "ceiling_of_compaction": case.steps / max(1.0, taken)}
    return result


def _time(runs: Mapping[str, Run], found: dict[str, dict[str, Any]], x: Tensor, y: Tensor, rounds: int) -> None:
    """Fill in process CPU and wall seconds, with another peer going first each round."""
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
    names = list(runs)
    for number in range(rounds):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            cpu, wall = time.process_time(), time.perf_counter()
            runs[name](x, y)
            seconds[name].append((time.process_time() - cpu, time.perf_counter() - wall))
    for clock, place in (("cpu", 0), ("wall", 1)):
        middle = {name: median(pair[place] for pair in pairs) for name, pairs in seconds.items()}
        for name, pairs in seconds.items():
            found[name][f"{clock}_seconds"] = [pair[place] for pair in pairs]
            found[name][f"median_{clock}_seconds"] = middle[name]
            found[name][f"{clock}_ratio"] = middle[name] / middle["robustgen"]


def table(result: Mapping[str, Any]) -> str:
    """One case as a Markdown table."""
    steps = "" if result["attack"] == "fgsm" else f"-{result['steps']}"
    lines = [
        f"**{result['attack'].upper()}{steps} {result['norm']} eps {result['eps']:g}, {result['victim']} victim** "
        f"({result['clean_accuracy']:.1%} clean, n = {result['n']} in batches of {result['batch_size']}"
        + (
            f", first success at step {result['mean_first_success_step']:.1f} of {result['steps']} on average: "
            f"stopping there saves at most {result['ceiling_of_compaction']:.1f}x the passes)"
            if "ceiling_of_compaction" in result
            else ")"
        ),
        "",
        "| | CPU s | CPU ratio | wall ratio | forward / backward per input | robust accuracy | same verdicts | "
        "largest norm |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, peer in result["peers"].items():
        if "missing" in peer:
            lines.append(f"| {name} | {peer['missing']} | | | | | | |")
            continue
        passes = f"{peer['forward_per_input']:.1f} / {peer['backward_per_input']:.1f}"
        lines.append(
            f"| {name} | {peer['median_cpu_seconds']:.3f} | {peer['cpu_ratio']:.1f}x | {peer['wall_ratio']:.1f}x | "
            f"{passes} | {peer['robust_accuracy']:.1%} | {peer['same_verdicts']:.1%} | {peer['largest_norm']:.6f} |"
        )
    return "\n".join(lines) + "\n\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="fashion-mnist", help="a data name or path, as for robustgen attack")
    parser.add_argument("--n", type=int, default=250, help="test inputs")
    parser.add_argument("--batch-size", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--victims", type=Path, default=Path("victims"), help="folder; victims are trained if absent")
    parser.add_argument("--out", type=Path, help="JSON file for the results")
    given = parser.parse_args()
    torch.set_num_threads(1)
    source = load(given.data)
    inputs = first(source, given.n)
    results = []
    for name, network in victims(source, given.victims).items():
        for case in CASES:
            results.append({"victim": name, **measure(case, network, *inputs, given.batch_size, given.rounds)})
            sys.stdout.write(table(results[-1]))
            sys.stdout.flush()
    if given.out is not None:
        stored = {
            "command": f"python -m robustgen_benchmarks.peers.attacks --data {source.spec.name} --n {given.n} "
            f"--batch-size {given.batch_size} --rounds {given.rounds}",
            "date": datetime.now(UTC).date().isoformat(),
            "data_sha256": source.spec.sha256,
            "random_start": False,
            "machine": describe_machine(),
            "versions": versions_with("foolbox", "torchattacks"),
            "results": results,
        }
        given.out.write_text(to_json(stored) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
