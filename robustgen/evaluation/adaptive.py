"""Attackers who know the detector: an input counts as lost when any of them gets a wrong label accepted."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol, TypeAlias, final

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from robustgen.attacks.base import Attack, check_inputs
from robustgen.attacks.evading import EvadingPGD
from robustgen.attacks.evading_carlini_wagner import EvadingCarliniWagner
from robustgen.attacks.matching import Pool
from robustgen.attacks.passes import Precision, evaluated
from robustgen.attacks.square import SquareOnward
from robustgen.calibration import Threshold
from robustgen.detectors.features import Features
from robustgen.errors import UsageError
from robustgen.evaluation.bundles import BUNDLES, BY_SCORES, Bundle, check_precision, chosen, effort, members
from robustgen.evaluation.imitation import imitate, with_gradient_of
from robustgen.evaluation.noise import constant_background
from robustgen.evaluation.score_checks import misleads
from robustgen.metrics import Estimate, proportion
from robustgen.objectives import Rejection, Score, margin, ranked
from robustgen.recall import recalled
from robustgen.registry import suggestion
from robustgen.threat import ThreatModel

_BATCH = 250
_FOLLOWING = (EvadingPGD, EvadingCarliniWagner)
"""Attacks that need gradients of the score."""
DRAWS = 40
"""Fresh draws of a random score that the last verdict rests on."""


class Guarded(Protocol):
    """What is attacked: a classifier, and a score above whose threshold its inputs are rejected; a `Guard` is one.

    Searches follow its `rejecting` instead of its `score`, if it has one: the same wherever it accepts.
    """

    @property
    def classifier(self) -> nn.Module: ...
    @property
    def threshold(self) -> Threshold: ...
    @property
    def calibration_scores(self) -> Any: ...
    @property
    def differentiable(self) -> bool: ...
    @property
    def random(self) -> bool: ...

    def score(self, x: Tensor, label: Tensor | None = None) -> Tensor: ...


@final
@dataclass(frozen=True)
class Evasion:
    """What became of n inputs under several attacks on a classifier and its detector together.

    `lost`: some attack found a legal point with a wrong label that the detector accepts: `x_adv`, there the first such
    point, elsewhere the best attempt (a wrong label before a right one, then the lowest score). At `x_adv`: `score`,
    and `fooled` where the label is wrong. `member`: which of `members` found it, -1 where the best attempt is the clean
    input. `forward` and `backward`: passes through the classifier that the row has cost. `found` and `tried`: by
    member, the rows that it found a success for, and those that it was tried on; a member that was passed over is in
    neither. `seconds` and `effort`: by member, wall time, and what it may spend on one input. The member "clean" is the
    input as it is. `surrogate`: the gradients of the score are those of a network learnt from its answers, because it
    has none: a stronger attacker may exist.
    """

    lost: Bool[Tensor, " n"]
    x_adv: Float[Tensor, "n *shape"]
    score: Float[Tensor, " n"]
    fooled: Bool[Tensor, " n"]
    member: Int64[Tensor, " n"]
    forward: Int64[Tensor, " n"]
    backward: Int64[Tensor, " n"]
    members: tuple[str, ...]
    found: dict[str, Tensor]
    tried: dict[str, Tensor]
    seconds: dict[str, float]
    effort: dict[str, dict[str, int]]
    surrogate: bool

    @property
    def rate(self) -> float:
        """The share of inputs lost: the attackers' success rate."""
        return float(self.lost.double().mean())

    def success(self, name: str) -> Estimate:
        """The success rate of one member on the rows that it was tried on."""
        tried = int(self.tried[name].sum())
        return proportion(int(self.found[name].sum()), tried)


def rejection_of(guard: Guarded, draws: int = 1, score: Score | None = None) -> Rejection:
    """How `guard` rejects; `score`: gradients from elsewhere. The unit is the half-width of its middle clean scores."""
    clean = np.asarray(guard.calibration_scores, dtype=np.float64)
    low, high = np.quantile(clean, [0.25, 0.75]) if len(clean) else (0.0, 0.0)
    scale = float(high - low) / 2
    sharing = partial(recalled, guard.classifier, set[str]())
    return Rejection(score or guard.score, guard.threshold.value, scale if scale > 0 else 1.0, draws, sharing)


