"""The fast gradient sign method."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

from torch import Tensor

from robustgen.attacks.ascend import ascend
from robustgen.attacks.base import Attack, AttackResult, Progress
from robustgen.objectives import Model


@final
@dataclass(frozen=True, kw_only=True)
class FGSM(Attack):
    """x_adv = clip(x + eps * sign(grad loss)): one step of full length from the clean input, for every row.

    Goodfellow, Shlens, Szegedy 2015, "Explaining and harnessing adversarial examples", section 4; for L2 and L1 the
    step is the steepest of that norm. A lower bound on how easily a model is fooled: use PGD before saying that it is
    not.
    """

    channels_last: ClassVar[bool] = False  # one pass: nothing to gain, and bit for bit what other libraries compute

    def _run(self, model: Model, x: Tensor, y: Tensor, progress: Progress, verify: bool) -> AttackResult:
        return ascend(
            model,
            self.objective,
            self.threat,
            x,
            y,
            start=lambda rows, _: rows,
            steps=1,
            step_size=self.threat.eps,
            keep="last",
            channels_last=self.channels_last,
            batch_size=self.rows_at_once(x),
            progress=progress,
            verify=verify,
        )
