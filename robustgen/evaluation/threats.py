"""A guard under every threat model of the protocol: attackers who do not know the detector (Z), who know it but for its
weights (T), who know all (W), who see its answers alone (Q), and changes that are no attack (N).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, cast, final

import numpy as np
from torch import Tensor, nn

from robustgen.attacks.apgd import APGD
from robustgen.attacks.base import Attack
from robustgen.attacks.ddn import DDN
from robustgen.attacks.fgsm import FGSM
from robustgen.attacks.passes import Precision, evaluated
from robustgen.attacks.pgd import PGD
from robustgen.attacks.square import Square
from robustgen.data.source import DataSpec, Source
from robustgen.errors import DataError
from robustgen.evaluation.adaptive import DRAWS, Evasion, evade
from robustgen.evaluation.bundles import BUNDLES, Bundle, effort
from robustgen.evaluation.certified import certified_figures
from robustgen.evaluation.guarded import AttackedArrays, CleanArrays, Threat
from robustgen.evaluation.guarded_system import cell
from robustgen.evaluation.handed_in import as_images, fooling_images
from robustgen.evaluation.masking import knowledge_helps, masking_checks
from robustgen.evaluation.noise import background, noise_controls
from robustgen.evaluation.screening import Alone
from robustgen.evaluation.spatial import TRIED, turned_and_shifted
from robustgen.evaluation.surrogate import transfer
from robustgen.evaluation.tramer import Known, best_of, of_classifier, published
from robustgen.guard import Guard
from robustgen.metrics import Array
from robustgen.threat import Norm, ThreatModel

_AT_ONCE = 250
_SMALL = (8, 4, 2)  # parts of the headline's size, for changes that should not be rejected
_CHECKED = 40  # inputs of the masking checks

Told = Callable[[str, float], None]


class Kind(NamedTuple):
    """One attack by someone who does not know the detector, and its size; the size of `ddn` is what it needs."""

    attack: str
    norm: str
    eps: float


class Blind(NamedTuple):
    """What such an attack made of inputs, (n, *shape); the seconds that it took, and what it may spend on one input, as
    far as they are known.
    """

    x_adv: Tensor
    seconds: float | None = None
    effort: Mapping[str, int] | None = None


SPATIAL = Kind("rotate-shift", "degrees", 30.0)
"""Rotations up to 30 degrees and shifts up to a tenth of the sides, of images."""


@final
@dataclass(frozen=True)
class Plan:
    """What a guard is put to.

    `eps`: sizes of change in Linf, in input units, ascending; `headline`: the one that ranks. `l2`: of Auto-PGD in L2,
    None = half the L2 length of a change by `headline` everywhere. `adaptive`: the sizes at which attackers know the
    detector, with `bundle`; none = the headline's. `steps` of PGD, `queries` of Square by those who do not. `seed`: of
    all.
    """

    eps: tuple[float, ...] = (0.02, 0.05, 0.1, 0.2)
    headline: float = 0.1
    l2: float | None = None
    adaptive: tuple[float, ...] = ()
    bundle: str = "adaptive-standard"
    steps: int = 40
    queries: int = 500
    seed: int = 0
    precision: Precision = "float32"


def oblivious(
    model: nn.Module, x: Tensor, y: Tensor, source: Source, plan: Plan, told: Told = lambda what, share: None
) -> dict[Kind, Blind]:
    """What attackers who know `model` alone make of inputs (n, *shape) with labels (n,): legal, and for images rounded
    to 256 levels. FGSM at the second size, PGD at every size and at parts of the headline's, Auto-PGD in L2, the
    smallest L2 change by DDN, Square; of images the worst rotation and shift too, and with a constant background PGD
    that never touches it.
    """
    image = source.spec.kind == "image"
    attacks = _oblivious(source.spec, plan, background(source) if image else None)
    found: dict[Kind, Blind] = {}
    for number, (kind, attack) in enumerate(attacks.items()):
        told(f"{kind.attack} {kind.norm} {kind.eps:g}", number / len(attacks))
        began = time.perf_counter()
        made = fooling_images(attack, model, x, y) if image else attack(model, x, y)
        found[kind] = Blind(made, time.perf_counter() - began, effort(attack))
    if image:
        low, high = source.spec.low, source.spec.high
        began = time.perf_counter()
        made = turned_and_shifted(model, x, y, SPATIAL.eps, low=low, high=high)
        found[SPATIAL] = Blind(made, time.perf_counter() - began, {"queries": TRIED})
    return found


def _oblivious(spec: DataSpec, plan: Plan, empty: float | None) -> dict[Kind, Attack]:
    def threat(norm: str, eps: float) -> ThreatModel:
        return ThreatModel(cast(Norm, norm), eps, spec.low, spec.high)

    sizes = sorted({*plan.eps, plan.headline})
    common: dict[str, Any] = {"seed": plan.seed}
    pgd = {"steps": plan.steps, "mode": "max-loss", **common}
    made: dict[Kind, Attack] = {
        Kind("pgd", "linf", size): PGD(threat=threat("linf", size), **pgd)
        for size in sorted({*sizes, *(plan.headline / part for part in _SMALL)})
    }
    usual = sizes[min(1, len(sizes) - 1)]
    made[Kind("fgsm", "linf", usual)] = FGSM(threat=threat("linf", usual))
    length = math.sqrt(math.prod(spec.shape)) * plan.headline / 2 if plan.l2 is None else plan.l2
    made[Kind("apgd-ce", "l2", length)] = APGD(threat=threat("l2", length), steps=plan.steps, **common)
    if math.isfinite(spec.high - spec.low):
        whole = math.sqrt(math.prod(spec.shape)) * (spec.high - spec.low)
        made[Kind("ddn", "l2", whole)] = DDN(threat=threat("l2", whole), **common)
        square = Square(threat=threat("linf", plan.headline), queries=plan.queries, **common)
        made[Kind("square", "linf", plan.headline)] = square
    if empty is not None:
        still = ThreatModel("linf", plan.headline, spec.low, spec.high, still=empty)
        made[Kind("pgd-object", "linf", plan.headline)] = PGD(threat=still, **pgd)
    return made


def evaluate(
    guard: Guard,
    source: Source,
    x: Tensor,
    y: Tensor,
    blind: Mapping[Kind, Blind],
    plan: Plan,
    *,
    n_adaptive: int = 500,
    others: tuple[Tensor, Tensor] | None = None,
    rival: Guard | None = None,
    alone: Mapping[float, Alone] | None = None,
    bound: float | None = None,
    fit_seconds: float | None = None,
    told: Told = lambda what, share: None,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Figures of the guard, as `guarded_system.cell` gives them, with the masking checks and what can be proven of it
    at the headline's size (`certified_figures`), and arrays, one value an input.

    `x`, `y`: clean test inputs and their labels; `others`: further ones, the negatives of detection, None = the same.
    `blind`: what `oblivious` made of them. Those who know the detector
    attack the first `n_adaptive`; a guard without gradients through a network that has learnt its score from answers.
    `rival`: a guard made like this one from other seeds, which those who do not know the weights attack in its place.
    `alone`: by size, what Auto-Attack made of the first `n_adaptive` against the classifier; those that it did not fool
    count as held, and nobody who knows something of the detector is run on them (`screening`).
    `bound`: the best robust accuracy known at half the headline's size, for Tramèr's check; None = the published one of
    these data, or else that of the guard's own classifier under `blind`, which alone can clear it but not condemn it.
    Raises `DataError` without inputs that are classified rightly.
    """
    x, y = x.to(guard.device), y.to(guard.device)
    told("clean inputs", 0.0)
    began = time.perf_counter()
    _once(guard, x)
    each = 1000 * (time.perf_counter() - began) / len(x)
    with evaluated(guard, channels_last=True):
        label = y.cpu().numpy()
        predicted, score = _judged(guard, x, label)
        apart = None
        if others is not None:
            theirs = others[1].numpy()
            apart = CleanArrays(theirs, *_judged(guard, others[0], theirs), guard.calibration_scores)
        clean = CleanArrays(label, predicted, score, guard.calibration_scores, apart)
        fpr = guard.threshold.fpr
        if not clean.right.any():
            raise DataError("the classifier is right on none of these inputs: there is nothing to attack")
        row = np.arange(len(x))
        attacked, small = list[AttackedArrays](), dict[str, AttackedArrays]()
        for kind, made in blind.items():
            spent = None if made.effort is None else {kind.attack: made.effort}
            one = _arrays(guard, "Z", kind, row, made.x_adv, label, seconds=made.seconds, effort=spent)
            if kind.attack == "pgd" and kind.eps < plan.headline:
                small |= {f"eps/{part}": one for part in _SMALL if math.isclose(kind.eps, plan.headline / part)}
            if kind.eps in plan.eps or kind.attack != "pgd" or math.isclose(kind.eps, plan.headline):
                attacked.append(one)
        controls = noise_controls(source.spec.shape, low=source.spec.low, high=source.spec.high, seed=plan.seed)
        for (name, size), change in controls.items():
            attacked.append(_arrays(guard, "N", Kind(name, "linf", size), row, change(x), label))
        attacked += _knowing(guard, source.spec, x[:n_adaptive], y[:n_adaptive], plan, rival, alone or {}, told)
        told("masking checks", 0.9)
        threat = ThreatModel("linf", plan.headline, source.spec.low, source.spec.high)
        eot = BUNDLES[plan.bundle].draws if guard.random else 1
        first = (alone or {}).get(plan.headline)
        checks = masking_checks(
            guard,
            threat,
            x[:_CHECKED],
            y[:_CHECKED],
            steps=plan.steps,
            eot=eot,
            seed=plan.seed,
            held=None if first is None else ~first.fooled[:_CHECKED],
            precision=plan.precision,
        )
        checks.append(knowledge_helps(clean, attacked, fpr))
        ranked = ("linf", plan.headline)
        known = _known(clean, [*attacked, *small.values()], source.spec.name, plan.headline / 2, bound)
        figures = cell(
            clean,
            attacked,
            fpr,
            small={ranked: small},
            bounds=None if known is None else {ranked: known},
            ms_per_input=each,
            fit_seconds=fit_seconds,
        )
        figures["checks"] = [check.to_json() for check in checks]
        figures["precision"] = plan.precision
    figures["certified"] = certified_figures(guard, x, y, threat)  # of the layers as they are when none is attacked
    return figures, _stored(clean, attacked)


