"""What does momentum add to an attack that knows the detector?

Each member of a bundle that steps along gradients is run on every input with the decays given, 0 being none: what each
reaches by itself, what all of them reach together, and the time. Detectors stand behind one classifier, and inputs are
test inputs that it has right.

    python -m robustgen_benchmarks.momentum --victim victim/ --detector magnet=magnet/ --n 150 --out momentum.json

A row that is in the file already is not measured again.
"""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from robustgen.attacks.evading import EvadingPGD
from robustgen.attacks.passes import evaluated
from robustgen.data.load import load
from robustgen.detectors.calibrated import CalibratedDetector
from robustgen.evaluation.adaptive import rejection_of, verdicts
from robustgen.evaluation.bundles import BUNDLES, members
from robustgen.evaluation.noise import constant_background
from robustgen.guard import Guard
from robustgen.metrics import proportion
from robustgen.models.load import load_model
from robustgen.threat import ThreatModel
from robustgen_benchmarks.behind_victim import options, places, right_ones
from robustgen_benchmarks.results_file import ResultsFile


def measured(guard: Guard, x: Tensor, y: Tensor, eps: float, decays: list[float], given: Any) -> dict[str, Any]:
    """By decay: the share of inputs lost to each member, to all of them, and seconds of computing."""
    threat, rejection = ThreatModel("linf", eps), rejection_of(guard)
    spend = BUNDLES[given.bundle]
    made = members(spend, threat, rejection, rejection, None, {}, background=constant_background(x), seed=given.seed)
    following = {name: attack for name, attack in made.items() if isinstance(attack, EvadingPGD)}
    found: dict[str, Any] = {}
    ever = torch.zeros_like(y, dtype=torch.bool)
    with evaluated(guard, channels_last=True):
        for decay in decays:
            lost, began, alone = torch.zeros_like(ever), time.process_time(), {}
            for name, attack in following.items():
                point = replace(attack, decay=decay).run(guard.classifier, x, y, verify=False).x_adv
                wrong, accepted, *_ = verdicts(guard, point, y)
                alone[name] = float((wrong & accepted).double().mean())
                lost |= wrong & accepted
            ever |= lost
            found[f"{decay:g}"] = {
                "members": alone,
                "success": proportion(int(lost.sum()), len(x))._asdict(),
                "cpu_seconds": time.process_time() - began,
            }
    return {"n": len(x), "decays": found, "success_of_all": proportion(int(ever.sum()), len(x))._asdict()}


def main() -> None:
    parser = options(__doc__, n=150, needed=False)
    parser.add_argument("--guard", action="append", default=[], help="NAME=PLACE, made by robustgen guard")
    parser.add_argument("--bundle", default="adaptive-standard", choices=list(BUNDLES))
    parser.add_argument("--decays", default="0,0.75,0.9")
    parser.add_argument("--eps", type=float, default=0.1)
    given = parser.parse_args()
    torch.set_num_threads(1)
    source, victim = load(given.data), load_model(given.victim)
    x, y = right_ones(source, victim.network, 2 * given.n, given.n)
    command = (
        "python -m robustgen_benchmarks.momentum --victim VICTIM --detector NAME=PLACE --guard NAME=PLACE "
        f"--bundle {given.bundle} --decays {given.decays} --eps {given.eps:g} --n {given.n} --seed {given.seed}"
    )
    file = ResultsFile(given.out, command, data_sha256=source.spec.sha256, victim_sha256=victim.sha256)
    decays = [float(decay) for decay in given.decays.split(",")]
    guards = places(given.guard)
    for name, place in (places(given.detector) | guards).items():
        key = f"{name} {given.eps:g} {given.seed}"
        if key not in file.rows:
            guard = Guard.load(place) if name in guards else Guard(victim, CalibratedDetector.load(place))
            file.rows[key] = measured(guard, x, y, given.eps, decays, given)
            file.save()
        sys.stdout.write(f"{key}: {file.rows[key]}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
