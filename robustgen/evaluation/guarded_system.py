"""Classifier and detector as one system that classifies or rejects: what no attack may take away, and what a reader may
quote.

Worst case by input, never a mean over attacks: an input is lost when any of them, its clean self included, has a wrong
label that is accepted. A result within a small ball is legal in every larger one of the same norm.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from robustgen.errors import DataError
from robustgen.evaluation.guarded import (
    AttackedArrays,
    CleanArrays,
    Labels,
    Mask,
    Plain,
    clean_figures,
    detection_rows,
    means,
    noise_row,
    share,
    told,
)
from robustgen.evaluation.tramer import Known, in_words, of_classifier, verdict

KNOWING, EVERYONE = "TWQ", "ZTWQ"
"""The threat models whose attacker knows that there is a detector, and all of them."""

Size = tuple[str, float]
"""(norm, eps)"""


def system(
    clean: CleanArrays,
    attacked: Sequence[AttackedArrays],
    size: Size,
    fpr: float,
    *,
    among: Labels | None = None,
    small: Mapping[str, AttackedArrays] | None = None,
    bound: Known | None = None,
) -> Plain:
    """What is left of the system against all of `attacked` that are legal within `size`, at the threshold for `fpr`.

    `among`: the clean inputs it is told for, None = those that every attack of just this size, and every attack within
    it by those who know the detector, was run on, so that more is never left at a larger size; of others
    among them only the clean self is known. Over these `n`:

    - `robust_accuracy`, RA_D(eps): no attack, nor the clean input, has a wrong label that is accepted. To reject
      everything reaches 1: to be read beside the false rejects.
    - `fc`, FC(eps): and the clean input is right and accepted. To reject everything gives 0.
    - `success_oblivious`, `success_adaptive`, `success_worst`: of the inputs that are right when clean, the share for
      which an attack by someone who does not know the detector (Z), who knows it (T, W, Q), or any of them has a wrong
      label accepted. None where no such attack of just this size was run: nothing is known, which is not nothing found.
    - `rejected_small`: by name, the share of changes far smaller than eps that is rejected although the clean input is
      right and accepted; `small` holds their arrays (Chen et al. 2023, "Stratified adversarial robustness with
      rejection").
    - `tramer`: Tramèr's check of FC(eps) against `bound`, the best robust accuracy known of a classifier at eps / 2
      (see `tramer.verdict`), and that of the `classifier` here, None where nobody tried that size.

    Raises `DataError` where no input is left to tell of.
    """
    norm, eps = size
    legal = [one for one in attacked if one.threat != "N" and one.norm == norm and one.eps <= eps * (1 + 1e-9)]
    exact = [one for one in legal if one.eps >= eps * (1 - 1e-9)]
    knowing = [one for one in legal if one.threat in KNOWING]  # else a larger size is told for inputs they never tried
    place = _population(clean, [*exact, *knowing], among)
    value = clean.threshold(fpr).value
    accepted, right = clean.score <= value, clean.right
    lost = {threats: _lost(clean, legal, threats, value) for threats in ("Z", KNOWING, EVERYONE)}
    everyone = lost[EVERYONE]
    worst = np.zeros_like(right) if everyone is None else everyone
    own = of_classifier(clean, [*attacked, *(small or {}).values()], norm, eps / 2)
    held = ~worst & ~(accepted & ~right)
    fc = share((right & accepted & ~worst)[place])
    assert fc is not None  # there is an input to tell of

    def success(threats: str) -> Plain | None:
        rows = lost[threats] if any(one.threat in threats for one in exact) else None
        return None if rows is None else told(share(rows[place][right[place]]))

    return {
        "norm": norm,
        "eps": eps,
        "n": len(place),
        "attacks": [f"{one.threat} {one.attack}" for one in legal],
        "robust_accuracy": told(share(held[place])),
        "fc": told(fc),
        "success_oblivious": success("Z"),
        "success_adaptive": success(KNOWING),
        "success_worst": success(EVERYONE),
        "rejected_small": {name: _rejected(clean, one, value) for name, one in (small or {}).items()},
        "tramer": verdict(fc._asdict(), bound) | {"classifier": told(own)},
    }


def _population(clean: CleanArrays, exact: Sequence[AttackedArrays], among: Labels | None) -> Labels:
    for one in exact:
        one.wrong(clean)  # raises where the rows are not those of these clean inputs
    if among is None:
        everything = np.arange(len(clean.label))
        among = everything[np.all([np.isin(everything, one.row) for one in exact], axis=0)] if exact else everything[:0]
    if not len(among):
        raise DataError("no clean input was attacked by every attack of this size: run them on the same inputs")
    return np.unique(among)


def _lost(clean: CleanArrays, legal: Sequence[AttackedArrays], threats: str, value: float) -> Mask | None:
    """(n,) of all clean inputs, for which any of these attackers has a wrong label accepted; None if there is none."""
    own = [one for one in legal if one.threat in threats]
    if not own:
        return None
    lost = np.zeros(len(clean.label), dtype=bool)
    for one in own:
        lost[one.row[one.wrong(clean) & (one.score <= value)]] = True
    return lost


def _rejected(clean: CleanArrays, one: AttackedArrays, value: float) -> Plain | None:
    one.wrong(clean)
    good = clean.right[one.row] & (clean.score[one.row] <= value)
    return told(share(one.score[good] > value))


def cell(
    clean: CleanArrays,
    attacked: Sequence[AttackedArrays],
    fpr: float,
    *,
    among: Labels | None = None,
    small: Mapping[Size, Mapping[str, AttackedArrays]] | None = None,
    bounds: Mapping[Size, Known] | None = None,
    **measured: Any,
) -> Plain:
    """All figures of one detector beside one classifier: `clean`, `rows`, `means`, `noise`, `systems`, one for each
    size of attack, and `sentence` about the largest change in Linf that an attacker who knows the detector was given.

    `small` and `bounds`: what `system` takes, by size; `measured`: see `clean_figures`.
    """
    sizes = sorted({(one.norm, one.eps) for one in attacked if one.threat != "N"})
    systems = [
        system(
            clean,
            attacked,
            size,
            fpr,
            among=among,
            small=(small or {}).get(size),
            bound=(bounds or {}).get(size),
        )
        for size in sizes
    ]
    return {
        "fpr": fpr,
        "clean": clean_figures(clean, fpr, **measured),
        "rows": detection_rows(clean, attacked, fpr),
        "means": means(clean, attacked, fpr),
        "noise": [noise_row(clean, one, fpr) for one in attacked if one.threat == "N"],
        "systems": systems,
        "sentence": sentence(headline(systems), fpr) if systems else "no attack was run: nothing is known",
    }


def headline(systems: Sequence[Plain]) -> Plain:
    """The system to quote: the one attacked by those who know the detector, in Linf, by the largest change; each as far
    as there is one.
    """
    return max(systems, key=lambda one: (one["success_adaptive"] is not None, one["norm"] == "linf", one["eps"]))


def sentence(one: Plain, fpr: float) -> str:
    """What a reader may quote of a `system`: the worst case over all attacks, with what it was told for."""
    size = f"changed by at most {one['eps']:g} ({one['norm']})"
    worst, oblivious = one["success_worst"], one["success_oblivious"]
    if worst is None:
        return f"no correctly classified input {size} was attacked: nothing is known"
    if one["success_adaptive"] is None:
        return (
            f"unverified: no attacker who knows the detector was tried; without that knowledge {_percent(worst)} of "
            f"inputs {size} get a wrong label accepted, at {100 * fpr:g} % false alarms"
        )
    without = "" if oblivious is None else f"; without that knowledge {_percent(oblivious)}"
    return (
        f"{_percent(worst)} of inputs {size} get a wrong label accepted by an attacker who knows the detector, at "
        f"{100 * fpr:g} % false alarms{without} ({worst['n']} inputs, worst case over {len(one['attacks'])} "
        f"attacks){in_words(one)}"
    )


def _percent(estimate: Mapping[str, Any]) -> str:
    value = 100 * estimate["value"]
    return f"{value:.1f} %" if 0 < value < 1 or 99 < value < 100 else f"{value:.0f} %"