def evade(
    guard: Guarded,
    x: Float[Tensor, "n *shape"],
    y: Int64[Tensor, " n"],
    threat: ThreatModel,
    *,
    bundle: str | Bundle = "adaptive-standard",
    only: Sequence[str] | None = None,
    every: bool = False,
    pool: Float[Tensor, "k *shape"] | None = None,
    known: Mapping[str, Tensor] | None = None,
    held: Bool[Tensor, " n"] | None = None,
    score: Score | None = None,
    smallest: bool = False,
    seed: int = 0,
    batch_size: int | None = None,
    precision: Precision = "float32",
    progress: Callable[[float], None] | None = None,
) -> Evasion:
    """Try the attacks of `bundle` on each input, the later ones on those that still hold; with `every`, all on all.

    `only`: names or families of attacks; "square-scores" goes on from what those before it came to, and by itself
    begins at the inputs. `pool`: clean inputs for matching to choose from, and by which a constant background is known,
    by default those attacked.
    `known`: points (n, *shape) found before, by what found them, such as those in a smaller ball: their successes count
    too. `held`: inputs that no attack of the bundle is tried on, since the strongest on the classifier alone did not
    change their label (`screening.alone`; an estimate, no proof).
    `score`: what has gradients in place of the guard's own score; verdicts always are the
    guard's, and of a random guard those of most of 40 fresh draws, of classifier and score together.
    Where the guard has no gradients and no `score` is given, attacks that follow gradients take them from a stand-in
    that is learnt first, on the pool (`imitate`). `smallest`: carlini-wagner goes on after its first success, to the
    nearest that it finds. `precision`: of the attacks' searches, see `Attack`; with "mixed" of the detectors' stacks of
    layers too, where the guard is a module. `progress`: called with the number of inputs just done. Raises
    `UsageError` for unknown names and inputs that do not fit.
    """
    check_inputs(threat, x, y)
    check_precision(precision)
    with evaluated(guard, channels_last=True):  # type: ignore[arg-type]  # what is no module is left as it is
        return _evade(
            guard, x, y, threat, _spend(bundle), only, every, pool, known or {}, held, score, smallest,
            {"seed": seed, "batch_size": batch_size, "precision": precision}, progress or (lambda _: None),
        )  # fmt: skip


def _evade(
    guard: Guarded,
    x: Tensor,
    y: Tensor,
    threat: ThreatModel,
    spend: Bundle,
    only: Sequence[str] | None,
    every: bool,
    pool: Tensor | None,
    known: Mapping[str, Tensor],
    held: Tensor | None,
    score: Score | None,
    smallest: bool,
    settings: dict[str, Any],
    done: Callable[[float], None],
) -> Evasion:
    draws = spend.draws if guard.random else 1
    if random_classifier(guard):  # every pass averages draws of classifier and score together
        settings["eot"], draws = draws, 1
    seen = x if pool is None else pool
    clean, embeds, empty = _pool(guard, seen), embeddings(guard.classifier), constant_background(seen)

    def made(score: Score | None) -> dict[str, Attack]:
        quick = getattr(guard, "rejecting", None)
        gradients, verdict = rejection_of(guard, draws, score or quick), rejection_of(guard, draws, quick)
        whole = members(spend, threat, gradients, verdict, clean, embeds, smallest, empty, **settings)
        return chosen(whole, only, spend.named)

    attacks = made(score)
    blind = not guard.differentiable and score is None and len(x) > 0
    surrogate = blind and any(isinstance(attack, _FOLLOWING) for attack in attacks.values())
    if surrogate:
        attacks = made(with_gradient_of(guard.score, imitate(guard, seen, threat, seed=settings["seed"])))
    siege = _Siege(guard, x, y, threat, (*attacks, "clean", *known))
    siege.take("clean", torch.arange(len(x), device=x.device), x)
    for name, points in known.items():
        siege.take(name, torch.arange(len(x), device=x.device), points.to(x))
    skipped = torch.zeros_like(siege.lost) if held is None else held.to(x.device)
    done(0 if every else int((siege.lost | skipped).sum()))
    if_misled, count = only is None and not spend.score_queries, len(attacks)
    for number, (name, attack) in enumerate(list(attacks.items()), start=1):
        row = (~skipped if every else ~(siege.lost | skipped)).nonzero()[:, 0]
        if name == BY_SCORES and if_misled and not (len(row) and siege.misled(~skipped, score)):
            del attacks[name]
            done(len(row) / count)
            continue
        if isinstance(attack, SquareOnward):
            attack = replace(attack, starts=siege.x_adv[row])  # the bundle knows how to search, not from where
        began = time.perf_counter()
        result = attack.run(guard.classifier, x[row], y[row], lambda n: done(n / count), verify=False)
        siege.forward[row] += result.forward
        siege.backward[row] += result.backward
        before = int(siege.lost.sum())
        siege.take(name, row, result.x_adv)
        siege.seconds[name] = time.perf_counter() - began
        if not every:
            done((int(siege.lost.sum()) - before) * (1 - number / count))
    return siege.outcome({name: effort(attack) for name, attack in attacks.items()}, surrogate)


def embeddings(classifier: nn.Module) -> dict[str, Callable[[Tensor], Tensor] | None]:
    """What matching matches: the logits, and the features that enter the last linear layer if there is one."""
    try:
        return {"logits": None, "features": Features(classifier)}
    except UsageError:
        return {"logits": None}


