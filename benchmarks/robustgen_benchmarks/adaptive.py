"""Do detectors of adversarial inputs hold against an attacker who knows them?

Each detector is fitted on the training split, beside a classifier, and calibrated to 5 % false alarms on held-out
images. On correctly classified test images, at each eps (Linf): how often an attacker who knows the classifier alone
gets a wrong label accepted (FGSM, PGD); how often one does who attacks classifier and detector together (see
`robustgen.evaluation.adaptive`: the worst case over all attacks, towards any wrong label and towards each of the most
likely ones, and over those of the first kind); AUROC of all clean images against successful attacks of the first kind.
As a control, random signs of 0.05 on every value, which fool nobody: the share flagged where the label stays. A longer
run of the selective way shows whether the figures are limited by the attack.

    python -m robustgen_benchmarks.adaptive --data fashion-mnist --victim victim/ --detectors FOLDER --out adaptive.json

Fitted detectors are kept in --detectors; the JSON is written after each row, and what it holds is not run again.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from robustgen.artifacts import is_artifact, staged
from robustgen.attacks.fgsm import FGSM
from robustgen.attacks.pgd import PGD
from robustgen.data.load import load
from robustgen.data.source import Source
from robustgen.detectors.calibrated import CalibratedDetector
from robustgen.detectors.making import accepts, kind_of
from robustgen.evaluation.adaptive import evade
from robustgen.evaluation.bundles import BUNDLES
from robustgen.evaluation.bundles import longer as with_more
from robustgen.guard import Guard
from robustgen.metrics import Array, auroc
from robustgen.models.load import LoadedModel, load_model
from robustgen.objectives import Model
from robustgen.threat import ThreatModel
from robustgen_benchmarks.results_file import ResultsFile
from robustgen_benchmarks.victims import first, predictions

NOISE = 0.05


def fitted(
    name: str, source: Source, victim: LoadedModel, preset: str, seed: int, folder: Path
) -> tuple[CalibratedDetector, float | None]:
    """The detector, from `folder` if it is there, and how many CPU seconds its fit took if it was made now."""
    place, through = folder / f"{name}_{preset}_{seed}", victim if kind_of(name).conditional else None
    began, seconds = time.process_time(), None
    if not is_artifact(place):
        options = {key: value for key, value in (("preset", preset), ("seed", seed)) if accepts(name, key)}
        made = CalibratedDetector.fit(name, source, options=options, model=through)
        seconds = time.process_time() - began
        with staged(place, False, "detector") as directory:
            made.save(directory)
    return CalibratedDetector.load(place), seconds


def scored(detector: CalibratedDetector, x: Tensor) -> Array:
    """Scores in batches of 250."""
    with torch.no_grad():
        return torch.cat([detector.score(part) for part in x.split(250)]).double().numpy()


def oblivious(
    detector: CalibratedDetector, network: Any, clean: Array, x: Tensor, y: Tensor, eps: float, given: Any
) -> dict[str, Any]:
    """What attackers of size `eps` who know the classifier alone reach on correctly classified inputs, and AUROC of
    their successful results against all `clean` scores.
    """
    threat = ThreatModel("linf", eps)
    found, lost = dict[str, Any](), np.zeros(len(x), dtype=bool)
    attacks = {"fgsm": FGSM(threat=threat), "pgd": PGD(threat=threat, steps=given.steps, mode="max-loss")}
    for name, attack in attacks.items():
        x_adv = attack(network, x, y)
        fooled, scores = (predictions(network, x_adv) != y).numpy(), scored(detector, x_adv)
        passed = fooled & (scores <= detector.threshold.value)
        lost |= passed
        found[name] = {
            "fooled": float(fooled.mean()),
            "success": float(passed.mean()),
            "auroc": auroc(clean, scores[fooled]).value if fooled.any() else None,
        }
    return found | {"success": float(lost.mean()), "lost": np.flatnonzero(lost).tolist()}


def knowing(
    detector: CalibratedDetector, network: Any, x: Tensor, y: Tensor, before: list[int], eps: float, given: Any
) -> dict[str, Any]:
    """What attackers of size `eps` who know both reach, counting the inputs that were lost `before`."""
    began = time.process_time()
    spend = replace(BUNDLES["adaptive-standard"], steps=given.steps, targets=given.targets)
    evasion = evade(Guard(network, detector), x, y, ThreatModel("linf", eps), bundle=spend)
    lost = evasion.lost.numpy().copy()
    lost[before] = True
    return {
        "success": float(lost.mean()),
        "by": {name: float(rows.double().mean()) for name, rows in evasion.found.items()},
        "attack_cpu_seconds": time.process_time() - began,
        "lost": np.flatnonzero(lost).tolist(),
    }


def longer(
    detector: CalibratedDetector, network: Any, x: Tensor, y: Tensor, before: list[int], eps: float, given: Any
) -> dict[str, Any]:
    """What ten times the steps of the selective way add on the first inputs."""
    n = min(given.long, len(x))
    spend = with_more(replace(BUNDLES["adaptive-standard"], steps=given.steps, targets=given.targets), 10)
    evasion = evade(Guard(network, detector), x[:n], y[:n], ThreatModel("linf", eps), bundle=spend, only=["s-pgd"])
    lost = np.isin(np.arange(n), before)
    both = lost | evasion.lost.numpy()
    return {"n": n, "before": float(lost.mean()), "with ten times the steps": float(both.mean())}


def control(detector: CalibratedDetector, network: Model, x: Tensor) -> dict[str, float]:
    """False alarms on the clean test inputs, and flags of random signs where they leave the label as it was."""
    signs = 2.0 * torch.randint(0, 2, x.shape, generator=torch.Generator().manual_seed(0)) - 1
    noisy = (x + NOISE * signs).clamp(0, 1)
    kept = (predictions(network, noisy) == predictions(network, x)).numpy()  # type: ignore[arg-type]
    flagged = scored(detector, noisy) > detector.threshold.value
    return {
        "false_alarms": float((scored(detector, x) > detector.threshold.value).mean()),
        "noise_flagged": float(flagged[kept].mean()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="fashion-mnist")
    parser.add_argument("--victim", required=True, help="a classifier made by robustgen train")
    parser.add_argument("--detectors", type=Path, required=True, help="where fitted detectors are kept")
    parser.add_argument("--only", default="gat:default,autoencoder:fast,conditional-vae:fast,conditional-gan:fast")
    parser.add_argument("--eps", default="0.1,0.05")
    parser.add_argument("--n", type=int, default=200)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--targets", type=int, default=3)
    parser.add_argument("--long", type=int, default=50, help="inputs for the longer run")
    parser.add_argument("--control", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    torch.set_num_threads(1)
    source, victim = load(given.data), load_model(given.victim)
    network = victim.network
    everything = first(source, max(given.control, 2 * given.n))
    right = (predictions(network, everything.x) == everything.y).nonzero()[:, 0][: given.n]
    x, y = everything.x[right], everything.y[right]
    file = ResultsFile(
        given.out,
        f"python -m robustgen_benchmarks.adaptive --data {source.spec.name} --victim VICTIM --detectors "
        f"FOLDER --only {given.only} --eps {given.eps} --n {given.n} --steps {given.steps} --targets {given.targets} "
        f"--long {given.long} --seed {given.seed}",
        data_sha256=source.spec.sha256,
        victim_sha256=victim.sha256,
        victim_accuracy=float((predictions(network, everything.x) == everything.y).double().mean()),
    )
    for job in given.only.split(","):
        name, _, preset = job.partition(":")
        key = f"{name} {preset} {given.seed}"
        rows = file.rows.setdefault(key, {})
        detector, seconds = fitted(name, source, victim, preset, given.seed, given.detectors)
        if seconds is not None:
            rows["fit_cpu_seconds"] = seconds
        if "control" not in rows:
            rows["control"] = control(detector, network, everything.x[: given.control])
            file.save()
        clean = scored(detector, everything.x[: given.control])
        for eps in given.eps.split(","):
            part = rows.setdefault(eps, {})
            if "oblivious" not in part:
                part["oblivious"] = oblivious(detector, network, clean, x, y, float(eps), given)
            if "adaptive" not in part:
                part["adaptive"] = knowing(detector, network, x, y, part["oblivious"]["lost"], float(eps), given)
            if given.long and "longer" not in part:
                part["longer"] = longer(detector, network, x, y, part["adaptive"]["lost"], float(eps), given)
            file.save()
            told = {kind: {k: v for k, v in found.items() if k != "lost"} for kind, found in part.items()}
            sys.stdout.write(f"{key} eps {eps}: {told} {rows['control']}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
