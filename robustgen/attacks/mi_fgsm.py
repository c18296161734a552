"""FGSM with momentum: steps along a running sum of gradients, which carries over to other models better."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from robustgen.attacks.ascend import Play, ascend
from robustgen.attacks.base import Attack, Found, Mode, Progress, check_counts
from robustgen.attacks.passes import Passes, Seen
from robustgen.attacks.pgd import KEEP, check_size
from robustgen.errors import UsageError
from robustgen.threat import ThreatModel


@dataclass(frozen=True)
class _Momentum:
    threat: ThreatModel
    size: float
    decay: float

    def begin(self, clean: Tensor, label: Tensor, restart: int) -> tuple[Tensor, dict[str, Tensor]]:
        return clean, {"velocity": torch.zeros_like(clean)}

    def move(self, play: Play, seen: Seen) -> Tensor:
        mean = seen.gradient.flatten(1).abs().mean(1).reshape(-1, *[1] * (play.clean.dim() - 1))
        play.state["velocity"] = self.decay * play.state["velocity"] + seen.gradient / torch.where(mean > 0, mean, 1)
        return self.threat.project(self.threat.step(play.point, play.state["velocity"], self.size), play.clean)


@final
@dataclass(frozen=True, kw_only=True)
class MIFGSM(Attack):
    """g <- decay * g + grad / mean|grad|, then a step of `step_size` (None = eps / steps), the steepest along g.

    Dong, Liao, Pang, Su, Zhu, Hu, Li 2018, "Boosting adversarial attacks with momentum", algorithm 1, which divides by
    the gradient's sum of absolutes: the same direction at every step. `mode`: as for `PGD`.
    """

    steps: int = 10
    step_size: float | None = None
    decay: float = 1.0
    mode: Mode = "evaluate"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_counts(steps=self.steps)
        check_size(self.step_size)
        if not self.decay >= 0:
            raise UsageError(f"decay must be 0 (no momentum) or more, but {self.decay:g} came")

    def _run(self, passes: Passes, x: Tensor, y: Tensor, progress: Progress, verify: bool) -> Found:
        size = self.threat.eps / self.steps if self.step_size is None else self.step_size
        rule, keep = _Momentum(self.threat, size, self.decay), KEEP[self.mode]
        return ascend(passes, rule, self.threat, x, y, steps=self.steps, keep=keep, progress=progress, verify=verify)
