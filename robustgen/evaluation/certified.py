"""A lower bound on what no attack whatever can take from a guard: certified robust accuracy with detector.

An input (x, y) is certified at eps when no x' in the Linf ball around it, inside the box of legal values, has a wrong
label that is accepted. That is proven class by class: for each wrong class, either the classifier's logit of y lies
above that of the class everywhere in the ball, or the guard's score, judged against the class, lies above the threshold
everywhere in it. The proof is by bounds (`robustgen.bounds`) of what float32 computes. What is not certified need not
be insecure: bounds are loose, most of all of networks that were not trained for them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, final

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from robustgen.attacks.base import check_inputs
from robustgen.bounds import Box, Method, box, check_method, logit_bounds
from robustgen.errors import UsageError
from robustgen.guard import Guard
from robustgen.guard.least import least_score
from robustgen.metrics import proportion
from robustgen.threat import ThreatModel

_AT_ONCE = 100


@final
@dataclass(frozen=True)
class Certificate:
    """Of n inputs, each (n,): `certified`: nothing in the ball has a wrong label that is accepted; `by_classifier` and
    `by_detector`: what one of the two alone proves, no wrong label at all, or none that would be accepted;
    `right` and `accepted`: the clean input's label is right, and it is accepted.
    """

    certified: Bool[Tensor, " n"]
    by_classifier: Bool[Tensor, " n"]
    by_detector: Bool[Tensor, " n"]
    right: Bool[Tensor, " n"]
    accepted: Bool[Tensor, " n"]

    def figures(self) -> dict[str, Any]:
        """Shares with their intervals: `certified_robust_accuracy` (RA_D), `certified_useful` (certified, and when
        clean right and accepted), `by_classifier`, `by_detector`, `useful` and `accuracy` of clean inputs.
        """
        useful = self.right & self.accepted
        rows = {
            "certified_robust_accuracy": self.certified,
            "certified_useful": self.certified & useful,
            "by_classifier": self.by_classifier,
            "by_detector": self.by_detector,
            "useful": useful,
            "accuracy": self.right,
        }
        n = len(self.certified)
        return {"n": n} | {name: proportion(int(row.sum()), n)._asdict() for name, row in rows.items()}


def certify(
    guard: Guard,
    x: Float[Tensor, "n *shape"],
    y: Int64[Tensor, " n"],
    threat: ThreatModel,
    *,
    method: str = "interval",
    progress: Callable[[int], None] | None = None,
) -> Certificate:
    """What can be proven of inputs and their labels. A classifier of which no bounds are known proves nothing.

    `method`: "interval", or "crown", whose bounds are never looser and take far longer. `progress`: called with the
    number of inputs just done. Raises `UsageError` for another norm than Linf, or if no bounds are known of any of the
    guard's detectors.
    """
    way = check_method(method)
    if threat.norm != "linf":
        raise UsageError(f"bounds are of boxes, so of changes in linf, but {threat.norm} came")
    check_inputs(threat, x, y)
    parts = []
    with torch.no_grad():
        for part, label in zip(x.split(_AT_ONCE), y.split(_AT_ONCE), strict=True):
            parts.append(_certified(guard, part, label, threat, way))
            if progress is not None:
                progress(len(part))
    return Certificate(*(torch.cat(values) for values in zip(*parts, strict=True)))


def _certified(guard: Guard, x: Tensor, y: Tensor, threat: ThreatModel, method: Method) -> tuple[Tensor, ...]:
    ball = ball_around(x, threat)
    rejected = least_score(guard, ball, method) > guard.threshold.value
    behind = _behind(guard.classifier, ball, y, rejected.shape[1], method)
    own = torch.zeros_like(rejected).scatter(1, y[:, None], True)
    found = guard(x)
    right = found.logits.argmax(1) == y
    masks = (behind | rejected, behind, rejected)
    return (*((mask | own).all(1) for mask in masks), right, found.accepted)


def ball_around(x: Float[Tensor, "n *shape"], threat: ThreatModel) -> Box:
    """All that `threat.allows`, which forgives the rounding of one addition a value."""
    wide = threat.eps * (1 + 1e-6) + 6e-8 * x.double().abs().amax().clamp(min=1)
    low, high = x.double() - wide, x.double() + wide
    return box(low.clamp(min=threat.low), high.clamp(max=threat.high), rounding=True)


def _behind(classifier: nn.Module, ball: Box, y: Tensor, classes: int, method: Method) -> Tensor:
    """(n, classes) where the logit of `y` lies above that of the class everywhere in the ball."""
    try:
        lead = logit_bounds(classifier, ball, method).lead
    except UsageError:
        return torch.zeros(len(y), classes, dtype=torch.bool, device=y.device)
    return lead[torch.arange(len(y), device=y.device), y] > 0


def certified_figures(
    guard: Guard, x: Tensor, y: Tensor, threat: ThreatModel, method: str = "interval"
) -> Mapping[str, Any]:
    """`Certificate.figures` with eps, norm and method; without bounds, figures are None and `why` says so."""
    about: dict[str, Any] = {"norm": threat.norm, "eps": threat.eps, "method": method}
    try:
        return about | certify(guard, x, y, threat, method=method).figures() | {"why": None}
    except UsageError as error:
        names = ("certified_robust_accuracy", "certified_useful", "by_classifier", "by_detector")
        return about | {"n": len(x)} | dict.fromkeys(names) | {"why": str(error)}
