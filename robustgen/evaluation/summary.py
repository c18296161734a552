"""What a run says in sum: rates with intervals, norms, cost, and warnings; a pure function of its per-sample arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from robustgen.attacks.base import Attack
from robustgen.data.source import Source
from robustgen.evaluation.quantise import LEVELS
from robustgen.metrics import Estimate, proportion

Samples = dict[str, npt.NDArray[Any]]


class Rates(NamedTuple):
    """Shares with their intervals; `success` is None where no input was attacked."""

    clean: Estimate
    robust: Estimate
    success: Estimate | None


def rates(samples: Samples) -> Rates:
    """From `success`, `attacked`, `clean_prediction` and `y`."""
    attacked, success = samples["attacked"], samples["success"]
    correct, n = samples["clean_prediction"] == samples["y"], len(samples["y"])
    return Rates(
        proportion(int(correct.sum()), n),
        proportion(int((correct & ~success).sum()), n),
        proportion(int(success.sum()), int(attacked.sum())) if attacked.any() else None,
    )


def configuration(attack: Attack) -> dict[str, Any]:
    """An attack's fields as plain values, for JSON."""

    def plain(value: Any) -> Any:
        if is_dataclass(value) and not isinstance(value, type):
            return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
        if isinstance(value, dict):
            return {str(key): plain(inner) for key, inner in value.items()}
        if isinstance(value, list | tuple):
            return [plain(inner) for inner in value]
        if value is None or isinstance(value, str | bool | int | float):
            return value
        return getattr(value, "__name__", type(value).__name__)

    result: dict[str, Any] = plain(attack)
    return result


def full_steps(attack: Attack, classes: int = 0) -> int | None:
    """How many steps (or queries) an input that is never fooled takes; None for an attack that does not count them so.

    `classes`: how many the data has, 0 = unknown; there are no more targets than other classes.
    """
    steps = getattr(attack, "steps", getattr(attack, "queries", None))
    restarts, targets = getattr(attack, "restarts", 1), getattr(attack, "targets", 1)
    if len(attack.members) > 1 or not all(isinstance(count, int) for count in (steps, restarts, targets)):
        return None
    return int(steps * restarts * (min(targets, classes - 1) if classes > 1 else targets))  # type: ignore[operator]


def effort(samples: Samples, steps: int | None, sizes: Sequence[float]) -> dict[str, Any]:
    """What leaving inputs out as soon as they are fooled can save, where `steps` are all that an input can take.

    `first_success_mean`: steps until an input is first fooled, all of them where it never is; where several `sizes` of
    change are run one after the other, the mean over these, with 0 where a smaller size was enough. `ceiling`: steps
    over that mean; no attack of this kind can be faster than that many times one that always takes all steps.
    """
    attacked, result = samples["attacked"], {"steps": steps, "first_success_mean": None, "ceiling": None}
    if steps is None or not len(sizes) or not attacked.any():
        return result
    success, first = samples["success"][attacked], samples["first_success"][attacked]
    if first.max() > steps:  # this attack counts in another way
        return result | {"steps": None}
    before = np.searchsorted(np.asarray(sizes), samples["eps"][attacked]) * (len(sizes) > 1)
    mean = float(np.where(success, before * steps + first, len(sizes) * steps).mean() / len(sizes))
    return {"steps": steps, "first_success_mean": mean, "ceiling": steps / mean if mean else None}


def summarise(attack: Attack, source: Source, samples: Samples) -> dict[str, Any]:
    """Everything that follows from the attack and its samples but the effort, the curve and the diagnosis."""
    found, success = rates(samples), samples["success"]
    norms = {}
    for norm in ("linf", "l2", "l1", "l0"):
        lengths = samples[f"norm_{norm}"][success]
        norms[norm] = {"median": float(np.median(lengths)), "max": float(lengths.max())} if len(lengths) else None
    member = samples["member"][success]
    return {
        "norm": attack.threat.norm,
        "eps": attack.threat.eps,
        "n": len(success),
        "n_attacked": int(samples["attacked"].sum()),
        "clean_accuracy": found.clean.value,
        "clean_accuracy_interval": [found.clean.low, found.clean.high],
        "robust_accuracy": found.robust.value,
        "robust_accuracy_interval": [found.robust.low, found.robust.high],
        "success_rate": None if found.success is None else found.success.value,
        "success_rate_interval": None if found.success is None else [found.success.low, found.success.high],
        "norms": norms,
        "members": [
            {"name": name, "fooled": int((member == number).sum())} for number, name in enumerate(attack.members)
        ],
        "quantise": _rounding(samples),
        "forward_passes": int(samples["forward"].sum()),
        "backward_passes": int(samples["backward"].sum()),
        "warnings": _warnings(found, len(source.spec.classes)),
        "configuration": configuration(attack),
        "data": source.spec.name,
        "data_sha256": source.spec.sha256,
        "skipped": dict(source.skipped),
        "seed": attack.seed,
    }


def _rounding(samples: Samples) -> dict[str, Any] | None:
    """The success rate before and after rounding to levels; None where nothing was rounded."""
    if "success_unrounded" not in samples:
        return None
    attacked = max(1, int(samples["attacked"].sum()))
    before, after = (int(samples[key].sum()) / attacked for key in ("success_unrounded", "success"))
    return {"levels": LEVELS, "success_before": before, "success_after": after}


def _warnings(found: Rates, classes: int) -> list[str]:
    warnings = []
    if classes and found.clean.high < min(2 / classes, 0.25 + 0.75 / classes):
        warnings.append(
            f"clean accuracy is {found.clean.value:.1%}, near chance for {classes} classes: is the right data given, "
            "and does the model expect normalised inputs (--mean, --std)?"
        )
    if found.success is None:
        warnings.append(
            "no input was attacked: the model classifies none of them correctly (or all have the target class already)"
        )
    return warnings
