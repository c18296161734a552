"""PGD for an attacker who has two aims, a wrong label and an input that a detector accepts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, final, get_args

import torch
from torch import Tensor

from robustgen.attacks.ascend import Keep, ascend
from robustgen.attacks.base import Attack, Found, Progress, check_counts
from robustgen.attacks.passes import Passes
from robustgen.attacks.pgd import Steepest, check_decay, check_size
from robustgen.errors import UsageError
from robustgen.objectives import Accept, Evade, Misclassify, Objective, margin
from robustgen.registry import suggestion
from robustgen.threat import Norm

Start = Literal["clean", "random", "pgd", "detector"]
"""Where the steps begin: at the input; at a random legal point; where PGD on the classifier alone ends, a wrong label
of large margin; where a descent on the detector's score alone ends.
"""


@final
@dataclass(frozen=True, kw_only=True)
class EvadingPGD(Attack):
    """`steps` projected steps along the direction that an `Evade` objective gives, shrinking to 0 along half a cosine.

    `decay`: of the running sum of directions that is followed (momentum: Dong et al. 2018), 0 = none. A score that
    bends within a step, such as a distance or a code length, misleads single gradients more than their mean.

    With the objective's ways this is selective and orthogonal PGD (Bryniarski et al. 2021) and PGD on a Lagrangian.
    `step_size`: of the first step, in input units; None = eps / 4. `start`: of the first restart, found in
    `start_steps` steps where it takes any; further restarts begin at random points. `targets`: 0 steps towards any
    wrong label; k > 0 towards each of the k classes whose logits on the clean input come next to the label's, with
    `restarts` for each (multi-targeted: Gowal et al. 2019; what detectors that know classes call for, Tramer et al.
    2020). `mode`: "evaluate" stops a row at its first success; "max-loss" takes all steps and returns the point of
    lowest score with a wrong label. Of all points seen the best is returned, not the last.
    """

    norms: ClassVar[tuple[Norm, ...]] = ("linf", "l2", "l1")
    targetable: ClassVar[bool] = False

    objective: Evade
    steps: int = 100
    step_size: float | None = None
    decay: float = 0.9
    start: Start = "random"
    start_steps: int = 10
    restarts: int = 1
    targets: int = 0
    mode: Literal["evaluate", "max-loss"] = "evaluate"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_counts(steps=self.steps, start_steps=self.start_steps, restarts=self.restarts)
        check_size(self.step_size)
        check_decay(self.decay)
        if self.start not in get_args(Start):
            raise UsageError(suggestion(self.start, get_args(Start), "start"))
        if self.targets < 0:
            raise UsageError(f"targets is 0 (any wrong label) or how many classes to aim at, but {self.targets} came")

    def _run(self, passes: Passes, x: Tensor, y: Tensor, progress: Progress, verify: bool) -> Found:
        if not len(x):
            return Found.nothing(x)
        aims = next_classes(passes, x, y, self.targets).repeat_interleave(self.restarts, 1) if self.targets else y
        size = self.threat.eps / 4 if self.step_size is None else self.step_size
        keep: Keep = "success" if self.mode == "evaluate" else "best"
        seed = None if self.start == "clean" and self.restarts == 1 else self.seed
        return ascend(
            passes,
            Steepest(self.threat, size, seed, self.steps, self.decay),
            self.threat,
            x,
            aims,
            steps=self.steps,
            restarts=aims.shape[1] if self.targets else self.restarts,
            keep=keep,
            progress=progress,
            verify=verify,
            starts=self._starts(passes, x, y),
        )

    def _starts(self, passes: Passes, x: Tensor, y: Tensor) -> Tensor | None:
        """(n, *shape) where the first restart begins; None = where the steps' rule has it."""
        if self.start == "random":
            return None
        if self.start == "clean":
            return x
        row = torch.arange(len(x), device=x.device)
        first: Objective = Misclassify(margin) if self.start == "pgd" else Accept(self.objective.rejection)
        alone = passes.part(row, first)
        rule = Steepest(self.threat, 2.5 * self.threat.eps / self.start_steps, self.seed)
        found = ascend(
            alone, rule, self.threat, x, y, steps=self.start_steps, keep="best", progress=lambda _: None, verify=False
        )
        passes.absorb(row, alone)
        return found.x_adv


def next_classes(passes: Passes, x: Tensor, y: Tensor, count: int) -> Tensor:
    """(n, k, 2): the label and each of the `count` classes whose logits on the clean input come next to its own, or as
    many as there are; the label itself where it is the only class.
    """
    rows = torch.arange(len(x), device=x.device)
    logits = torch.cat([passes.logits(part, x[part]) for part in rows.split(passes.rows_at_once)])
    wrong = logits.scatter(1, y[:, None], -torch.inf)
    targets = wrong.topk(max(1, min(count, wrong.shape[1] - 1)), dim=1).indices
    return torch.stack([y[:, None].expand_as(targets), targets], 2)
