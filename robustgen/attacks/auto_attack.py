"""AutoAttack: four attacks that fail for different reasons, each on the rows that still hold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal, final

import torch
from torch import Tensor

from robustgen.attacks.apgd import APGD, APGDDLR, APGDT
from robustgen.attacks.base import Attack, Found, Progress
from robustgen.attacks.fab import FAB, FABT
from robustgen.attacks.passes import Passes
from robustgen.attacks.square import Square
from robustgen.errors import UsageError
from robustgen.objectives import Misclassify
from robustgen.registry import suggestion
from robustgen.threat import Norm

Version = Literal["standard", "plus", "rand"]

_NAMES = {
    APGD: "apgd-ce",
    APGDDLR: "apgd-dlr",
    APGDT: "apgd-t",
    FAB: "fab",
    FABT: "fab-t",
    Square: "square",
}
_DRAWS = 20
"""Of a randomised model, that the version `rand` averages for each gradient."""


@final
@dataclass(frozen=True, kw_only=True)
class AutoAttack(Attack):
    """The worst case over several attacks without parameters to tune, by which robust accuracies are compared.

    Croce, Hein 2020, "Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free
    attacks", section 6, with the numbers of the authors' program. `version`: "standard" is apgd-ce (100 steps), apgd-t
    (9 targets), fab-t (9 targets, 100 steps) and square (5,000 queries), in L1 with 5 restarts of apgd-ce and 5 targets
    of apgd-t (Croce, Hein 2021); "plus" is apgd-ce, apgd-dlr and fab with 5 restarts each, square, apgd-t, fab-t;
    "rand", for randomised models, is apgd-ce and apgd-dlr on the mean of 20 draws (`eot`, unless that is set higher). A
    row leaves at its first verified success; `AttackResult.member` says to which of `members`.

    `AttackResult.first_success` counts forward passes of the members before and steps of the one that succeeded.
    """

    targetable: ClassVar[bool] = False
    bounded: ClassVar[tuple[Norm, ...]] = ("linf", "l2", "l1")

    version: Version = "standard"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.version not in ("standard", "plus", "rand"):
            raise UsageError(suggestion(str(self.version), ("standard", "plus", "rand"), "version of auto-attack"))
        if self.objective != Misclassify():
            raise UsageError("auto-attack has losses of its own: leave the objective out")
        if self.version == "rand":
            object.__setattr__(self, "eot", max(self.eot, _DRAWS))

    @property
    def attacks(self) -> tuple[Attack, ...]:
        """The members themselves, in the order in which they run."""
        common: dict[str, Any] = {name: getattr(self, name) for name in ("threat", "seed", "batch_size", "eot")}
        sparse = self.threat.norm == "l1"
        if self.version == "rand":
            return APGD(**common), APGDDLR(**common)
        if self.version == "plus":
            return (
                APGD(**common, restarts=5, large_radii=False),
                APGDDLR(**common, restarts=5, large_radii=False),
                FAB(**common, restarts=5, mode="evaluate"),
                Square(**common),
                APGDT(**common, large_radii=False),
                FABT(**common, mode="evaluate"),
            )
        return (
            APGD(**common, restarts=5 if sparse else 1),
            APGDT(**common, targets=5 if sparse else 9),
            FABT(**common, mode="evaluate"),
            Square(**common),
        )

    @property
    def members(self) -> tuple[str, ...]:
        return tuple(_NAMES[type(attack)] for attack in self.attacks)

    def _run(self, passes: Passes, x: Tensor, y: Tensor, progress: Progress, verify: bool) -> Found:
        found, rows = Found.nothing(x), torch.arange(len(x), device=x.device)
        attacks = self.attacks
        for number, attack in enumerate(attacks):
            if not len(rows):
                break
            before = passes.forward[rows].clone()
            part = passes.part(rows, attack.objective)
            new = attack.search(part, x[rows], y[rows], lambda done: progress(done / len(attacks)))
            passes.absorb(rows, part)
            new.member = torch.full_like(rows, number)
            new.first_success = torch.where(new.first_success < 0, -1, new.first_success + before)
            better = new.success if number else torch.ones_like(new.success)
            found.put(rows[better], new[better])
            progress(int(new.success.sum()) * (len(attacks) - number - 1) / len(attacks))
            rows = rows[~new.success]
        return found