def _known(
    clean: CleanArrays, attacked: Sequence[AttackedArrays], data: str, eps: float, bound: float | None
) -> Known | None:
    """The robust accuracy at `eps`, in Linf, that Tramèr's check compares with."""
    if bound is not None:
        return Known(bound, "the classifier given")
    own = of_classifier(clean, attacked, "linf", eps)
    mine = None if own is None else Known(own.value, "its own classifier, the only one known here", judges=False)
    return best_of([published(data, "linf", eps), mine])


def _knowing(
    guard: Guard,
    spec: DataSpec,
    x: Tensor,
    y: Tensor,
    plan: Plan,
    rival: Guard | None,
    alone: Mapping[float, Alone],
    told: Told,
) -> list[AttackedArrays]:
    """W, Q and T at each size, a larger ball knowing what was found in the smaller."""
    found: list[AttackedArrays] = []
    row, label = np.arange(len(x)), y.cpu().numpy()
    whole = BUNDLES[plan.bundle]
    inside: Evasion | None = None
    for size in sorted(plan.adaptive or (plan.headline,)):
        threat, kind = ThreatModel("linf", size, spec.low, spec.high), Kind(plan.bundle, "linf", size)
        first = alone.get(size)
        held = None if first is None else ~first.fooled
        known = {} if inside is None else {"smaller ball": inside.x_adv}
        if first is not None:
            known["auto-attack"] = first.x_adv
        common: dict[str, Any] = {"held": held, "seed": plan.seed, "precision": plan.precision}

        told(f"attacks that know the detector, eps {size:g}", 0.1)
        began = time.perf_counter()
        inside = evade(guard, x, y, threat, bundle=plan.bundle, known=known, **common)
        found.append(_evaded("W", kind, row, inside, guard, label, began, held))
        if spec.kind == "image":
            told(f"the same in image files, eps {size:g}", 0.5)
            further: dict[str, Any] = {"seed": plan.seed, "precision": plan.precision}
            made = as_images(guard, x, y, threat, inside, bundle=plan.bundle, **further)
            found.append(
                _evaded("W", kind._replace(attack=f"{plan.bundle}, 8 bit"), row, made, guard, label, began, held)
            )
        told(f"queries, eps {size:g}", 0.6)
        began = time.perf_counter()
        asked = evade(guard, x, y, threat, bundle=_queries(whole), **common)
        by = "square and hop-skip-jump" if whole.boundary_queries else "square"
        found.append(_evaded("Q", kind._replace(attack=by), row, asked, guard, label, began, held))
        if rival is not None:
            told(f"transfer, eps {size:g}", 0.7)
            began = time.perf_counter()
            moved = transfer(rival, guard, x, y, threat, bundle=plan.bundle, **common)
            found.append(_evaded("T", kind._replace(attack="transfer"), row, moved, guard, label, began, held))
    return found


