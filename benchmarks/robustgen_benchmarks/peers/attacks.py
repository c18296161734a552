"""Attacks of robustgen beside those of other libraries: the same images, victims, steps and budgets, in one process.

PGD and FGSM start at the clean input and take steps of equal size; Auto-PGD and AutoAttack start at random points, each
library at its own. Rounds are interleaved, so that a busy machine slows all alike; passes are counted by hooks on the
victim, in a run of their own. The clock is this process's CPU time.

    python -m robustgen_benchmarks.peers.attacks --data fashion-mnist --victims victims --out attacks.json

The authors' AutoAttack is in no package index: ROBUSTGEN_AUTO_ATTACK names the folder of a copy of
github.com/fra31/auto-attack. A peer that is not found is named in the result.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from robustgen.data.load import load
from robustgen.runtime import keep_freed_memory
from robustgen_benchmarks.peers.libraries import PEERS, Case, NotOffered, Run, ours
from robustgen_benchmarks.results_file import ResultsFile
from robustgen_benchmarks.victims import first, predictions, victims

CASES = (
    Case("pgd", "linf", 0.1, 40, 0.00625),
    Case("pgd", "l2", 1.0, 40, 0.0625),
    Case("fgsm", "linf", 0.1, 1, 0.1),
    Case("apgd-ce", "linf", 0.1, 100),
    Case("apgd-ce", "l2", 1.0, 100),
    Case("auto-attack", "linf", 0.1, 100),
)


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
        except NotOffered as error:
            found[name] = {"missing": str(error)}
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
    result: dict[str, Any] = {**asdict(case), "title": case.title, "n": len(x), "batch_size": size, "peers": found}
    result["clean_accuracy"] = (predictions(network, x) == y).double().mean().item()
    if case.attack in ("pgd", "apgd-ce"):
        done = ours(case, None).run(network, x, y)
        taken = torch.where(done.success, done.first_success, case.steps).double().mean().item()
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
    lines = [
        f"**{result['title']} {result['norm']} eps {result['eps']:g}, {result['victim']} victim** "
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
    parser.add_argument("--n-auto-attack", type=int, default=50, help="test inputs for auto-attack")
    parser.add_argument("--only", nargs="*", default=[], help="attacks to run, such as apgd-ce; all if left out")
    parser.add_argument("--batch-size", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--victims", type=Path, default=Path("victims"), help="folder; victims are trained if absent")
    parser.add_argument("--out", type=Path, help="JSON file for the results")
    given = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()  # for all alike: less noise
    source = load(given.data)
    file = ResultsFile(
        given.out,
        f"python -m robustgen_benchmarks.peers.attacks --data {source.spec.name} --n {given.n} "
        f"--n-auto-attack {given.n_auto_attack} --batch-size {given.batch_size} --rounds {given.rounds}"
        + (f" --only {' '.join(given.only)}" if given.only else ""),
        "foolbox",
        "torchattacks",
        "adv-lib",
        go_on=False,
        data_sha256=source.spec.sha256,
    )
    for name, network in victims(source, given.victims).items():
        for case in CASES:
            if given.only and case.attack not in given.only:
                continue
            inputs = first(source, given.n_auto_attack if case.attack == "auto-attack" else given.n)
            file.add({"victim": name, **measure(case, network, *inputs, given.batch_size, given.rounds)})
            sys.stdout.write(table(file.results[-1]))
            sys.stdout.flush()


if __name__ == "__main__":
    main()
