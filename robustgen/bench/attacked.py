"""A guard under attack, by those who know the classifier alone (Z) and by those who know all (W), and under harmless
noise (N).

Transfer (T), queries (Q) and the masking checks are not run here: where they are missing, a row has none.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from robustgen.attacks.fgsm import FGSM
from robustgen.attacks.pgd import PGD
from robustgen.data.source import Source
from robustgen.errors import DataError
from robustgen.evaluation.adaptive import WAYS
from robustgen.evaluation.quantise import quantise
from robustgen.guard import Guard
from robustgen.metrics import Array, auroc, proportion
from robustgen.objectives import Evade
from robustgen.threat import ThreatModel

RATES = (0.001, 0.01, 0.05)
SHARES = (0.5, 0.1, 0.01, 0.001)
_AT_ONCE = 250

Mask = npt.NDArray[np.bool_]


@final
@dataclass(frozen=True)
class Judged:
    """What a guard says of n inputs: whether the label is wrong, whether they are accepted, and their scores."""

    wrong: Mask
    accepted: Mask
    score: Array


def judged(guard: Guard, x: Tensor, y: Tensor) -> Judged:
    """The guard's verdicts, in batches."""
    found = [guard.judge(part) for part in x.split(_AT_ONCE)]
    label = np.concatenate([part.label for part in found])
    flagged = np.concatenate([part.flagged for part in found])
    return Judged(label != y.cpu().numpy(), ~flagged, np.concatenate([part.score for part in found]))


