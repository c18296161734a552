"""Fooling images: from noise to an input that the model is sure about."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar, final

from jaxtyping import Bool, Float, Int64
from torch import Tensor

from robustgen.attacks.ascend import Play, ascend
from robustgen.attacks.base import Attack, Found, Progress, check_counts
from robustgen.attacks.passes import Passes, Seen
from robustgen.attacks.pgd import check_size
from robustgen.errors import UsageError
from robustgen.objectives import Model, Objective, cross_entropy
from robustgen.randomness import sample_keys, uniform
from robustgen.threat import ThreatModel


@dataclass(frozen=True)
class Confident:
    """Make the model predict `y` with at least the softmax probability `confidence`; `value` is its logarithm."""

    confidence: float = 0.99
    targeted: ClassVar[bool] = True

    def __call__(
        self, model: Model, x: Float[Tensor, "n *shape"], y: Int64[Tensor, " n"]
    ) -> tuple[Float[Tensor, " n"], Bool[Tensor, " n"]]:
        logits = model(x)
        value = -cross_entropy(logits, y)
        return value, (value.detach().exp() >= self.confidence) & (logits.argmax(1) == y)


@dataclass(frozen=True)
class _FromNoise:
    """Steps of `size` from uniform noise in the box, another for each sample."""

    threat: ThreatModel
    size: float
    seed: int

    def begin(self, clean: Tensor, label: Tensor, restart: int) -> tuple[Tensor, dict[str, Tensor]]:
        noise = uniform(sample_keys(clean, self.seed), tuple(clean.shape[1:]), restart).to(clean.dtype)
        return self.threat.project(self.threat.low + (self.threat.high - self.threat.low) * noise, clean), {}

    def move(self, play: Play, seen: Seen) -> Tensor:
        return self.threat.project(self.threat.step(play.point, seen.gradient, self.size), play.clean)


@final
@dataclass(frozen=True, kw_only=True)
class Fooling(Attack):
    """Gradient ascent from noise to an input that the model puts into class `y` with probability `confidence`.

    Nguyen, Yosinski, Clune 2015, "Deep neural networks are easily fooled", section "Images produced by gradient
    ascent". `y` is the class to reach; of `x` only the shape and the values' hash, which keys the noise, are used, so
    the ball must hold the whole box: eps = high - low in Linf, times sqrt(d) in L2 and d in L1, for d values. The norm
    decides the direction of a step. `step_size` in input units; None = 2.5 * eps / steps. A row stops at its first
    success.
    """

    whole_box: ClassVar[bool] = True

    objective: Objective = field(init=False, default_factory=Confident)
    steps: int = 200
    step_size: float | None = None
    confidence: float = 0.99

    def __post_init__(self) -> None:
        if not 0 < self.confidence < 1:
            raise UsageError(f"confidence is a probability between 0 and 1, but {self.confidence:g} came")
        object.__setattr__(self, "objective", Confident(self.confidence))
        super().__post_init__()
        check_counts(steps=self.steps)
        check_size(self.step_size)

    def _run(self, passes: Passes, x: Tensor, y: Tensor, progress: Progress, verify: bool) -> Found:
        self._check_room(math.prod(x.shape[1:]))
        size = 2.5 * self.threat.eps / self.steps if self.step_size is None else self.step_size
        rule = _FromNoise(self.threat, size, self.seed)
        return ascend(passes, rule, self.threat, x, y, steps=self.steps, progress=progress, verify=verify)

    def _check_room(self, values: int) -> None:
        """Raise `UsageError` unless every point of the box lies in the ball around any other."""
        order = {"linf": 0.0, "l2": 0.5, "l1": 1.0}[self.threat.norm]
        needed = (self.threat.high - self.threat.low) * values**order
        if self.threat.eps < needed * (1 - 1e-6):
            raise UsageError(
                f"fooling starts from noise, so eps must cover the whole box: {self.threat.norm} eps >= {needed:g} is "
                f"needed, but {self.threat.eps:g} came"
            )