def _queries(whole: Bundle) -> Bundle:
    """Only what the bundle asks of the system's answers."""
    return Bundle(0, (), 1, 0, 0, 0, 0, whole.queries, 0, whole.draws, whole.boundary_queries)


def _once(guard: Guard, x: Tensor) -> tuple[Any, Array]:
    parts = [guard.judge(part) for part in x.split(_AT_ONCE)]
    return np.concatenate([part.label for part in parts]), np.concatenate([part.score for part in parts])


def _judged(guard: Guard, x: Tensor, label: Any) -> tuple[Any, Array]:
    """(predicted (n,), score (n,)); of a random guard by most of 40 draws, see `majority`."""
    if not guard.random:
        return _once(guard, x)
    predicted, score = (np.stack(part) for part in zip(*(_once(guard, x) for _ in range(DRAWS)), strict=True))
    return majority(predicted, score, label)


def majority(predicted: Any, score: Array, label: Any) -> tuple[Any, Array]:
    """The verdict of most draws, (d, n) predictions and scores of inputs with labels (n,), as one prediction and one
    score (n,): a wrong label, the most frequent one, where at least half of the draws have one; and a score that is at
    most any threshold exactly where at least half of all draws have such a label and a score that is.
    """
    wrongs = predicted != label
    wrong = 2 * wrongs.sum(0) >= len(predicted)
    alike = wrongs == wrong
    classes = np.unique(predicted)
    votes = np.stack([((predicted == each) & alike).sum(0) for each in classes])
    needed = (len(predicted) + 1) // 2
    return classes[votes.argmax(0)], np.sort(np.where(alike, score, np.inf), 0)[needed - 1]


