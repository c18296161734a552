"""What can be proven of a guard at each eps, beside what attackers who know it reach on the same inputs.

A detector is fitted once, on the training split, and calibrated to 5 % false alarms beside each classifier on the
calibration split (its training never looks at a classifier). On test inputs in an order of the seed: clean useful
accuracy, certified robust accuracy with detector by interval bounds, and on the first of them the worst case over the
bundle `adaptive-standard`, which may not break a single certified input.

    python -m robustgen_benchmarks.certified --data fashion-mnist --victims plain=victim/ --detectors FOLDER \\
        --out certified.json

Fitted detectors are kept in --detectors; the JSON is written after each row, and what it holds is not run again.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from robustgen.artifacts import is_artifact, staged, to_json
from robustgen.bench.guarded import inputs
from robustgen.calibration import calibrate
from robustgen.data.load import load
from robustgen.data.source import Source
from robustgen.detectors.calibrated import CalibratedDetector
from robustgen.evaluation.adaptive import evade
from robustgen.evaluation.certified import certify
from robustgen.guard import Guard
from robustgen.metrics import proportion
from robustgen.models.load import LoadedModel, load_model
from robustgen.threat import ThreatModel
from robustgen_benchmarks.results_file import ResultsFile

FPR = 0.05


def fitted(name: str, source: Source, victim: LoadedModel, folder: Path, seed: int) -> tuple[CalibratedDetector, Any]:
    """The detector, from `folder` if it is there, and how many CPU seconds its fit took."""
    place, clock = folder / f"{name}_{seed}", folder / f"{name}_{seed}.json"
    if not is_artifact(place):
        began = time.process_time()
        made = CalibratedDetector.fit(name, source, options={"seed": seed}, model=victim, progress=_tell)
        seconds = time.process_time() - began
        with staged(place, False, "detector") as directory:
            made.save(directory)
        clock.write_text(to_json({"fit_cpu_seconds": seconds}), encoding="utf-8")
    known = json.loads(clock.read_text(encoding="utf-8")) if clock.is_file() else {}
    return CalibratedDetector.load(place), known.get("fit_cpu_seconds")


def _tell(done: int, of: int, loss: float) -> None:
    sys.stderr.write(f"epoch {done} of {of}, loss {loss:.3f}\n")


def beside(fitted: CalibratedDetector, victim: LoadedModel, source: Source) -> Guard:
    """The detector calibrated against the predictions of another classifier."""
    moved = replace(fitted, model=victim)
    scores = moved.scores(source, "calibration")
    return Guard(victim, replace(moved, threshold=calibrate(scores, FPR), calibration_scores=np.sort(scores)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="fashion-mnist")
    parser.add_argument("--victims", required=True, help="names and classifiers made by robustgen train, by commas")
    parser.add_argument("--detectors", type=Path, required=True, help="where fitted detectors are kept")
    parser.add_argument("--only", default="certified-gat,gat")
    parser.add_argument("--eps", default="0.02,0.05,0.1,0.2")
    parser.add_argument("--attacked", default="0.1", help="sizes at which attackers are tried too")
    parser.add_argument("--n", type=int, default=1000)
    parser.add_argument("--n-adaptive", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    torch.set_num_threads(1)
    source = load(given.data)
    victims = {name: load_model(path) for name, _, path in (part.partition("=") for part in given.victims.split(","))}
    x, y, _ = inputs(source, given.n, given.seed)
    file = ResultsFile(
        given.out,
        f"python -m robustgen_benchmarks.certified --data {given.data} --victims "
        f"{','.join(f'{name}=VICTIM' for name in victims)} --detectors FOLDER --only {given.only} --eps {given.eps} "
        f"--attacked {given.attacked} --n {given.n} --n-adaptive {given.n_adaptive} --seed {given.seed}",
        data_sha256=source.spec.sha256,
        victims={name: model.sha256 for name, model in victims.items()},
    )
    for name in given.only.split(","):
        detector, seconds = fitted(name, source, next(iter(victims.values())), given.detectors, given.seed)
        for beside_what, victim in victims.items():
            guard = beside(detector, victim, source)
            row = file.rows.setdefault(f"{name}, {beside_what}, seed {given.seed}", {})
            row |= {
                "detector": name,
                "options": detector.detector.config,
                "victim": beside_what,
                "fit_cpu_seconds": seconds,
                "threshold": guard.threshold.value,
                "n_calibration": guard.threshold.n_calibration,
            }
            row.setdefault("false_alarms", false_alarms(guard, x))
            for size in given.eps.split(","):
                part = row.setdefault("eps", {}).setdefault(size, {})
                threat = ThreatModel("linf", float(size), source.spec.low, source.spec.high)
                wanted = size in given.attacked.split(",") and given.n_adaptive > 0 and "attacked" not in part
                if "certified" in part and not wanted:
                    continue
                began = time.process_time()
                proof = certify(guard, x, y, threat)
                part["certified"] = proof.figures() | {"cpu_seconds": time.process_time() - began}
                file.save()
                if wanted:
                    n = min(given.n_adaptive, len(x))
                    part["attacked"] = attacked(guard, x[:n], y[:n], threat, proof.certified[:n], given.seed)
                    file.save()
                told = part["certified"]["certified_robust_accuracy"]["value"], part.get("attacked")
                sys.stdout.write(f"{name}, {beside_what}, eps {size}: {told}\n")
                sys.stdout.flush()


def attacked(
    guard: Guard, x: torch.Tensor, y: torch.Tensor, threat: ThreatModel, certified: torch.Tensor, seed: int
) -> dict[str, Any]:
    """Robust accuracy with detector against those who know it, and how many certified inputs they broke."""
    began = time.process_time()
    lost = evade(guard, x, y, threat, bundle="adaptive-standard", seed=seed).lost
    return {
        "bundle": "adaptive-standard",
        "robust_accuracy": proportion(int((~lost).sum()), len(x))._asdict(),
        "certified_of_these": proportion(int(certified.sum()), len(x))._asdict(),
        "certified_but_broken": int((lost & certified).sum()),
        "cpu_seconds": time.process_time() - began,
    }


def false_alarms(guard: Guard, x: torch.Tensor) -> dict[str, float]:
    """The share of clean inputs rejected."""
    flagged = np.concatenate([guard.judge(part).flagged for part in x.split(250)])
    return proportion(int(flagged.sum()), len(x))._asdict()


if __name__ == "__main__":
    main()
