"""Auto-PGD at given sizes: the share that withstands robustgen's and adv_lib's, on the same inputs, seed by seed.

AttackBench's optimality of an attack for a given eps rests on a bisection, in which one lucky or unlucky round of a row
moves the result; here every row is attacked once at each size. Lower is stronger. A paired sign test over the rows on
which the two disagree says whether a difference can be chance (McNemar 1947, exact).

    python -m robustgen_benchmarks.peers.auto_pgd --data fashion-mnist --victims victims --out auto_pgd.json
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from scipy.stats import binomtest

from robustgen.data.load import load
from robustgen.objectives import cross_entropy, dlr
from robustgen_benchmarks.optimality import ours_within, theirs_within
from robustgen_benchmarks.results_file import ResultsFile
from robustgen_benchmarks.victims import first, predictions, victims

SIZES = {"linf": [0.1, 0.15], "l2": [1.0, 1.5], "l1": [4.0, 6.0]}
LOSSES = {"ce": cross_entropy, "dlr": dlr}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="fashion-mnist", help="a data name or path, as for robustgen attack")
    parser.add_argument("--victims", type=Path, default=Path("victims"), help="folder; victims are trained if absent")
    parser.add_argument("--only", choices=("plain", "adversarial"), default="adversarial", help="the victim")
    parser.add_argument("--norms", nargs="+", choices=tuple(SIZES), default=["l1", "linf"])
    parser.add_argument("--n", type=int, default=500, help="test inputs")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=100)
    parser.add_argument("--out", type=Path, help="JSON file for the results")
    given = parser.parse_args()
    torch.set_num_threads(1)
    source = load(given.data)
    x, y = first(source, given.n)
    network = victims(source, given.victims)[given.only]
    file = ResultsFile(
        given.out,
        f"python -m robustgen_benchmarks.peers.auto_pgd --data {source.spec.name} --only {given.only} "
        f"--norms {' '.join(given.norms)} --n {given.n} --steps {given.steps} --seeds {given.seeds} "
        f"--batch-size {given.batch_size}",
        "adv-lib",
        go_on=False,
        data_sha256=source.spec.sha256,
    )
    for norm in given.norms:
        for loss, function in LOSSES.items():
            for size in SIZES[norm]:
                eps, held, only_ours, only_theirs = torch.full((given.n,), size), [], 0, 0
                for seed in range(given.seeds):
                    ours = ours_within(function, norm, given.batch_size)(network, x, y, eps, given.steps, seed)
                    theirs = theirs_within(loss, norm, given.batch_size)(network, x, y, eps, given.steps, seed)
                    ours_fooled, theirs_fooled = (predictions(network, x_adv) != y for x_adv in (ours, theirs))
                    held.append([float((~found).double().mean()) for found in (ours_fooled, theirs_fooled)])
                    only_ours += int((ours_fooled & ~theirs_fooled).sum())
                    only_theirs += int((theirs_fooled & ~ours_fooled).sum())
                differ = only_ours + only_theirs
                found = {
                    "norm": norm,
                    "loss": loss,
                    "eps": size,
                    "robust_accuracy": {"robustgen": [a for a, _ in held], "adv_lib": [b for _, b in held]},
                    "fooled_by_one": {"robustgen": only_ours, "adv_lib": only_theirs},
                    "p_value": float(binomtest(only_ours, differ).pvalue) if differ else 1.0,
                }
                file.add(found)
                means = [sum(values) / len(values) for values in zip(*held, strict=True)]
                sys.stdout.write(
                    f"| {norm} | {loss} | {size:g} | {means[0]:.2%} | {means[1]:.2%} | {only_ours} / {only_theirs} | "
                    f"{found['p_value']:.2g} |\n"
                )
                sys.stdout.flush()


if __name__ == "__main__":
    main()
