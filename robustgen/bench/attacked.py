"""A guard under attack, by those who know the classifier alone (Z), by those who know all (W, by queries Q), and under
harmless noise (N).

Transfer (T) and most masking checks are not run here: where they are missing, a row has none.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from robustgen.attacks.fgsm import FGSM
from robustgen.attacks.pgd import PGD
from robustgen.data.source import Source
from robustgen.errors import DataError
from robustgen.evaluation.adaptive import evade
from robustgen.evaluation.bundles import Bundle
from robustgen.evaluation.guarded import AttackedArrays, CleanArrays, Threat
from robustgen.evaluation.guarded_system import cell
from robustgen.evaluation.quantise import quantise
from robustgen.guard import Guard
from robustgen.threat import ThreatModel

_AT_ONCE = 250
_QUERIES = 100


def under_attack(
    guard: Guard, source: Source, *, eps: Sequence[float], steps: int, n: int, n_adaptive: int, seed: int
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Figures of the guard at sizes `eps` of change (Linf), and arrays, one value an input.

    Attackers who do not know the detector attack `n` test inputs by FGSM and PGD and are judged after rounding to 256
    levels; those who do attack the first `n_adaptive` of them by a bundle of `steps` steps, or where the score has no
    gradients by queries alone. Raises `DataError` for data without labels.
    """
    threshold = guard.threshold
    assert threshold is not None  # a guard of a finished cell is calibrated
    batch = source.read(source.spread("test", n))
    if batch.y is None:
        raise DataError(f"{source.spec.name!r} has no labels, which attacks need")
    order = torch.randperm(len(batch), generator=torch.Generator().manual_seed(seed))
    x, y = batch.x[order].to(guard.device), batch.y[order].to(guard.device)
    began = time.perf_counter()
    clean = CleanArrays(y.cpu().numpy(), *_verdicts(guard, x), guard.calibration_scores)
    each = 1000 * (time.perf_counter() - began) / len(x)
    few, found = min(n_adaptive, len(x)), list[AttackedArrays]()
    for size in eps:
        threat = ThreatModel("linf", size, source.spec.low, source.spec.high)
        blind = {"fgsm": FGSM(threat=threat), "pgd": PGD(threat=threat, steps=steps, seed=seed, mode="max-loss")}
        for name, attack in blind.items():
            began = time.perf_counter()
            x_adv = quantise(threat, attack(guard.classifier, x, y), x)
            found.append(_arrays(guard, "Z", name, size, x_adv, time.perf_counter() - began))
        found.append(_knowing(guard, threat, x[:few], y[:few], steps, seed))
        signs = torch.randint(0, 2, x.shape, generator=torch.Generator().manual_seed(seed)).to(x) * 2 - 1
        found.append(_arrays(guard, "N", "sign", size, (x + size * signs).clamp(threat.low, threat.high), 0.0))
    figures = cell(clean, found, threshold.fpr, among=np.arange(few), ms_per_input=each)
    checks = {"checks": [_knowledge_helps(figures["systems"])]}
    arrays: dict[str, Any] = {"index": batch.index[order].numpy(), "label": clean.label, "predicted": clean.predicted}
    arrays["score"] = clean.score
    for one in found:
        word = f"{one.attack}_{one.eps:g}"
        arrays |= {f"{word}_predicted": one.predicted, f"{word}_score": one.score}
    return figures | checks, arrays


def _verdicts(guard: Guard, x: Tensor) -> tuple[Any, Any]:
    """Predicted classes and scores, in batches."""
    found = [guard.judge(part) for part in x.split(_AT_ONCE)]
    return np.concatenate([part.label for part in found]), np.concatenate([part.score for part in found])


def _arrays(guard: Guard, threat: Threat, name: str, eps: float, x: Tensor, seconds: float) -> AttackedArrays:
    return AttackedArrays(threat, name, "linf", eps, np.arange(len(x)), *_verdicts(guard, x), seconds=seconds)


def _knowing(guard: Guard, threat: ThreatModel, x: Tensor, y: Tensor, steps: int, seed: int) -> AttackedArrays:
    """The worst case, input by input, over a bundle of attacks on classifier and score together."""
    spend = Bundle(steps, ("random", "pgd"), 1, 3, steps // 2, steps // 2, 1, _QUERIES, 0, 1)
    if not guard.differentiable:
        spend = Bundle(0, (), 1, 0, 0, 0, 0, _QUERIES, 0, 1)
    began = time.perf_counter()
    x_adv = evade(guard, x, y, threat, bundle=spend, seed=seed).x_adv
    kind: Threat = "W" if guard.differentiable else "Q"
    return _arrays(guard, kind, "adaptive", threat.eps, x_adv, time.perf_counter() - began)


def _knowledge_helps(systems: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Whether attackers who know the detector reach at least what those reach who do not, at every size."""
    short = [
        f"{100 * system['success_oblivious']['value']:.1f} % → {100 * system['success_adaptive']['value']:.1f} % at "
        f"eps {system['eps']:g}"
        for system in systems
        if system["success_adaptive"] and system["success_adaptive"]["value"] < system["success_oblivious"]["value"]
    ]
    return {
        "name": "knowledge-helps",
        "passed": not short,
        "found": f"Oblivious → adaptive: {', '.join(short)}." if short else "Adaptive success is nowhere lower.",
        "means": "Who knows the detector can do all that others can: if those succeed more often, the adaptive attacks "
        "are too weak here, and only the worst case counts.",
    }