def under_attack(
    guard: Guard, source: Source, *, eps: Sequence[float], steps: int, n: int, n_adaptive: int, seed: int
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Figures of the guard at sizes `eps` of change (Linf), and arrays, one value an input.

    Attackers who do not know the detector attack `n` test inputs by FGSM and PGD, those who do the first `n_adaptive`
    of them by each way of `robustgen.evaluation.adaptive`; the worst case counts, input by input. Every attacked input
    is rounded to 256 levels and judged after that. Raises `DataError` for data without labels.
    """
    batch = source.read(source.spread("test", n))
    if batch.y is None:
        raise DataError(f"{source.spec.name!r} has no labels, which attacks need")
    order = torch.randperm(len(batch), generator=torch.Generator().manual_seed(seed))
    x, y = batch.x[order].to(guard.device), batch.y[order].to(guard.device)
    began = time.perf_counter()
    clean = judged(guard, x, y)
    each = 1000 * (time.perf_counter() - began) / len(x)
    arrays: dict[str, Any] = {"index": batch.index[order].numpy(), "wrong": clean.wrong, "score": clean.score}
    rows, systems = [], []
    few = min(n_adaptive, len(x))
    for size in eps:
        threat = ThreatModel("linf", size, source.spec.low, source.spec.high)
        blind = {"fgsm": FGSM(threat=threat), "pgd": PGD(threat=threat, steps=steps, seed=seed, mode="max-loss")}
        lost = {"Z": np.zeros(len(x), bool), "W": np.zeros(few, bool)}
        for threatened, attacks, limit in (("Z", blind, len(x)), ("W", _knowing(guard, threat, steps, seed), few)):
            for name, attack in attacks.items():
                began = time.perf_counter()
                x_adv = quantise(threat, attack(guard.classifier, x[:limit], y[:limit]), x[:limit])
                seconds = time.perf_counter() - began
                after = judged(guard, x_adv, y[:limit])
                lost[threatened] |= after.wrong & after.accepted
                arrays |= {f"{name}_{size:g}_wrong": after.wrong, f"{name}_{size:g}_score": after.score}
                row = {"threat": threatened, "attack": name, "norm": "linf", "eps": size, "seconds": seconds}
                rows.append(row | _against(clean, after, guard))
        systems.append(_system(clean, lost, size, few, guard.differentiable))
    useful, right = ~clean.wrong & clean.accepted, ~clean.wrong
    threshold = guard.threshold
    assert threshold is not None  # judge() has looked
    figures = {
        "fpr": threshold.fpr,
        "clean": {
            "n": len(x),
            "accuracy": _share(right),
            "useful": _share(useful),
            "false_alarms": _share(~clean.accepted),
            "false_rejects_right": _share(~clean.accepted[right]),
            "false_rejects_wrong": _share(~clean.accepted[~right]),
            "ms_per_input": each,
            "n_calibration": threshold.n_calibration,
            "threshold": threshold.value,
        },
        "rows": rows,
        "noise": [_noise(guard, x, y, clean, size, seed, source) for size in eps],
        "systems": systems,
        "checks": [_knowledge_helps(systems)] if guard.differentiable else [],
        "sentence": None,
    }
    return figures, arrays


def _knowing(guard: Guard, threat: ThreatModel, steps: int, seed: int) -> Mapping[str, PGD]:
    """Attacks on classifier and score together; none where the score has no gradient to follow."""
    threshold = guard.threshold
    if not guard.differentiable or threshold is None:
        return {}
    return {
        name: PGD(
            threat=threat,
            objective=Evade(guard.score, threshold.value, **way),
            steps=steps,
            seed=seed,
            mode="max-loss",  # to the end: rounding undoes narrow successes
        )
        for name, way in WAYS.items()
    }


def _share(mask: Mask) -> dict[str, Any] | None:
    return proportion(int(mask.sum()), len(mask))._asdict() if len(mask) else None


def _against(clean: Judged, after: Judged, guard: Guard) -> dict[str, Any]:
    """One attack, judged where the clean input was right: success, and how well successes can be told from clean
    inputs.
    """
    right = ~clean.wrong[: len(after.wrong)]
    fooled = after.wrong & right
    row: dict[str, Any] = {
        "n": int(right.sum()),
        "fooled": _share(fooled[right]),
        "success": _share((fooled & after.accepted)[right]),
        "failed_flagged": _share(~after.accepted[right & ~fooled]),
    }
    if not fooled.any():
        return row | dict.fromkeys(("auroc", "auroc_right_only", "tpr", "precision"))
    successes = after.score[fooled]
    caught, alarms = float((~after.accepted[fooled]).mean()), float((~clean.accepted).mean())
    return row | {
        "auroc": auroc(clean.score, successes)._asdict(),
        "auroc_right_only": auroc(clean.score[~clean.wrong], successes)._asdict(),
        "tpr": {f"{rate:g}": _caught(guard, successes, rate) for rate in RATES},
        "precision": {
            f"{share:g}": share * caught / (share * caught + (1 - share) * alarms) if caught + alarms > 0 else None
            for share in SHARES
        },
    }


def _caught(guard: Guard, successes: Array, rate: float) -> dict[str, Any] | None:
    """Detection at a threshold from held-out inputs, None where they are too few for such a rate."""
    try:
        threshold = guard.at(rate).threshold
    except DataError:
        return None
    assert threshold is not None
    return _share(successes > threshold.value)


def _system(clean: Judged, lost: Mapping[str, Mask], eps: float, few: int, attacked: bool) -> dict[str, Any]:
    """The system as a whole on the first `few` inputs, those that all attackers tried."""
    wrong, accepted = clean.wrong[:few], clean.accepted[:few]
    blind, knowing = lost["Z"][:few], lost["W"]
    worst, right = blind | knowing, ~wrong
    held = ~(worst | (wrong & accepted))
    return {
        "norm": "linf",
        "eps": eps,
        "n": few,
        "robust_accuracy": _share(held),
        "fc": _share(held & right & accepted),
        "success_oblivious": _share(blind[right]),
        "success_adaptive": _share(knowing[right]) if attacked else None,
        "success_worst": _share(worst[right]),
        "rejected_small": {},
        "tramer": {"bound": None, "passed": None},
    }


def _knowledge_helps(systems: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Whether attackers who know the detector reach at least what those reach who do not, at every size."""
    short = [
        f"{100 * system['success_oblivious']['value']:.1f} % → {100 * system['success_adaptive']['value']:.1f} % at "
        "eps "
        f"{system['eps']:g}"
        for system in systems
        if system["success_adaptive"] and system["success_adaptive"]["value"] < system["success_oblivious"]["value"]
    ]
    return {
        "name": "knowledge-helps",
        "passed": not short,
        "found": f"Oblivious → adaptive: {', '.join(short)}." if short else "Adaptive success is nowhere lower.",
        "means": "Who knows the detector can do all that others can: if those succeed more often, the adaptive "
        "attacks are "
        "too weak here, and only the worst case counts.",
    }


def _noise(guard: Guard, x: Tensor, y: Tensor, clean: Judged, eps: float, seed: int, source: Source) -> dict[str, Any]:
    """Random signs of size `eps`, which are no attack: the share flagged where the label stays right."""
    signs = torch.randint(0, 2, x.shape, generator=torch.Generator().manual_seed(seed)).to(x) * 2 - 1
    after = judged(guard, (x + eps * signs).clamp(source.spec.low, source.spec.high), y)
    kept = ~clean.wrong & ~after.wrong
    return {"kind": "sign", "eps": eps, "kept": int(kept.sum()), "flagged": _share(~after.accepted[kept])}
