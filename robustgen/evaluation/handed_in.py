"""Attackers who have to hand in an image file: every value on one of its 256 levels."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from typing import Any, final

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from robustgen.attacks.base import Attack
from robustgen.attacks.passes import evaluated
from robustgen.evaluation.adaptive import DRAWS, Evasion, Guarded, evade, random_classifier, verdicts
from robustgen.evaluation.noise import rounded
from robustgen.evaluation.quantise import LEVELS, settled
from robustgen.evaluation.surrogate import straight_through
from robustgen.objectives import Model
from robustgen.threat import ThreatModel

_BATCH = 250


def going_on(attack: Attack) -> Attack | None:
    """`attack` with all its steps taken, if it stopped at its first success, which rounding may undo; else None."""
    if getattr(attack, "mode", None) != "evaluate" or attack.minimal:
        return None
    further: Attack = replace(attack, mode="max-loss")  # type: ignore[call-arg]
    return further


def fooling_images(
    attack: Attack, model: Model, x: Float[Tensor, "n *shape"], y: Int64[Tensor, " n"]
) -> Float[Tensor, "n *shape"]:
    """What `attack` makes of images, on levels: where rounding undoes a success, the levels further away are tried, and
    then an attack that goes on after its first success.
    """

    def fooled(row: Tensor, points: Tensor) -> Tensor:
        parts = zip(points.split(_BATCH), y[row].split(_BATCH), strict=True)
        with torch.no_grad():
            return torch.cat([model(part).argmax(1) != label for part, label in parts])

    found, undone = settled(attack.threat, attack(model, x, y), x, fooled)
    row, further = undone.nonzero()[:, 0], going_on(attack)
    if len(row) and further is not None:
        again = further(model, x[row], y[row])
        found[row] = settled(attack.threat, again, x[row], lambda part, points: fooled(row[part], points))[0]
    return found


@final
class InLevels(nn.Module):
    """`guard` behind a reader of image files: it sees inputs on 256 levels, and gradients pass the rounding as if it
    were not there (`straight_through`).
    """

    def __init__(self, guard: Guarded, low: float, high: float) -> None:
        super().__init__()
        self._guard = [guard]  # no part of this one
        self.round = straight_through(lambda x: rounded(x, low, high))
        self.classifier = _Behind(guard.classifier, self.round)

    @property
    def threshold(self) -> Any:
        return self._guard[0].threshold

    @property
    def calibration_scores(self) -> Any:
        return self._guard[0].calibration_scores

    @property
    def differentiable(self) -> bool:
        return self._guard[0].differentiable

    @property
    def random(self) -> bool:
        return self._guard[0].random

    @property
    def random_classifier(self) -> bool:
        return random_classifier(self._guard[0])

    def score(self, x: Tensor, label: Tensor | None = None) -> Tensor:
        return self._guard[0].score(self.round(x), label)


class _Behind(nn.Module):
    def __init__(self, network: nn.Module, round: Any) -> None:
        super().__init__()
        self.network, self.round = network, round

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.network(self.round(x))
        return logits


def as_images(
    guard: Guarded,
    x: Float[Tensor, "n *shape"],
    y: Int64[Tensor, " n"],
    threat: ThreatModel,
    found: Evasion,
    **options: Any,
) -> Evasion:
    """What became of the inputs under attack, `found`, on levels, and what the guard says of that. Where rounding
    undoes a success, and the levels further away do too, the attacks of `evade` (`options`) are run once more on the
    guard as it sees image files. Passes and seconds that this costs are counted; `member` and what each of them found
    stay as they were.
    """
    if not len(x):
        return found
    began = time.perf_counter()
    with evaluated(guard, channels_last=True):  # type: ignore[arg-type]  # what is no module is left as it is
        made, row, again = _images(guard, x, y, threat, found, options)
    wrong, accepted, score, _ = verdicts(guard, made, y, DRAWS if guard.random else 1)
    forward, backward = found.forward.clone(), found.backward.clone()
    if again is not None:
        forward[row] += again.forward
        backward[row] += again.backward
    return replace(
        found,
        lost=wrong & accepted & threat.allows(made, x),
        x_adv=made,
        score=score,
        fooled=wrong,
        forward=forward,
        backward=backward,
        seconds=found.seconds | {"rounding": time.perf_counter() - began},
        surrogate=found.surrogate or (again is not None and again.surrogate),
    )


def _images(
    guard: Guarded, x: Tensor, y: Tensor, threat: ThreatModel, found: Evasion, options: dict[str, Any]
) -> tuple[Tensor, Tensor, Evasion | None]:
    """The points; the rows that were attacked once more, and what became of them."""

    def passes(row: Tensor, points: Tensor) -> Tensor:
        wrong, accepted, *_ = verdicts(guard, points, y[row], DRAWS if guard.random else 1)
        return wrong & accepted

    made, undone = settled(threat, found.x_adv, x, passes, found.lost)
    row, again = undone.nonzero()[:, 0], None
    step = (threat.high - threat.low) / (LEVELS - 1)
    whole = replace(
        threat, eps=math.floor(threat.eps / step * (1 + 1e-6)) * step
    )  # all of its points round into the ball
    if len(row) and whole.eps:
        again = evade(InLevels(guard, threat.low, threat.high), x[row], y[row], whole, **options)
        made[row] = settled(threat, again.x_adv, x[row], lambda part, points: passes(row[part], points), again.lost)[0]
    return made, row, again
