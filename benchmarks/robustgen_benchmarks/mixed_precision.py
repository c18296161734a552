"""What do attacks that know the detector lose by taking gradients in bfloat16, and what do they save?

The bundle is run on every guard in float32 and in mixed precision (gradients in bfloat16, every verdict in float32), on
test inputs that the classifier has right: how many each of them takes, how many it alone takes, and the time.

    python -m robustgen_benchmarks.mixed_precision --victim victim/ --detector gat=gat/ --n 200 --out mixed.json

A row that is in the file already is not measured again.
"""

from __future__ import annotations

import sys
import time
from typing import Any

import torch
from torch import Tensor

from robustgen.data.load import load
from robustgen.detectors.calibrated import CalibratedDetector
from robustgen.evaluation.adaptive import evade
from robustgen.guard import Guard
from robustgen.models.load import load_model
from robustgen.runtime import has_bfloat16, keep_freed_memory
from robustgen.threat import ThreatModel
from robustgen_benchmarks.behind_victim import options, places, right_ones
from robustgen_benchmarks.results_file import ResultsFile


def measured(guard: Guard, x: Tensor, y: Tensor, eps: float, bundle: str, seed: int) -> dict[str, Any]:
    """Inputs lost in float32 and in mixed precision, to one of the two alone, and CPU seconds of both."""
    threat, lost, seconds = ThreatModel("linf", eps), dict[str, Tensor](), dict[str, float]()
    for precision in ("float32", "mixed"):
        began = time.process_time()
        lost[precision] = evade(guard, x, y, threat, bundle=bundle, seed=seed, precision=precision).lost
        seconds[precision] = time.process_time() - began
    full, mixed = lost["float32"], lost["mixed"]
    return {
        "n": len(x),
        "lost": {name: int(found.sum()) for name, found in lost.items()},
        "in float32 alone": int((full & ~mixed).sum()),
        "in mixed alone": int((mixed & ~full).sum()),
        "cpu_seconds": seconds,
    }


def main() -> None:
    parser = options(__doc__, n=200, needed=False)
    parser.add_argument("--guard", action="append", default=[], help="NAME=PLACE, made by robustgen guard")
    parser.add_argument("--bundle", default="adaptive-standard")
    parser.add_argument("--eps", type=float, default=0.1)
    given = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    if not has_bfloat16(torch.device("cpu")):
        raise SystemExit("this processor has no bfloat16, so that mixed precision is float32: there is nothing to see")
    source, victim = load(given.data), load_model(given.victim)
    x, y = right_ones(source, victim.network, 2 * given.n, given.n)
    command = (
        "python -m robustgen_benchmarks.mixed_precision --victim VICTIM --detector NAME=PLACE --guard NAME=PLACE "
        f"--bundle {given.bundle} --eps {given.eps:g} --n {given.n} --seed {given.seed}"
    )
    file = ResultsFile(given.out, command, data_sha256=source.spec.sha256, victim_sha256=victim.sha256)
    guards = places(given.guard)
    for name, place in (places(given.detector) | guards).items():
        key = f"{name} {given.eps:g} {given.seed}"
        if key in file.rows:
            continue
        guard = Guard.load(place) if name in guards else Guard(victim, CalibratedDetector.load(place))
        file.rows[key] = measured(guard, x, y, given.eps, given.bundle, given.seed)
        file.save()
        sys.stdout.write(f"{key}: {file.rows[key]}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
