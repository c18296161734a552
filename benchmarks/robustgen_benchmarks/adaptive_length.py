"""Is a bundle of adaptive attacks long enough?

Detectors that are there are attacked, each behind the same classifier, on correctly classified test inputs: by the
bundle, every member on every input, so that the whole can be set beside the best of its members; then by the same
bundle with ten times the steps and queries, on the inputs that still hold. The second figure counts what either found.
Inputs that the guard accepts with a wrong label as they are do not occur, since all are classified rightly.

    python -m robustgen_benchmarks.adaptive_length --victim victim/ --detector margin=margin/ --guard both=guard/ \
        --n 100 --out adaptive_length.json

A row that is in the file already is not measured again.
"""

from __future__ import annotations

import sys
import time
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from robustgen.data.load import load
from robustgen.detectors.calibrated import CalibratedDetector
from robustgen.evaluation.adaptive import evade
from robustgen.evaluation.bundles import BUNDLES, longer
from robustgen.guard import Guard
from robustgen.metrics import proportion
from robustgen.models.load import load_model
from robustgen.threat import ThreatModel
from robustgen_benchmarks.behind_victim import options, places, right_ones
from robustgen_benchmarks.results_file import ResultsFile


def measured(guard: Guard, x: Tensor, y: Tensor, pool: Tensor, eps: float, given: Any) -> dict[str, Any]:
    """What the bundle reaches within `eps`, each member by itself, and what a longer run adds on the first inputs."""
    threat, spend = ThreatModel("linf", eps), BUNDLES[given.bundle]
    began = time.process_time()
    whole = evade(guard, x, y, threat, bundle=spend, every=True, pool=pool, seed=given.seed)
    seconds = time.process_time() - began
    alone = {name: float(whole.found[name].double().mean()) for name in whole.effort}
    names = given.apart.split(",") if given.apart else []
    apart: dict[str, Any] = {}
    for name in names:
        began = time.process_time()
        extra = evade(guard, x, y, threat, bundle=spend, only=[name], pool=pool, seed=given.seed)
        apart[name] = {
            "success": extra.rate,
            "found by no member": int((extra.lost & ~whole.lost).sum()),
            "cpu_seconds": time.process_time() - began,
        }
    n = min(given.long, len(x))
    held = (~whole.lost[:n]).nonzero()[:, 0]
    began = time.process_time()
    more, only = longer(spend, given.factor), given.longer_only.split(",") if given.longer_only else None
    added = None
    if len(held):
        added = evade(guard, x[held], y[held], threat, bundle=more, only=only, pool=pool, seed=given.seed)
    gained = 0 if added is None else int(added.lost.sum())
    return {
        "n": len(x),
        "success": proportion(int(whole.lost.sum()), len(x))._asdict(),
        "members": alone,
        "best_member": max(alone.values()),
        "every_member_cpu_seconds": seconds,
        "apart": apart,
        "longer": {
            "n": n,
            "only": only,
            "success": proportion(n - len(held), n)._asdict(),
            "success_longer": proportion(n - len(held) + gained, n)._asdict(),
            "gained": gained,
            "gained_by": {} if added is None else {name: int(rows.sum()) for name, rows in added.found.items()},
            "cpu_seconds": time.process_time() - began,
        },
    }


def main() -> None:
    parser = options(__doc__, n=100, needed=False)
    parser.add_argument("--guard", action="append", default=[], help="NAME=PLACE, made by robustgen guard")
    parser.add_argument("--bundle", default="adaptive-standard", choices=list(BUNDLES))
    parser.add_argument("--apart", default="", help="families tried beside the bundle, by commas: carlini-wagner")
    parser.add_argument("--eps", default="0.1")
    parser.add_argument("--long", type=int, default=100, help="inputs for the longer run")
    parser.add_argument("--longer-only", default="", help="its members, by commas, if not all: what one can afford")
    parser.add_argument("--factor", type=int, default=10, help="how many times as long it is")
    given = parser.parse_args()
    if not given.detector and not given.guard:
        parser.error("name a --detector or a --guard")
    torch.set_num_threads(1)
    source, victim = load(given.data), load_model(given.victim)
    network = victim.network
    x, y = right_ones(source, network, 2 * given.n, given.n)
    pool = source.read(source.spread("calibration", 2000)).x
    command = (
        "python -m robustgen_benchmarks.adaptive_length --victim VICTIM --{kind} {name}={place} "
        f"--bundle {given.bundle} --eps {given.eps} --n {given.n} --long {given.long} --factor {given.factor} "
        f"--seed {given.seed}" + (f" --apart {given.apart}" if given.apart else "")
    ) + (f" --longer-only {given.longer_only}" if given.longer_only else "")
    file = ResultsFile(given.out, None, data_sha256=source.spec.sha256, victim_sha256=victim.sha256)
    found = {"detector": places(given.detector), "guard": places(given.guard)}
    for kind, name, place in ((kind, name, place) for kind, named in found.items() for name, place in named.items()):
        guard = Guard.load(place) if kind == "guard" else Guard(network, CalibratedDetector.load(place))
        for eps in given.eps.split(","):
            key = f"{name} {given.bundle} {eps} {given.seed}"
            if key not in file.rows:
                row = measured(guard, x, y, pool, float(eps), given)
                row |= {"detector": guard.name, "bundle": asdict(BUNDLES[given.bundle]), "eps": float(eps)}
                row["command"] = command.format(kind=kind, name=name, place=name.upper())
                file.rows[key] = row
                file.save()
            sys.stdout.write(f"{key}: {file.rows[key]}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
