"""FGSM with momentum: steps along a running sum of gradients, which carries over to other models better."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from torch import Tensor

from robustgen.attacks.ascend import ascend
from robustgen.attacks.base import Attack, Found, Mode, Progress, check_counts
from robustgen.attacks.passes import Passes
from robustgen.attacks.pgd import KEEP, Steepest, check_decay, check_size


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
        check_decay(self.decay)

    def _run(self, passes: Passes, x: Tensor, y: Tensor, progress: Progress, verify: bool) -> Found:
        size = self.threat.eps / self.steps if self.step_size is None else self.step_size
        rule, keep = Steepest(self.threat, size, decay=self.decay), KEEP[self.mode]
        return ascend(passes, rule, self.threat, x, y, steps=self.steps, keep=keep, progress=progress, verify=verify)