def verdicts(guard: Guarded, x: Tensor, y: Tensor, draws: int = 1) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(wrong (n,), accepted (n,), score (n,), rank (n,)) at points. Of a random guard by `draws` draws of classifier
    and score together: wrong where at least half of them are, accepted where at least half are that and accepted; the
    score is their mean.
    """
    rejection = rejection_of(guard)
    parts = []
    with evaluated(guard.classifier), torch.no_grad():
        for points, label in zip(x.split(_BATCH), y.split(_BATCH), strict=True):
            wrong, accepted, score, lead = _voted([_look(guard, rejection, points, label) for _ in range(draws)])
            rank = ranked(wrong, lead, rejection.excess(score))
            parts.append((wrong, accepted, score.float(), rank.float()))
    wrong, accepted, score, rank = (torch.cat(values) for values in zip(*parts, strict=True))
    return wrong, accepted, score, rank


Look: TypeAlias = tuple[Tensor, Tensor, Tensor, Tensor]
"""(wrong, accepted, score, lead of the wrong label), each (n,), as one draw gives them."""


def _look(guard: Guarded, rejection: Rejection, x: Tensor, y: Tensor) -> Look:
    with rejection.sharing():
        logits = guard.classifier(x)
        predicted = logits.argmax(1)
        score, accepted = rejection(x, predicted)
    return predicted != y, accepted, score, margin(logits, y)


def _voted(draws: list[Look]) -> Look:
    if len(draws) == 1:
        return draws[0]
    wrongs, accepts, scores, leads = (torch.stack(values) for values in zip(*draws, strict=True))
    wrong = wrongs.double().mean(0) >= 0.5
    return wrong, (accepts & (wrongs == wrong)).double().mean(0) >= 0.5, scores.mean(0), leads.mean(0)


def random_classifier(guard: Guarded) -> bool:
    """Whether the guard says that its classifier, too, may answer differently twice."""
    return bool(getattr(guard, "random_classifier", False))


class _Siege:
    """n inputs under attack, and what is known of each so far."""

    def __init__(self, guard: Guarded, x: Tensor, y: Tensor, threat: ThreatModel, names: tuple[str, ...]) -> None:
        self.guard, self.x, self.y, self.threat, self.names = guard, x, y, threat, names
        self.draws = DRAWS if guard.random else 1
        nothing = torch.zeros_like(y)
        self.lost, self.fooled = nothing.bool(), nothing.bool()
        self.x_adv, self.score = x.clone(), torch.full_like(y, 0, dtype=torch.float32)
        self.rank = torch.full_like(self.score, -torch.inf)
        self.member, self.forward, self.backward = nothing - 1, nothing.clone(), nothing.clone()
        self.found: dict[str, Tensor] = {}
        self.tried: dict[str, Tensor] = {}
        self.seconds: dict[str, float] = {}

    def take(self, name: str, row: Tensor, x_adv: Tensor) -> None:
        """Judge what `name` found for the rows `row`, and keep it where it is better than what was found before."""
        self.found[name] = torch.zeros_like(self.lost)
        self.tried[name] = self.found[name].clone()
        self.tried[name][row] = True
        if not len(row):
            return
        wrong, accepted, score, rank = verdicts(self.guard, x_adv, self.y[row], self.draws)
        legal = self.threat.allows(x_adv, self.x[row])
        won = wrong & accepted & legal
        self.found[name][row[won]] = True
        better = legal & ~self.lost[row] & (won | (rank > self.rank[row]))
        place = row[better]
        self.x_adv[place], self.score[place], self.rank[place] = x_adv[better], score[better], rank[better]
        self.fooled[place] = wrong[better]
        self.member[place] = -1 if name == "clean" else self.names.index(name)
        self.member[row[won & better]] = self.names.index(name)
        self.lost[row[won]] = True

    def misled(self, row: Tensor, score: Score | None) -> bool:
        """Whether attacks on the rows `row` (n,) bool that follow gradients, those of `score` where it is given, were
        led astray. A stand-in that was learnt from answers always counts as that. What a random score seems to do a
        step away says nothing; attacks average its draws.
        """
        if self.guard.random or not self.threat.eps:
            return False
        if score is None and not self.guard.differentiable:
            return True
        followed = self.guard.score if score is None else with_gradient_of(self.guard.score, score)
        return misleads(self.guard, self.threat, self.x[row], self.x_adv[row], followed)

    def outcome(self, effort: dict[str, dict[str, int]], surrogate: bool) -> Evasion:
        return Evasion(
            self.lost,
            self.x_adv,
            self.score,
            self.fooled,
            self.member,
            self.forward,
            self.backward,
            self.names,
            self.found,
            self.tried,
            self.seconds,
            effort,
            surrogate,
        )


def _spend(bundle: str | Bundle) -> Bundle:
    if isinstance(bundle, Bundle):
        return bundle
    for name in (bundle, f"adaptive-{bundle}"):  # strong is adaptive-strong
        if name in BUNDLES:
            return BUNDLES[name]
    raise UsageError(suggestion(bundle, list(BUNDLES), "bundle"))


def _pool(guard: Guarded, x: Tensor) -> Pool | None:
    """The clean inputs that the guard accepts, with the labels predicted; None where there are none."""
    if not len(x):
        return None
    with evaluated(guard.classifier), torch.no_grad():
        label = torch.cat([guard.classifier(part).argmax(1) for part in x.split(_BATCH)])
    accepted = verdicts(guard, x, label)[1]
    return Pool(x[accepted], label[accepted]) if accepted.any() else None
