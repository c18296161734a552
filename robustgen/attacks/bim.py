"""The basic iterative method: small steps from the clean input, without chance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from torch import Tensor

from robustgen.attacks.ascend import ascend
from robustgen.attacks.base import Attack, Found, Mode, Progress, check_counts
from robustgen.attacks.passes import Passes
from robustgen.attacks.pgd import KEEP, Steepest, check_size


@final
@dataclass(frozen=True, kw_only=True)
class BIM(Attack):
    """FGSM in `steps` steps of `step_size` (None = eps / steps), each kept in the ball and the box.

    Kurakin, Goodfellow, Bengio 2017, "Adversarial examples in the physical world", section 2.2. `mode`: as for `PGD`,
    which differs by its random start and longer steps.
    """

    steps: int = 10
    step_size: float | None = None
    mode: Mode = "evaluate"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_counts(steps=self.steps)
        check_size(self.step_size)

    def _run(self, passes: Passes, x: Tensor, y: Tensor, progress: Progress, verify: bool) -> Found:
        rule = Steepest(self.threat, self.threat.eps / self.steps if self.step_size is None else self.step_size)
        keep = KEEP[self.mode]
        return ascend(passes, rule, self.threat, x, y, steps=self.steps, keep=keep, progress=progress, verify=verify)