def _arrays(
    guard: Guard, threat: Threat, kind: Kind, row: Any, x_adv: Tensor, label: Any, **about: Any
) -> AttackedArrays:
    predicted, score = _judged(guard, x_adv, label)
    return AttackedArrays(threat, kind.attack, kind.norm, kind.eps, row, predicted, score, label=label, **about)


def _evaded(
    threat: Threat,
    kind: Kind,
    row: Any,
    evasion: Evasion,
    guard: Guard,
    label: Any,
    began: float,
    held: Tensor | None,
) -> AttackedArrays:
    seconds = time.perf_counter() - began
    told: dict[str, Any] = {"seconds": seconds, "effort": evasion.effort, "surrogate": evasion.surrogate}
    if held is not None:
        told["held"] = held.cpu().numpy()
    return _arrays(guard, threat, kind, row, evasion.x_adv, label, **told)


def _stored(clean: CleanArrays, attacked: Sequence[AttackedArrays]) -> dict[str, Any]:
    arrays: dict[str, Any] = {"label": clean.label, "predicted": clean.predicted, "score": clean.score}
    arrays["calibration_scores"] = clean.calibration_scores
    if clean.others is not None:
        own = clean.others
        arrays |= {"others|label": own.label, "others|predicted": own.predicted, "others|score": own.score}
    for one in attacked:
        name = f"{one.threat}|{one.attack}|{one.norm}|{one.eps:g}"
        arrays |= {f"{name}|predicted": one.predicted, f"{name}|score": one.score}
    return arrays
