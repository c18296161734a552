"""A fitted guard, and each of its detectors alone, under every threat model: what one cell of the suite
`adversarial-standard` measures, of artifacts that are there.

    robustgen guard --model victim/ --data fashion-mnist --out guard/
    python -m robustgen_benchmarks.guards --guard guard/ --data fashion-mnist --only guard,gat --out guards.json

A row that is in the file already is not measured again.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import torch

from robustgen.bench.guarded import inputs
from robustgen.data.load import load
from robustgen.evaluation.threats import Plan, evaluate, oblivious
from robustgen.guard import Guard
from robustgen_benchmarks.results_file import ResultsFile


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--guard", type=Path, required=True, help="made by robustgen guard")
    parser.add_argument("--data", default="fashion-mnist")
    parser.add_argument("--only", default="guard", help="guard, names of its detectors, or both, by commas")
    parser.add_argument("--eps", default="0.02,0.05,0.1,0.2")
    parser.add_argument("--adaptive", default="0.1")
    parser.add_argument("--n", type=int, default=1000)
    parser.add_argument("--n-adaptive", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--precision", choices=("float32", "mixed"), default="float32", help="of the attacks' searches")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    torch.set_num_threads(1)
    whole, source = Guard.load(given.guard), load(given.data)
    members = {member.name: Guard(whole.loaded, member) for member in whole.members}
    x, y, _ = inputs(source, given.n, given.seed)
    sizes, knowing = (tuple(float(size) for size in text.split(",")) for text in (given.eps, given.adaptive))
    plan = Plan(sizes, headline=max(knowing), adaptive=knowing, seed=given.seed, precision=given.precision)
    file = ResultsFile(
        given.out,
        f"python -m robustgen_benchmarks.guards --guard GUARD --data {given.data} --only {given.only} --eps "
        f"{given.eps} --adaptive {given.adaptive} --n {given.n} --n-adaptive {given.n_adaptive} --seed {given.seed} "
        f"--precision {given.precision}",
        guard=whole.summary(),
        data_sha256=source.spec.sha256,
    )
    blind = None
    for name in given.only.split(","):
        key = f"{name} {given.adaptive} {given.seed}"
        if key in file.rows:
            continue
        if blind is None:
            blind = oblivious(whole.classifier, x, y, source, plan)
        began = time.process_time()
        guard = whole if name == "guard" else members[name]
        figures, _ = evaluate(guard, source, x, y, blind, plan, n_adaptive=given.n_adaptive)
        file.rows[key] = figures | {"cpu_seconds": time.process_time() - began}
        file.save()
        sys.stdout.write(f"{key}: {figures['sentence']}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
