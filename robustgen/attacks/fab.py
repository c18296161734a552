"""FAB: steps to the linearised boundary that stay near the clean input."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from robustgen.attacks.ascend import Keep, Look, Play, ascend
from robustgen.attacks.base import Attack, Found, Progress, check_counts
from robustgen.attacks.fab_projection import to_hyperplane
from robustgen.attacks.minimal import Clear, MinimalMode, each
from robustgen.attacks.passes import Passes, Seen
from robustgen.errors import UsageError
from robustgen.objectives import Misclassify, Towards, difference, margin
from robustgen.randomness import normal, sample_keys, uniform
from robustgen.threat import Norm

_Linear = Look
"""(row, point, label) -> the value and gradient of a logit's lead over the label's."""

_KEEP: dict[MinimalMode, Keep] = {"minimal": "closest", "evaluate": "within"}


@dataclass(frozen=True, kw_only=True)
class _Boundary(Attack):
    """The walk along the boundary that both forms share."""

    minimal: ClassVar[bool] = True
    bounded: ClassVar[tuple[Norm, ...]] = ("linf", "l2", "l1")
    targetable: ClassVar[bool] = False

    steps: int = 100
    restarts: int = 1
    alpha_max: float = 0.1
    eta: float = 1.05
    beta: float = 0.9
    mode: MinimalMode = "minimal"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_counts(steps=self.steps, restarts=self.restarts)
        if self.mode not in _KEEP:
            raise UsageError(f"mode is minimal or evaluate, but {self.mode!r} came")
        if not (0 <= self.alpha_max <= 1 and self.eta >= 1 and 0 < self.beta < 1):
            raise UsageError(
                f"alpha_max lies in [0, 1], eta is at least 1, beta lies between 0 and 1, but alpha_max="
                f"{self.alpha_max:g}, eta={self.eta:g} and beta={self.beta:g} came"
            )
        if self.objective != Misclassify():
            raise UsageError(f"{type(self).__name__} goes to the model's own boundary: leave the objective out")

    def _search(
        self, passes: Passes, linear: _Linear, x: Tensor, y: Tensor, restarts: int, progress: Progress
    ) -> Found:
        walk = _Walk(self, passes, linear, x)
        return ascend(
            passes,
            walk,
            self.threat,
            x,
            y,
            steps=self.steps,
            restarts=restarts,
            keep=_KEEP[self.mode],
            look=walk.look,
            progress=progress,
        )


@final
@dataclass(frozen=True, kw_only=True)
class FAB(_Boundary):
    """The smallest change that succeeds, by steps to the linearised boundary of the nearest class.

    Croce, Hein 2020, "Minimally distorted adversarial examples with a fast adaptive boundary attack", algorithm 1. Each
    of `steps` steps goes to the boundary of the linearised model, both from where the search stands and from the clean
    input, `eta` times as far as needed; the second has a weight of at most `alpha_max`. From a success the search goes
    on at `beta` of its change. `restarts` after the first begin at a distance of eps / 2. `mode`: "minimal" takes all
    steps and returns the nearest success, "evaluate" stops a row at its first success within eps.

    A step costs two forward passes and one backward pass for each class of the model.
    """

    def _run(self, passes: Passes, x: Tensor, y: Tensor, progress: Progress, verify: bool) -> Found:
        row = torch.arange(len(x), device=x.device)
        clear = passes.part(row, Clear(Misclassify(margin)))
        linear = _NearestClass(clear, {"linf": 1.0, "l2": 2.0, "l1": torch.inf}[self.threat.norm])
        found = self._search(clear, linear, x, y, self.restarts, progress)
        passes.absorb(row, clear)
        return found


@final
@dataclass(frozen=True, kw_only=True)
class FABT(_Boundary):
    """`FAB` towards the `targets` likeliest wrong classes of the clean input, one by one, as AutoAttack uses it.

    A step costs two forward passes and one backward pass; any misclassification is a success. A model of fewer classes
    has fewer targets. Each gets `restarts` restarts; `AttackResult.restart` counts target * restarts + restart.
    """

    targets: int = 9

    def __post_init__(self) -> None:
        super().__post_init__()
        check_counts(targets=self.targets)

    def _run(self, passes: Passes, x: Tensor, y: Tensor, progress: Progress, verify: bool) -> Found:
        if not len(x):
            return Found.nothing(x)
        row = torch.arange(len(x), device=x.device)
        logits = torch.cat([passes.logits(part, x[part]) for part in row.split(passes.rows_at_once)])
        wrong = logits.scatter(1, y[:, None], -torch.inf)
        targets = wrong.topk(min(self.targets, max(1, wrong.shape[1] - 1)), dim=1).indices
        targets = targets.repeat_interleave(self.restarts, dim=1)
        labels = torch.stack([y[:, None].expand_as(targets), targets], 2)
        clear = passes.part(row, Clear(Towards(difference)))
        found = self._search(clear, clear.ascent, x, labels, targets.shape[1], progress)
        passes.absorb(row, clear)
        return found


class _Walk:
    """The rule and its look: the verdict at the point, then value and slope where the next step begins.

    That is the point itself or, once it has crossed the boundary, a place on its way back to the clean input. Looking
    for the verdict with the gradient, in the hope that the point has not crossed, would not pay: more than half have.
    `margin` (n,): the size of each row's first value, usually at the clean input.
    """

    def __init__(self, attack: _Boundary, passes: Passes, linear: _Linear, x: Tensor) -> None:
        self.attack, self.passes, self.linear, self.x = attack, passes, linear, x
        self.crossed = torch.zeros(len(x), dtype=torch.bool, device=x.device)
        self.margin = torch.full(x.shape[:1], torch.nan, device=x.device)

    def look(self, row: Tensor, point: Tensor, label: Tensor) -> Seen:
        verdict = self.passes.judge(row, point, label)
        self.margin[row] = torch.where(self.margin[row].isnan(), verdict.value.abs().float(), self.margin[row])
        # Steps gather at the boundary, where rounding would decide between two ways to go on, and where to step on
        # would only circle around it: what is as good as there counts as across, though it is no success to report.
        self.crossed[row] = verdict.achieved | (verdict.value > -1e-5 * self.margin[row])
        return self.linear(row, self._base(row, point, self.x[row]), label)._replace(achieved=verdict.achieved)

    def begin(self, clean: Tensor, label: Tensor, restart: int) -> tuple[Tensor, dict[str, Tensor]]:
        threat = self.attack.threat
        if restart % self.attack.restarts == 0:
            return clean, {}
        keys, shape = sample_keys(clean, self.attack.seed), tuple(clean.shape[1:])
        noise = 2 * uniform(keys, shape, restart) - 1 if threat.norm == "linf" else normal(keys, shape, restart)
        noise = noise.to(clean.dtype)
        length = threat.distance(noise, torch.zeros_like(noise)).clamp(min=1e-12)
        return (clean + noise * each(threat.eps / 2 / length, clean)).clamp(threat.low, threat.high), {}

    def move(self, play: Play, seen: Seen) -> Tensor:
        threat, clean, slope = self.attack.threat, play.clean, seen.gradient
        base = self._base(play.row, play.point, clean)
        here = -seen.value.to(clean.dtype)
        there = here + ((base - clean) * slope).flatten(1).sum(1)
        starts = torch.stack([base, clean])
        change = to_hyperplane(
            starts.flatten(2), slope.flatten(1), torch.stack([here, there]), threat.norm, threat.low, threat.high
        ).reshape(starts.shape)
        near, far = (threat.distance(part, torch.zeros_like(part)).clamp(min=1e-8) for part in change)
        share = each((near / (near + far)).clamp(max=self.attack.alpha_max), clean)
        ahead, fresh = starts + self.attack.eta * change
        point: Tensor = (ahead * (1 - share) + fresh * share).clamp(threat.low, threat.high)
        return point

    def _base(self, row: Tensor, point: Tensor, clean: Tensor) -> Tensor:
        back: Tensor = clean + self.attack.beta * (point - clean)
        base: Tensor = torch.where(each(self.crossed[row], point), back, point)
        return base


@dataclass(frozen=True)
class _NearestClass:
    """Value and slope for the class whose linearised boundary is nearest, in the norm whose dual has this `order`."""

    passes: Passes
    order: float

    def __call__(self, row: Tensor, point: Tensor, label: Tensor) -> Seen:
        logits, gradients = self.passes.jacobian(row, point, _all_classes)
        places = torch.arange(len(row), device=row.device)
        values = logits - logits.gather(1, label[:, None])
        gradients = gradients - gradients[places, label][:, None]
        distances = values.abs() / (torch.linalg.vector_norm(gradients.flatten(2), self.order, dim=2) + 1e-12)
        nearest = distances.scatter(1, label[:, None], torch.inf).argmin(1)
        value = values[places, nearest]
        return Seen(value, value > 0, gradients[places, nearest])


def _all_classes(logits: Tensor) -> Tensor:
    return torch.arange(logits.shape[1], device=logits.device).expand_as(logits)
