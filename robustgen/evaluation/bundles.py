"""Which attacks a detector is held to: the members of the adaptive bundles, made for one guard."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, final

from torch import Tensor

from robustgen.attacks.base import Attack
from robustgen.attacks.evading import EvadingPGD, Start
from robustgen.attacks.evading_carlini_wagner import EvadingCarliniWagner
from robustgen.attacks.hop_skip_jump import HopSkipJump
from robustgen.attacks.matching import Matching, Pool
from robustgen.attacks.minimal import MinimalMode
from robustgen.attacks.square import Square, SquareOnward
from robustgen.errors import UsageError
from robustgen.objectives import Evade, Rejection, VerdictOnly
from robustgen.registry import Entry, suggestion
from robustgen.threat import ThreatModel

WAYS: dict[str, dict[str, Any]] = {
    "s-pgd": {"way": "selective"},
    "lagrangian-0.5": {"way": "lagrangian", "weight": 0.5},
    "lagrangian-2": {"way": "lagrangian", "weight": 2.0},
    "o-pgd": {"way": "orthogonal"},
}
"""None of them is the strongest against every detector: the worst case over all is what counts."""

TARGETED: dict[str, dict[str, Any]] = {
    "s-pgd": WAYS["s-pgd"],
    "lagrangian-0.5": WAYS["lagrangian-0.5"],
    "lagrangian-1": {"way": "lagrangian", "weight": 1.0, "slack": 2.0},
}
"""The ways towards one class. The last holds on to the label until its lead is two logits: a score that compares two
answers of the classifier, as magnet's does, falls either when both go over to the class or when neither does.
"""

FAR = "lagrangian-0.5"
"""Of 32 inputs that `deep-knn` held on Fashion-MNIST against three classes, it took 11 towards the other six, s-pgd and
lagrangian-1 10 of these; four times the steps took one.
"""

OBJECT = ("s-pgd", "lagrangian-0.5")
"""The ways that leave a constant background alone. Scores that read how simple an image is, as vae's, give its least
change away, and no step along a gradient brings a background back that another has left.
"""

BY_SCORES = "square-scores"
"""Random search on the score itself, from what the members before it came to."""

FAMILIES = {
    "s-pgd": Entry("", "PGD with momentum on the label until it is wrong, from there on the score (Bryniarski 2021)"),
    "lagrangian": Entry("", "PGD with momentum on a weighted sum of both unit gradients, weights 0.5 and 2"),
    "o-pgd": Entry("", "s-pgd without each step's component along the other gradient (Bryniarski 2021)"),
    "multi-targeted": Entry("", "s-pgd, lagrangian-0.5 and lagrangian-1 towards each of the likeliest wrong classes"),
    "reject-class": Entry("", "PGD on one network with rejection as one more class (Carlini, Wagner 2017)"),
    "object": Entry("", "s-pgd and lagrangian-0.5 on the object alone, where images have a constant background"),
    "matching": Entry("", "towards the logits or features of accepted inputs of other classes (Tramer 2020)"),
    "carlini-wagner": Entry("", "Adam on weighted shortfalls of label and score, smallest change (Carlini 2017)"),
    "square": Entry(
        "", "random search with squares on verdicts; on scores from where others stopped (Andriushchenko 2020)"
    ),
    "hop-skip-jump": Entry("", "a walk along the boundary of wrong and accepted, by verdicts alone (Chen 2020)"),
}


@final
@dataclass(frozen=True)
class Bundle:
    """How much each attack may spend on an input; one that takes 0 steps or queries is left out.

    `steps` for each of the ways of `WAYS` from each of `starts`, with `restarts`; `target_steps` towards each of the
    `targets` likeliest wrong classes (None = all), by "reject-class" and the ways of `TARGETED`, of which `FAR` goes
    towards at least `far_targets`, since a detector may accept what the classifier finds unlikely; `match_steps`
    towards each of `references` inputs, by logits and by features; `queries` of verdicts, `score_queries` of scores,
    `boundary_queries` of verdicts by HopSkipJump (Linf and L2), from inputs of other classes that are accepted.
    `draws`: of a random score, averaged at every step. `carlini_steps` for each of `carlini_searches` pairs of weights
    by Carlini and Wagner's attack (Linf and L2). `object_steps` for each of the ways of `OBJECT`, on images with a
    constant background. `misled_queries`: of scores too, but only where the score's gradients mislead
    (`score_checks.misleads`) or it has none. `named`: the families that run only where they are asked for by name.
    """

    steps: int
    starts: tuple[Start, ...]
    restarts: int
    targets: int | None
    target_steps: int
    match_steps: int
    references: int
    queries: int
    score_queries: int
    draws: int
    boundary_queries: int = 0
    carlini_steps: int = 0
    carlini_searches: int = 9
    named: tuple[str, ...] = ()
    far_targets: int = 0
    object_steps: int = 0
    misled_queries: int = 0


BUNDLES = {
    "adaptive-standard": Bundle(
        100,
        ("random", "pgd"),
        1,
        3,
        50,
        50,
        1,
        500,
        0,
        20,
        carlini_steps=100,
        named=("carlini-wagner", "reject-class"),
        far_targets=9,
        object_steps=100,
        misled_queries=5000,
    ),
    "adaptive-strong": Bundle(
        1000,
        ("random", "pgd", "detector", "clean"),
        5,
        None,
        500,
        500,
        5,
        5000,
        5000,
        40,
        5000,
        carlini_steps=1000,
        object_steps=1000,
    ),
}


def check_norm(norm: str) -> None:
    """Raise `UsageError` for a norm in which no detector is attacked."""
    if norm not in EvadingPGD.norms:
        raise UsageError(
            f"attacks that know the detector measure changes in {', '.join(EvadingPGD.norms)}, but {norm} was asked "
            "for: take one of these"
        )


def check_precision(precision: str) -> None:
    """Raise `UsageError` for a precision in which no detector is attacked."""
    if precision == "bfloat16":
        raise UsageError(
            "attacks that know the detector search in float32 or mixed, not in bfloat16, which attacks what holds once "
            "more in float32: take mixed"
        )


_ADAM = {"linf": 0.2, "l2": 0.1}
"""Step sizes of carlini-wagner that lose most inputs of Fashion-MNIST's guards in 100 steps for each search."""


