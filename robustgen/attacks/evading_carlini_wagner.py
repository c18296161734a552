"""Carlini and Wagner's attack on a classifier and its detector together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from robustgen.attacks.base import Attack, Found, Progress, check_counts
from robustgen.attacks.hinged import Hinged
from robustgen.attacks.minimal import MinimalMode, check_above_zero, clear, closest
from robustgen.attacks.passes import Passes
from robustgen.errors import UsageError
from robustgen.objectives import Model, Rejection, margin, ranked, slope, steered
from robustgen.threat import Norm


@dataclass(frozen=True, eq=False)
class TwoHinges:
    """A wrong label by `confidence` logits, and a score at the threshold: a sum of hinges, the second in units of the
    rejection's scale and `balance` times.

    `y` (n, 2): the label, and the input's place in `balance` (k,), which the search for it changes. The detector judges
    an input against the likeliest wrong class, on the way to it too. `value` ranks points (`ranked`).
    """

    rejection: Rejection
    balance: Float[Tensor, " k"]
    confidence: float = 0.0

    def __call__(
        self, model: Model, x: Float[Tensor, "n *shape"], y: Int64[Tensor, "n 2"]
    ) -> tuple[Float[Tensor, " n"], Bool[Tensor, " n"]]:
        label, place = y.unbind(1)
        logits = model(x)
        lead = margin(logits, label) - self.confidence
        rival = logits.detach().scatter(1, label[:, None], -torch.inf).argmax(1)
        wrong = (logits.argmax(1) != label) & clear(logits) & (lead.detach() >= 0)
        score, accepted = self.rejection(x, rival)
        rank = ranked(wrong, lead, self.rejection.excess(score))
        if x.requires_grad:
            excess = torch.where(accepted, 0, self.balance[place] * score / self.rejection.scale)
            rank = steered(rank, slope(torch.where(wrong, 0, lead) - excess, x), x)
        return rank, wrong & accepted


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class EvadingCarliniWagner(Attack):
    """The smallest change that a classifier gets wrong and a detector accepts, in L2 or Linf.

    Carlini, Wagner 2017, "Adversarial examples are not easily detected: bypassing ten detection methods": |x' - x|^2 +
    c1 * (what the wrong label lacks to `confidence` logits) + c2 * (the score's excess over the threshold, in units of
    the rejection's scale). Adam in tanh coordinates takes `steps` steps for each of `searches` pairs (c1, c2), which
    both begin at `constant`: where no label was wrong c1 grows, where one was but rejected c2, and both shrink after a
    success. In Linf, as in `Hinged`, the ball takes the place of the distance. `mode`: "minimal" takes all steps and
    returns the nearest success, "evaluate" stops a row at its first success within eps.
    """

    norms: ClassVar[tuple[Norm, ...]] = ("l2", "linf")
    targetable: ClassVar[bool] = False
    minimal: ClassVar[bool] = True
    bounded: ClassVar[tuple[Norm, ...]] = ("l2",)

    rejection: Rejection
    steps: int = 100
    searches: int = 9
    step_size: float = 0.1
    constant: float = 1.0
    confidence: float = 0.0
    mode: MinimalMode = "minimal"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_counts(steps=self.steps, searches=self.searches)
        check_above_zero(step_size=self.step_size, constant=self.constant)
        if not self.confidence >= 0:
            raise UsageError(f"confidence must be 0 or more, in logits, but {self.confidence:g} came")

    def _run(self, passes: Passes, x: Tensor, y: Tensor, progress: Progress, verify: bool) -> Found:
        row = torch.arange(len(x), device=x.device)
        balance = torch.ones_like(x.flatten(1)[:, 0])
        both = passes.part(row, TwoHinges(self.rejection, balance, self.confidence))
        rule = Hinged(self.threat, self.steps, self.searches, self.step_size, self.constant, balance)
        aims, total = torch.stack([y, row], 1)[:, None], self.steps * self.searches
        found = closest(both, rule, self.threat, x, aims, steps=total, mode=self.mode, progress=progress)
        passes.absorb(row, both)
        return found
