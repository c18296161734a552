"""What do attackers lose, and save, who ask the channels of a guard in turn (`Guard.rejecting`) instead of all at once?

The bundle is run on a guard both ways, on test inputs that its classifier has right: how many each way takes, how many
it alone takes, and the time. Verdicts are the same either way, and members that need nothing else, such as Square, ask
in turn both times.

    python -m robustgen_benchmarks.channels_in_turn --guard guard=guard/ --n 100 --out channels_in_turn.json

A row that is in the file already is not measured again.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from robustgen.attacks.passes import Precision
from robustgen.data.load import load
from robustgen.evaluation.adaptive import Evasion, evade
from robustgen.guard import Guard
from robustgen.runtime import keep_freed_memory
from robustgen.threat import ThreatModel
from robustgen_benchmarks.behind_victim import places, right_ones
from robustgen_benchmarks.results_file import ResultsFile


def measured(guard: Guard, x: Tensor, y: Tensor, eps: float, precision: Precision, seed: int) -> dict[str, Any]:
    """Inputs lost with all channels at once and in turn, to one of the two alone, and CPU seconds of both."""
    found, seconds = dict[str, Evasion](), dict[str, float]()
    for way, score in (("at once", guard.score), ("in turn", None)):
        began = time.process_time()
        found[way] = evade(guard, x, y, ThreatModel("linf", eps), score=score, seed=seed, precision=precision)
        seconds[way] = time.process_time() - began
    once, turn = found["at once"].lost, found["in turn"].lost
    return {
        "n": len(x),
        "lost": {way: int(one.lost.sum()) for way, one in found.items()},
        "at once alone": int((once & ~turn).sum()),
        "in turn alone": int((turn & ~once).sum()),
        "cpu_seconds": seconds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="fashion-mnist")
    parser.add_argument("--guard", action="append", required=True, help="NAME=PLACE, made by robustgen guard")
    parser.add_argument("--n", type=int, default=100, help="test inputs")
    parser.add_argument("--eps", type=float, default=0.1)
    parser.add_argument("--precision", default="float32", choices=("float32", "mixed"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    source = load(given.data)
    command = (
        f"python -m robustgen_benchmarks.channels_in_turn --guard NAME=PLACE --n {given.n} --eps {given.eps:g} "
        f"--precision {given.precision} --seed {given.seed}"
    )
    file = ResultsFile(given.out, command, data_sha256=source.spec.sha256)
    for name, place in places(given.guard).items():
        key = f"{name} {given.eps:g} {given.seed}"
        if key in file.rows:
            continue
        guard = Guard.load(place)
        x, y = right_ones(source, guard.classifier, 2 * given.n, given.n)
        file.rows[key] = measured(guard, x, y, given.eps, given.precision, given.seed)
        file.save()
        sys.stdout.write(f"{key}: {file.rows[key]}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
