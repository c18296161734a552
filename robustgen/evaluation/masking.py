"""Can the figures of a guarded classifier be believed? What must hold wherever a detector is not merely hard to attack.

The counterpart of `diagnosis`, for classifier and detector together: a few inputs are attacked once more by someone who
knows both. After Carlini et al. 2019, "On evaluating adversarial robustness", and Tramèr, Carlini, Brendel,
Madry 2020, "On adaptive attacks to adversarial example defenses". Each check is cheap; none proves anything where it
passes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from robustgen.attacks.passes import Precision, evaluated
from robustgen.attacks.pgd import PGD
from robustgen.attacks.square import Square
from robustgen.errors import UsageError
from robustgen.evaluation.adaptive import evade, rejection_of
from robustgen.evaluation.bundles import Bundle
from robustgen.evaluation.check import Check
from robustgen.evaluation.guarded import AttackedArrays, CleanArrays
from robustgen.evaluation.score_checks import ScoreProbe, step_of
from robustgen.guard import Guard
from robustgen.objectives import Evade, Model
from robustgen.randomness import sample_keys, uniform
from robustgen.runtime import fitting_threads, seeded
from robustgen.threat import ThreatModel

Told = Callable[[str, float], None]
"""Told the name of the check that begins and the share of the work done so far."""

_MOST = 32  # inputs that are attacked
_QUERIES, _SAMPLES = 300, 100  # of the black box, and points drawn at random
_DESCENTS = (0.05, 0.01, 0.002)  # of the box: steps of the descent on the score alone, one after the other


def masking_checks(
    guard: Guard,
    threat: ThreatModel,
    x: Float[Tensor, "n *shape"],
    y: Int64[Tensor, " n"],
    *,
    steps: int = 40,
    eot: int = 1,
    seed: int = 0,
    held: Bool[Tensor, " n"] | None = None,
    precision: Precision = "float32",
    told: Told = lambda name, share: None,
) -> list[Check]:
    """All checks of a calibrated guard on inputs `x` with labels `y`, of which those classified correctly are attacked
    within `threat`, at most `_MOST`. `steps` of the attacks, `eot`, draws averaged, and the `precision` of gradients
    (see `Attack`): those of the run that is to be believed. `held`: what that run left out, because the classifier
    holds it by itself (`robustgen.evaluation.screening`); within `threat` gradients are not sent after it here either,
    random points and queries are.

    What a check cannot tell has `passed` None: everything about gradients for a guard that says it has none. The global
    random state is left as it was. Raises `UsageError` where no input is classified correctly.
    """
    with evaluated(guard), seeded(seed), fitting_threads(x.device, x[0].numel()):
        probe = _Probe(guard, threat, x, y, steps, eot, seed, precision, held)
        checks: list[Callable[[], Check | list[Check]]] = [
            probe.score_checks,
            probe.larger_eps,
            probe.full_box,
            probe.enough_steps,
            probe.black_box,
            probe.detector_alone,
        ]
        found: list[Check] = []
        for number, check in enumerate(checks):
            told(getattr(check, "__name__", "").replace("_", " "), number / len(checks))
            made = check()
            found += made if isinstance(made, list) else [made]
        return found


def knowledge_helps(clean: CleanArrays, attacked: Sequence[AttackedArrays], fpr: float) -> Check:
    """Does whoever knows the detector (W) lose no fewer inputs than whoever does not (Z, T, Q)? By size of attack, over
    the inputs that both were run on, each side the worst case over its attacks.
    """
    value = clean.threshold(fpr).value
    rows, worst = [], 0.0

    def lost(one: AttackedArrays) -> set[int]:
        return set(one.row[one.wrong(clean) & clean.right[one.row] & (one.score <= value)].tolist())

    for size in sorted({(one.norm, one.eps) for one in attacked}):
        here = [one for one in attacked if (one.norm, one.eps) == size]
        knowing = [one for one in here if one.threat == "W"]
        for threat in ("Z", "T", "Q"):
            others = [one for one in here if one.threat == threat]
            if not knowing or not others:
                continue
            shared = set.intersection(*(set(one.row[clean.right[one.row]].tolist()) for one in knowing + others))
            if not shared:
                continue
            own, other = (len(shared & set().union(*map(lost, side))) for side in (knowing, others))
            rows.append(f"{own} against {other} of {len(shared)} lost to W and {threat} ({size[0]} {size[1]:g})")
            worst = max(worst, (other - own) / len(shared) if other - own >= 2 else 0.0)
    return Check(
        "knowledge-helps",
        worst <= 0.02 if rows else None,
        "; ".join(rows) if rows else "no attack that knows the detector was run beside one that does not",
        "an attacker who knows more must not reach less, so that the attack on both is too weak (masked gradients, too "
        "few steps): the figure to believe is the larger one",
    )


@dataclass
class _Probe:
    """A guard and a few correctly classified inputs, and what attackers who know both make of them."""

    guard: Guard
    threat: ThreatModel
    x: Tensor
    y: Tensor
    steps: int
    eot: int
    seed: int
    precision: Precision
    held: Tensor | None
    spans: float = field(init=False)

    def __post_init__(self) -> None:
        with torch.no_grad():
            right = (self.guard.classifier(self.x).argmax(1) == self.y).nonzero()[:, 0]
        if not len(right):
            raise UsageError(f"none of the {len(self.x)} inputs is classified correctly: nothing can be attacked")
        chosen = right[torch.linspace(0, len(right) - 1, min(_MOST, len(right))).round().long()]
        self.x, self.y = self.x[chosen], self.y[chosen]
        self.held = torch.zeros_like(self.y, dtype=torch.bool) if self.held is None else self.held[chosen]
        self.spans = self.threat.high - self.threat.low
        if not math.isfinite(self.spans):
            self.spans = float(self.x.max() - self.x.min())

    @property
    def threshold(self) -> float:
        return self.guard.threshold.value

    def score_checks(self) -> list[Check]:
        pushed = PGD(threat=self.threat, steps=20, mode="max-loss", seed=self.seed)(self.model, self.x, self.y)
        step = step_of(self.threat, self.spans, self.steps)
        return ScoreProbe(self.guard, self.threat, self.x, pushed, step, self.eot).checks()

    @property
    def model(self) -> Model:
        model: Model = self.guard.classifier
        return model

    def lost(self, threat: ThreatModel, steps: int, rows: Tensor | None = None, targets: int = 1) -> Tensor:
        """(n,) which inputs (of `rows` (n,) bool, None = all) an attacker who knows both loses within `threat`."""
        rows = torch.ones_like(self.y, dtype=torch.bool) if rows is None else rows
        found = torch.zeros_like(rows)
        if self.held is not None and threat.norm == self.threat.norm and threat.eps <= self.threat.eps:
            rows = rows & ~self.held
        if rows.any():
            spend = Bundle(
                steps, ("random",), 1, targets, steps, 0, 0, 0, 0, self.eot, named=("reject-class",), object_steps=steps
            )
            means: dict[str, Any] = {"bundle": spend, "seed": self.seed, "precision": self.precision}
            found[rows] = evade(self.guard, self.x[rows], self.y[rows], threat, **means).lost
        return found

    @property
    def _spared(self) -> str:
        left_out = 0 if self.held is None else int(self.held.sum())
        return f" ({left_out} of them held by the classifier alone, and left out within eps)" if left_out else ""

    @cached_property
    def within_eps(self) -> Tensor:
        return self.lost(self.threat, self.steps)

    @cached_property
    def _tolerance(self) -> int:
        return max(1, len(self.x) // 10)

    def larger_eps(self) -> Check:
        """Half and twice the size, and fewer steps."""
        if not self.guard.differentiable:
            return self._nothing("larger-eps")
        eps = self.threat.eps
        sizes = [eps / 2, eps] + ([2 * eps] if self.threat.norm != "linf" or 2 * eps <= self.spans else [])
        counts = [
            int((self.within_eps if size == eps else self.lost(replace(self.threat, eps=size), self.steps)).sum())
            for size in sizes
        ]
        few = max(1, self.steps // 8)
        hasty = int(self.lost(self.threat, few).sum())
        rising = all(small <= large + self._tolerance for small, large in pairwise(counts))
        told = ", ".join(f"{count} with eps = {size:.3g}" for count, size in zip(counts, sizes, strict=True))
        return Check(
            "larger-eps",
            rising and hasty <= counts[1] + self._tolerance,
            f"of {len(self.x)} inputs{self._spared} an attacker who knows the detector got {told}, and {hasty} in "
            f"{few} steps, not {self.steps}",
            "what is lost within a small ball is lost within a larger one too, and more steps lose no fewer, so that "
            "an attack that finds less is led astray: take smaller steps, or the score without the step that misleads",
        )

    def full_box(self) -> Check:
        """All the room there is."""
        if not self.guard.differentiable or not math.isfinite(self.threat.high - self.threat.low):
            return self._nothing("full-box")
        box = replace(self.threat, norm="linf", eps=self.spans)
        few = torch.arange(len(self.y), device=self.y.device) < _MOST // 2
        lost = self.lost(box, 2 * self.steps, few)
        lost |= self.lost(box, 8 * self.steps, few & ~lost, targets=3)
        lost = lost[few]
        return Check(
            "full-box",
            bool(lost.all()),
            f"with the whole box to move in, an attacker who knows the detector got {int(lost.sum())} of {len(lost)} "
            "inputs accepted with a wrong label",
            "there any input can become a normal one of another class, so that an attack that fails has no gradients "
            "to follow (masked gradients), and what holds within eps may hold for the same reason",
        )

    def enough_steps(self) -> Check:
        """Twice the steps, and where these find more, twice those."""
        if not self.guard.differentiable:
            return self._nothing("enough-steps")
        counts, steps, lost, enough = [int(self.within_eps.sum())], self.steps, self.within_eps.clone(), False
        while not enough and steps < 4 * self.steps:
            steps *= 2
            more = self.lost(self.threat, steps, ~lost)
            enough = int(more.sum()) < 2 or int(more.sum()) <= 0.05 * len(lost)
            lost |= more
            counts.append(int(lost.sum()))
        told = ", ".join(f"{count} with {self.steps * 2**k} steps" for k, count in enumerate(counts))
        return Check(
            "enough-steps",
            len(counts) == 2 and enough,
            f"of {len(lost)} inputs{self._spared} an attacker who knows the detector got {told}",
            "the attack was still finding more when it ended, so that what is said to hold is overstated: take more "
            "steps",
        )

    def black_box(self) -> Check:
        """Random points of the ball and random squares, on inputs that the gradient attack left."""
        if not self.guard.differentiable:
            return self._nothing("black-box")
        held = ~self.within_eps
        x, y = self.x[held], self.y[held]
        if not len(x) or not self.threat.eps:
            return Check("black-box", True, "the gradient attack left no input to others", _BLACK_BOX)
        keys = sample_keys(x, self.seed)
        by_luck = torch.zeros_like(y, dtype=torch.bool)
        for number in range(_SAMPLES):
            point = self.threat.sample(x, keys, number)
            if self.threat.norm == "linf" and number % 2:
                signs = (uniform(keys, tuple(x.shape[1:]), number + 1000) < 0.5).to(x.dtype) * 2 - 1
                point = self.threat.project(x + self.threat.eps * signs, x)
            by_luck |= self._passes(point, y)
        by_queries = torch.zeros_like(by_luck)
        if self.threat.norm in Square.norms:
            square = Square(
                threat=self.threat,
                objective=Evade(rejection_of(self.guard)),
                queries=_QUERIES,
                seed=self.seed,
                eot=self.eot,
            )
            by_queries = square.run(self.model, x, y).success
        missed = int((by_luck | by_queries).sum())
        return Check(
            "black-box",
            missed < 2 or missed <= 0.05 * len(self.x),
            f"of {len(x)} inputs that held against gradients, {int(by_luck.sum())} fell to {_SAMPLES} random points, "
            f"{int(by_queries.sum())} to {_QUERIES} random queries (square)",
            _BLACK_BOX,
        )

    def _passes(self, point: Tensor, y: Tensor) -> Tensor:
        with torch.no_grad():
            label = self.model(point).argmax(1)
            return (label != y) & self.guard.accepts(self.guard.score(point, label))

    def detector_alone(self) -> Check:
        """From inputs that it rejects, down its score, whatever the label."""
        if not self.guard.differentiable:
            return self._nothing("detector-alone")
        point = self._rejected()
        n = len(point)
        if not n:
            return Check(
                "detector-alone",
                None,
                f"not even noise as large as the box was rejected, of {len(self.x)} inputs",
                "a detector that accepts everything cannot be attacked by itself: look at its detection rates",
            )
        box = replace(self.threat, norm="linf", eps=self.spans) if math.isfinite(self.threat.high) else self.threat
        accepted = torch.zeros(n, dtype=torch.bool, device=point.device)
        for share in _DESCENTS:
            left = ~accepted
            if left.any():
                down = PGD(
                    threat=box,
                    objective=_Accept(self.guard),
                    steps=2 * self.steps,
                    step_size=share * self.spans,
                    random_start=False,
                    eot=self.eot,
                )
                result = down.run(self.model, point[left], torch.zeros(int(left.sum()), dtype=torch.int64).to(self.y))
                point[left] = result.x_adv
                accepted[left] = result.success
        return Check(
            "detector-alone",
            int(accepted.sum()) >= n - max(0, n // 20),
            f"from {n} rejected inputs, descent on the score alone reached acceptance for {int(accepted.sum())}, with "
            "all the room of the box",
            "normal inputs lie in the box, so that a descent that does not reach acceptance has no slope to follow "
            "(masked gradients): an attack on classifier and detector has none either",
        )

    def _rejected(self) -> Tensor:
        """Inputs that the guard rejects: these, with more and more noise until enough are."""
        keys, found = sample_keys(self.x, self.seed + 1), self.x[:0]
        low = self.threat.low if math.isfinite(self.threat.low) else float(self.x.min())
        for number, share in enumerate((0.0, 0.2, 0.4, 0.7, 1.0)):
            noise = low + self.spans * uniform(keys, tuple(self.x.shape[1:]), number).to(self.x.dtype)
            mixed = (1 - share) * self.x + share * noise
            with torch.no_grad():
                rejects = ~self.guard.accepts(self.guard.score(mixed))
            found = torch.cat([found, mixed[rejects]])
            if len(found) >= _MOST // 2:
                break
        return found[: _MOST // 2].clone()

    def _nothing(self, name: str) -> Check:
        why = (
            "the box has no ends" if self.guard.differentiable else "the score has no gradients, and the guard says so"
        )
        return Check(
            name,
            None,
            f"not tried: {why}",
            "attacks that follow gradients say nothing here: believe attacks by queries and through stand-in gradients",
        )


_BLACK_BOX = (
    "an attack that sees the gradients must not be beaten by one that does not, so that the gradients lead nowhere "
    "(masked gradients): believe the lower figure, and attack by queries or through a stand-in gradient (BPDA)"
)


@dataclass(frozen=True)
class _Accept:
    """Make the guard accept an input, whatever it is taken for."""

    guard: Guard

    def __call__(self, model: Model, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            label = model(x).argmax(1)
        score = self.guard.score(x, label)
        return -score, self.guard.accepts(score)
