"""The fast gradient sign method."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

from torch import Tensor

from robustgen.attacks.ascend import ascend
from robustgen.attacks.base import Attack, Found, Progress
from robustgen.attacks.passes import Passes
from robustgen.attacks.pgd import Steepest


@final
@dataclass(frozen=True, kw_only=True)
class FGSM(Attack):
    """x_adv = clip(x + eps * sign(grad loss)): one step of full length from the clean input, for every row.

    Goodfellow, Shlens, Szegedy 2015, "Explaining and harnessing adversarial examples", section 4; for L2 and L1 the
    step is the steepest of that norm. A lower bound on how easily a model is fooled: use PGD before saying that it is
    not.
    """

    channels_last: ClassVar[bool] = False  # one pass: nothing to gain, and bit for bit what other libraries compute

    def _run(self, passes: Passes, x: Tensor, y: Tensor, progress: Progress, verify: bool) -> Found:
        rule = Steepest(self.threat, self.threat.eps)
        return ascend(passes, rule, self.threat, x, y, steps=1, keep="last", progress=progress, verify=verify)