def members(
    bundle: Bundle,
    threat: ThreatModel,
    rejection: Rejection,
    verdict: Rejection,
    pool: Pool | None,
    embeds: dict[str, Callable[[Tensor], Tensor] | None],
    smallest: bool = False,
    background: float | None = None,
    **settings: Any,
) -> dict[str, Attack]:
    """The attacks of `bundle` by name, in the order in which they run.

    `rejection` gives the gradients and `verdict` the verdicts, the same unless the score has no gradients of its own.
    `pool`: for matching, None = without. `embeds`: what is matched, by name. `smallest`: `carlini-wagner` takes all its
    steps to come as near as it can. `background`: of images, what is constant there, None = nothing. `settings`: of
    every attack, such as its seed. Raises `UsageError` for a norm in which there are none.
    """
    check_norm(threat.norm)
    found: dict[str, Attack] = {}
    drawn = rejection.draws > 1 or settings.get("eot", 1) > 1
    mode: Any = "max-loss" if drawn else "evaluate"  # one lucky mean of draws is no success
    nearest: MinimalMode = "minimal" if smallest else "evaluate"
    if bundle.steps:
        for start in bundle.starts:
            for name, way in WAYS.items():
                found[f"{name}-{start}"] = EvadingPGD(
                    threat=threat,
                    objective=Evade(rejection, **way),
                    steps=bundle.steps,
                    start=start,
                    restarts=1 if start == "clean" else bundle.restarts,
                    mode=mode,
                    **settings,
                )
    if bundle.target_steps:
        count = 1000 if bundle.targets is None else bundle.targets
        for name, way in TARGETED.items():
            found[f"multi-targeted-{name}"] = EvadingPGD(
                threat=threat,
                objective=Evade(rejection, **way),
                steps=bundle.target_steps,
                targets=max(count, bundle.far_targets) if name == FAR else count,
                mode=mode,
                **settings,
            )
        found["reject-class"] = EvadingPGD(
            threat=threat,
            objective=Evade(rejection, way="reject-class"),
            steps=bundle.target_steps,
            targets=count,
            mode=mode,
            **settings,
        )
    if bundle.object_steps and background is not None and threat.still is None:
        for name in OBJECT:
            found[f"object-{name}"] = EvadingPGD(
                threat=replace(threat, still=background),
                objective=Evade(rejection, **WAYS[name]),
                steps=bundle.object_steps,
                restarts=bundle.restarts,
                mode=mode,
                **settings,
            )
    if bundle.match_steps and pool is not None:
        for name, embed in embeds.items():
            found[f"matching-{name}"] = Matching(
                threat=threat,
                rejection=verdict,
                pool=pool,
                embed=embed,
                steps=bundle.match_steps,
                references=bundle.references,
                **settings,
            )
    walls = math.isfinite(threat.high - threat.low)
    if bundle.carlini_steps and (threat.norm == "linf" or (threat.norm == "l2" and walls)):
        found["carlini-wagner"] = EvadingCarliniWagner(
            threat=threat,
            rejection=rejection,
            steps=bundle.carlini_steps,
            searches=bundle.carlini_searches,
            step_size=_ADAM[threat.norm],
            mode=nearest,
            **settings,
        )
    if bundle.queries:
        found["square-verdicts"] = Square(
            threat=threat, objective=VerdictOnly(verdict), queries=bundle.queries, drift=True, **settings
        )
    if asked := bundle.score_queries or bundle.misled_queries:
        found[BY_SCORES] = SquareOnward(threat=threat, objective=Evade(verdict), queries=asked, **settings)
    if bundle.boundary_queries and pool is not None and threat.norm in HopSkipJump.norms:
        found["hop-skip-jump"] = HopSkipJump(
            threat=threat,
            objective=VerdictOnly(verdict),
            queries=bundle.boundary_queries,
            others=pool.x,
            mode="evaluate",
            **settings,
        )
    return found


