"""DeepFool: step after step to the nearest boundary of the linearised model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from robustgen.attacks.ascend import Play, ascend
from robustgen.attacks.base import Attack, Found, Progress, check_counts
from robustgen.attacks.minimal import Clear
from robustgen.attacks.passes import Passes, Seen
from robustgen.errors import UsageError
from robustgen.threat import Norm, ThreatModel


@dataclass(frozen=True)
class NearestBoundary:
    """Adds the steps up, and goes a little farther than their sum; `seen.gradient` holds the step itself."""

    threat: ThreatModel
    overshoot: float

    def begin(self, clean: Tensor, label: Tensor, restart: int) -> tuple[Tensor, dict[str, Tensor]]:
        return clean, {"delta": torch.zeros_like(clean)}

    def move(self, play: Play, seen: Seen) -> Tensor:
        play.state["delta"] = play.state["delta"] + seen.gradient
        far = play.clean + (1 + self.overshoot) * play.state["delta"]
        return far.clamp(self.threat.low, self.threat.high)


@final
@dataclass(frozen=True, kw_only=True)
class DeepFool(Attack):
    """A small change that succeeds, in L2 or Linf, in a few steps: each goes to the nearest boundary between the label
    and another class, as the gradients at the point predict it.

    Moosavi-Dezfooli, Fawzi, Frossard 2016, "DeepFool: a simple and accurate method to fool deep neural networks",
    Algorithm 2 and eq. 10-11. `candidates`: the classes of highest logits, the label's among them, each of which costs
    a backward pass. `overshoot`: the share by which the steps' sum is exceeded, so as to cross the boundary. A row
    stops at its first success, which is its result. Any objective gives the verdict; the direction is always that of a
    misclassification.
    """

    norms: ClassVar[tuple[Norm, ...]] = ("linf", "l2")
    minimal: ClassVar[bool] = True
    targetable: ClassVar[bool] = False

    steps: int = 50
    candidates: int = 10
    overshoot: float = 0.02

    def __post_init__(self) -> None:
        super().__post_init__()
        check_counts(steps=self.steps, candidates=self.candidates)
        if self.candidates < 2:
            raise UsageError("candidates must be at least 2, the label and another class, but 1 came")
        if not self.overshoot >= 0:
            raise UsageError(f"overshoot must be 0 or more, but {self.overshoot:g} came")

    def _run(self, passes: Passes, x: Tensor, y: Tensor, progress: Progress, verify: bool) -> Found:
        def classes(logits: Tensor) -> Tensor:
            return logits.topk(min(self.candidates, logits.shape[1]), dim=1).indices

        row = torch.arange(len(x), device=x.device)
        clear = passes.part(row, Clear(passes.objective))

        def look(row: Tensor, point: Tensor, label: Tensor) -> Seen:
            logits, gradients = clear.jacobian(row, point, classes)
            value, achieved = clear.objective(lambda _: logits, point, label)
            return Seen(value, achieved, self._step(point, logits, gradients, classes(logits), label))

        rule = NearestBoundary(self.threat, self.overshoot)
        found = ascend(clear, rule, self.threat, x, y, steps=self.steps, keep="success", look=look, progress=progress)
        passes.absorb(row, clear)
        found.first_success[~self.threat.allows(found.x_adv, x)] = -1
        return found

    def _step(self, point: Tensor, logits: Tensor, gradients: Tensor, chosen: Tensor, label: Tensor) -> Tensor:
        """(m, *shape): the smallest change that the linearised model needs for the nearest of the `chosen` classes."""
        own = chosen == label[:, None]
        flat = gradients.flatten(2)
        # where the label is not among the chosen, the row is misclassified already: its logits and gradients count as 0
        slope = flat - (flat * own[:, :, None]).sum(1, keepdim=True)
        gap = (logits.gather(1, label[:, None]) - logits.gather(1, chosen)).clamp(min=0)
        length = torch.linalg.vector_norm(slope, 1.0 if self.threat.norm == "linf" else 2.0, dim=2).clamp(min=1e-12)
        # a little more than the gap, so that a point on the very boundary moves on
        size = (gap + 2e-5 * logits.abs().amax(1, keepdim=True)) / length
        size = torch.maximum(size, 1e-6 * point.flatten(1).abs().amax(1, keepdim=True))  # where all logits are 0
        size = torch.where(own, torch.inf, size)
        nearest = size.argmin(1, keepdim=True)
        length, size = length.gather(1, nearest), size.gather(1, nearest)
        slope = slope.gather(1, nearest[:, :, None].expand(-1, 1, flat.shape[2]))[:, 0]
        ahead = slope.sign() if self.threat.norm == "linf" else slope / length
        step: Tensor = (ahead * size).reshape(gradients[:, 0].shape)
        return step
