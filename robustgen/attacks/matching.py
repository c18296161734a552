"""Matching: an input made to look, to the network's inner layers, like a clean input of another class."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from robustgen.attacks.ascend import ascend
from robustgen.attacks.base import Attack, Found, Progress, check_counts
from robustgen.attacks.passes import Passes
from robustgen.attacks.pgd import Steepest, check_size
from robustgen.errors import UsageError
from robustgen.objectives import Model, Rejection, margin, ranked, steered


@final
@dataclass(frozen=True, eq=False)
class Pool:
    """Clean inputs that a detector accepts, and the labels that the classifier gives them."""

    x: Float[Tensor, "k *shape"]
    label: Int64[Tensor, " k"]


@dataclass(frozen=True, eq=False)
class Match:
    """Bring what `embed` makes of the input to that of one clean input of another class, one of `goals` (k, d).

    `y` (n, 2): the label, and the number of the goal. The detector is asked for verdicts only, never for gradients.
    `embed` None = the logits.
    """

    rejection: Rejection
    goals: Float[Tensor, "k d"]
    embed: Callable[[Tensor], Tensor] | None = None

    def __call__(
        self, model: Model, x: Float[Tensor, "n *shape"], y: Int64[Tensor, "n 2"]
    ) -> tuple[Float[Tensor, " n"], Tensor]:
        label, goal = y.unbind(1)
        logits = model(x)
        place = logits if self.embed is None else self.embed(x)
        predicted = logits.argmax(1)
        wrong = predicted != label
        with torch.no_grad():
            score, accepted = self.rejection(x, predicted)
        rank = ranked(wrong, margin(logits, label), self.rejection.excess(score))
        if x.requires_grad:
            distance = (place - self.goals[goal]).square().sum(1)
            found = torch.autograd.grad(distance.sum(), x, allow_unused=True)[0]
            nearer = torch.zeros_like(x) if found is None else -torch.nan_to_num(found, nan=0.0, posinf=0.0, neginf=0.0)
            rank = steered(rank, nearer, x)
        return rank, wrong & accepted


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class Matching(Attack):
    """PGD towards the features or logits of the nearest inputs of other classes in `pool`, which the detector accepts.

    Consistency, distance and density tests of the layers matched then see a clean input (Tramer, Carlini, Brendel,
    Madry 2020, "On adaptive attacks to adversarial example defenses", "logit matching"; Sabour et al. 2016
    for features). No gradient of the detector is used, so that this also finds what gradients that lead nowhere hide.
    `embed`: (n, *shape) -> (n, d), None = the logits. `references`: how many of the nearest to try, one after the
    other, with a label other than the input's.
    """

    targetable: ClassVar[bool] = False

    rejection: Rejection
    pool: Pool
    embed: Callable[[Tensor], Tensor] | None = None
    steps: int = 50
    step_size: float | None = None
    references: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_counts(steps=self.steps, references=self.references)
        check_size(self.step_size)
        if not len(self.pool.x):
            raise UsageError("matching needs clean accepted inputs to match, but the pool is empty: give more of them")

    def _run(self, passes: Passes, x: Tensor, y: Tensor, progress: Progress, verify: bool) -> Found:
        if not len(x):
            return Found.nothing(x)
        row = torch.arange(len(x), device=x.device)
        goals = self._places(passes, self.pool.x.to(x))
        matching = passes.part(row, Match(self.rejection, goals, self.embed))
        aims = self._aims(passes, row, x, y, goals)
        size = self.threat.eps / 4 if self.step_size is None else self.step_size
        found = ascend(
            matching,
            Steepest(self.threat, size, self.seed, self.steps),
            self.threat,
            x,
            aims,
            steps=self.steps,
            restarts=aims.shape[1],
            progress=progress,
            verify=verify,
        )
        passes.absorb(row, matching)
        return found

    def _places(self, passes: Passes, x: Tensor) -> Tensor:
        """(m, d) what `embed` makes of inputs."""
        embed = self.embed or passes.view
        with torch.no_grad():
            return torch.cat([embed(part) for part in x.split(passes.rows_at_once)])

    def _aims(self, passes: Passes, row: Tensor, x: Tensor, y: Tensor, goals: Tensor) -> Tensor:
        """(n, references, 2): each label, and the nearest goals of other labels; the nearest of all where there is
        none.
        """
        distance = torch.cdist(self._places(passes, x).double(), goals.double())
        passes.forward[row] += 1
        distance += 1e9 * (self.pool.label.to(y)[None] == y[:, None])
        nearest = distance.topk(min(self.references, len(goals)), dim=1, largest=False).indices
        return torch.stack([y[:, None].expand_as(nearest), nearest], 2)