def chosen(attacks: dict[str, Attack], only: Sequence[str] | None, named: Sequence[str] = ()) -> dict[str, Attack]:
    """Those whose name, or the family it begins with, is among `only`; None = all but those of the families `named`.
    Raises `UsageError` for a name that fits none.
    """
    if only is None:
        return {member: attack for member, attack in attacks.items() if not any(_is_of(member, n) for n in named)}
    for name in only:
        if not any(_is_of(member, name) for member in attacks):
            if name in FAMILIES:
                wanted = "images with a constant background" if name == "object" else "adaptive-strong, or linf"
                raise UsageError(
                    f"this bundle has no {name} for this norm and these inputs, only {', '.join(attacks)}: take "
                    f"{wanted}"
                )
            raise UsageError(suggestion(name, sorted({*FAMILIES, *attacks}), "adaptive attack"))
    return {member: attack for member, attack in attacks.items() if any(_is_of(member, name) for name in only)}


def _is_of(member: str, name: str) -> bool:
    return member == name or member.startswith(f"{name}-")


def effort(attack: Attack) -> dict[str, int]:
    """What `attack` may spend on one input, as declared."""
    names = ("steps", "start_steps", "searches", "restarts", "targets", "references", "queries")
    spent = {name: int(getattr(attack, name)) for name in names if getattr(attack, name, 0)}
    rejection = getattr(attack, "rejection", None) or getattr(attack.objective, "rejection", None)
    return spent | {"draws": max(rejection.draws if isinstance(rejection, Rejection) else 1, attack.eot)}


def longer(bundle: Bundle, factor: int) -> Bundle:
    """`bundle` with `factor` times the steps and queries."""
    scaled = (
        *("steps", "target_steps", "object_steps", "match_steps", "carlini_steps"),
        *("queries", "score_queries", "boundary_queries", "misled_queries"),
    )
    return replace(bundle, **{name: factor * getattr(bundle, name) for name in scaled})
