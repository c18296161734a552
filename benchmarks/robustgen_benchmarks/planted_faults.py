"""Are faults that make a detector look strong found, and is what they hide still broken?

A principal-component detector beside a small network on digits, sound and with each of eight planted faults (`faults`).
For each: which masking checks fail; how many inputs an attacker loses who follows the faulty score (`followed`); and
how many fall to one who goes round the fault (`broken`), all judged by the faulty guard itself: by the score without
the fault as a stand-in for its gradient (BPDA, Athalye, Carlini, Wagner 2018), by the mean over draws (EOT) for random
ones.
What an attacker of a random score finds is judged by the majority of 21 fresh draws, each row by itself.

    python -m robustgen_benchmarks.planted_faults --out planted_faults.json
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from robustgen.attacks.pgd import PGD
from robustgen.data.load import load
from robustgen.detectors.calibrated import CalibratedDetector
from robustgen.evaluation.bundles import WAYS
from robustgen.evaluation.masking import masking_checks
from robustgen.guard import Guard
from robustgen.objectives import Evade, Rejection, Score
from robustgen.runtime import seeded
from robustgen.threat import ThreatModel
from robustgen.training.classifier import train
from robustgen.training.descent import Recipe
from robustgen_benchmarks.faults import FAULTS, Fault, Faulty, planted
from robustgen_benchmarks.results_file import ResultsFile


def lost(guard: Guard, score: Score, threshold: float, x: Tensor, y: Tensor, threat: ThreatModel, eot: int) -> Tensor:
    """(n,) inputs for which following `score` makes the guard itself accept a wrong label."""
    passed = torch.zeros_like(y, dtype=torch.bool)
    for way in WAYS.values():
        attack = PGD(threat=threat, objective=Evade(Rejection(score, threshold, draws=eot), **way), steps=40)
        with seeded(0), torch.no_grad():
            found = attack(guard.classifier, x, y)
            label, votes = guard.classifier(found).argmax(1), torch.zeros(len(x))
            for _ in range(21):
                apart = [guard.score(found[k : k + 1], label[k : k + 1]) for k in range(len(x))]
                votes += guard.accepts(torch.cat(apart)).float()
        passed |= (label != y) & (votes > 10)
    return passed


def row(guard: Guard, fault: str, x: Tensor, y: Tensor, threat: ThreatModel) -> dict[str, Any]:
    began = time.process_time()
    checks = masking_checks(guard, threat, x, y)
    threshold = guard.threshold
    assert threshold is not None  # a guard of one detector has its own
    followed = lost(guard, guard.score, threshold.value, x, y, threat, 1)
    faulty = guard.members[0].detector
    how, found = "", followed
    if isinstance(faulty, Faulty):
        random = fault == "randomised"
        how = "EOT, 10 draws" if random else "BPDA, the score without the fault"
        stand_in: Score = guard.score if random else lambda z, label: faulty.smooth(z)
        # a little below the threshold, for what the fault adds
        aim = threshold.value if random else 0.9
        found = lost(guard, stand_in, aim, x, y, threat, 10 if random else 1)
    return {
        "caught_by": [check.name for check in checks if check.passed is False],
        "checks": [check.to_json() for check in checks],
        "n": len(x),
        "followed": float(followed.double().mean()),
        "broken": float(found.double().mean()),
        "how": how,
        "cpu_seconds": time.process_time() - began,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--eps", type=float, default=0.2)
    parser.add_argument("--n", type=int, default=50)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    torch.set_num_threads(1)
    source, threat = load("digits"), ThreatModel("linf", given.eps)
    model = train(source, "mlp", recipe=Recipe(epochs=15)).model
    batch = source.read(source.rows("test")[: 2 * given.n])
    assert batch.y is not None  # digits are labelled
    with torch.no_grad():
        right = (model.network(batch.x).argmax(1) == batch.y).nonzero()[:, 0][: given.n]
    x, y = batch.x[right], batch.y[right]
    sound = CalibratedDetector.fit("pca", source)
    command = f"python -m robustgen_benchmarks.planted_faults --eps {given.eps:g} --n {given.n}"
    file = ResultsFile(given.out, command, data_sha256=source.spec.sha256)
    for fault in ("none", *FAULTS):
        if fault in file.rows:
            continue
        fitted = sound if fault == "none" else planted(sound, cast(Fault, fault), source)
        file.rows[fault] = row(Guard(model, fitted), fault, x, y, threat)
        file.save()
        told = {key: value for key, value in file.rows[fault].items() if key != "checks"}
        sys.stdout.write(f"{fault}: {told}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
