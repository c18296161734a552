"""Tramèr's check: robust accuracy with a detector, beside that of the best classifier known at half the size.

A system that classifies rightly or rejects whatever is done within eps gives a classifier, if a slow one, that is right
within eps / 2 (Tramèr 2022, "Detecting adversarial examples is (nearly) as hard as classifying them"). Figures above
what any classifier has reached there would be a breakthrough, or are a sign that the attacks were held up.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from robustgen.evaluation.guarded import AttackedArrays, CleanArrays, Mask
from robustgen.metrics import Estimate, proportion

Plain = dict[str, Any]


class Known(NamedTuple):
    """A robust accuracy: whose it is, and whether it is fit to judge by, or only all that is known.

    To lie above a classifier that was never made robust proves nothing.
    """

    accuracy: float
    of: str
    judges: bool = True


PUBLISHED: Mapping[tuple[str, str, float], Known] = {
    ("cifar10", "linf", 8 / 255): Known(0.7371, "Bartoldson et al. 2024 (RobustBench, March 2025)"),
    ("cifar10", "l2", 0.5): Known(0.8497, "Wang et al. 2023 (RobustBench, March 2025)"),
    ("cifar100", "linf", 8 / 255): Known(0.4266, "Wang et al. 2023 (RobustBench, March 2025)"),
    ("mnist", "linf", 0.3): Known(0.9634, "Gowal et al. 2020 (AutoAttack's table of MNIST)"),
}
"""The highest on the whole test set by data, norm and size of change, with RobustBench's external evaluations where
they found less than AutoAttack; read in model_info of RobustBench's repository at 78fcc9e, and in the README of
AutoAttack's. A figure at one size says nothing of smaller ones but a lower bound, so that only these sizes are there.
"""


def published(data: str, norm: str, eps: float) -> Known | None:
    """What is in `PUBLISHED` for inputs of `data` changed by `eps`."""
    for (name, kind, size), known in PUBLISHED.items():
        if (name, kind) == (data, norm) and math.isclose(size, eps, rel_tol=1e-3):
            return known
    return None


def of_classifier(clean: CleanArrays, attacked: Sequence[AttackedArrays], norm: str, eps: float) -> Estimate | None:
    """The robust accuracy of the classifier by itself: on how many inputs no attack of those who know it alone, within
    `eps`, has changed a right label. None where nobody tried just this size.
    """
    legal = [one for one in attacked if one.threat == "Z" and one.norm == norm and one.eps <= eps * (1 + 1e-9)]
    exact = [one for one in legal if one.eps >= eps * (1 - 1e-9)]
    if not exact:
        return None
    row = exact[0].row
    for one in exact[1:]:
        row = np.intersect1d(row, one.row)
    held: Mask = clean.right.copy()
    for one in legal:
        held[one.row[one.wrong(clean)]] = False
    return proportion(int(held[row].sum()), len(row)) if len(row) else None


def of_figures(figures: Mapping[str, Any], norm: str, eps: float) -> float | None:
    """The same from what is stored of a cell: `tramer` of its systems, or where that was not kept, the accuracy and the
    one attack of just this size that fooled most.
    """
    for system in figures["systems"]:
        own = (system.get("tramer") or {}).get("classifier")
        if own is not None and system["norm"] == norm and math.isclose(system["eps"], 2 * eps):
            return float(own["value"])
    fooled = [
        row["fooled"]["value"]
        for row in figures["rows"]
        if (row["threat"], row["norm"]) == ("Z", norm) and math.isclose(row["eps"], eps) and row["fooled"] is not None
    ]
    accuracy = (figures["clean"].get("accuracy") or {}).get("value")
    return None if accuracy is None or not fooled else float(accuracy * (1 - max(fooled)))


def best_of(known: Iterable[Known | None]) -> Known | None:
    """The highest of those fit to judge by; where there are none, of the others."""
    there = [one for one in known if one is not None]
    return max(there, key=lambda one: (one.judges, one.accuracy), default=None)


def verdict(fc: Mapping[str, Any], known: Known | None) -> Plain:
    """`bound`, `of` whom it is, and whether FC(eps) `passed`: it is not above the bound by more than its interval. None
    where it is above one that proves nothing, or nothing is known.
    """
    if known is None:
        return {"bound": None, "of": None, "passed": None}
    low = fc["value"] if fc.get("low") is None else fc["low"]
    passed = bool(low <= known.accuracy)
    return {
        "bound": float(known.accuracy),
        "of": known.of,
        "passed": None if not passed and not known.judges else passed,
    }


def as_check(one: Mapping[str, Any]) -> list[Plain]:
    """The check of a `system` beside the masking checks, or nothing where nothing is known."""
    words = in_words(one).removeprefix("; ")
    if not words:
        return []
    means = (
        "A system above what any classifier is known to reach at half the size would be a breakthrough, or its "
        "attackers were held up."
    )
    found = f"{words[:1].upper()}{words[1:]}."
    return [{"name": "best known classifier", "passed": one["tramer"]["passed"], "found": found, "means": means}]


def in_words(one: Mapping[str, Any]) -> str:
    """A clause on the check of a `system`, or nothing where nothing is known."""
    found = one.get("tramer") or {}
    if found.get("bound") is None:
        return ""
    reached = f"right, accepted and robust: {_percent(one['fc']['value'])}"
    beside = f"{_percent(found['bound'])} at half the size by {found['of']}"
    after = {
        True: "",
        False: ", which is more than a classifier is known to reach: look for masked gradients",
        None: ", which settles nothing unless that one was made robust",
    }[found["passed"]]
    return f"; {reached}, beside {beside}{after}"


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"
