"""What the attacks for the smallest change share: a verdict that rounding cannot turn, schedules by row, Adam."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from robustgen.attacks.ascend import Keep, Rule, ascend
from robustgen.attacks.base import Found, Progress
from robustgen.attacks.passes import Passes
from robustgen.errors import UsageError
from robustgen.objectives import Model, Objective
from robustgen.threat import ThreatModel

MinimalMode = Literal["minimal", "evaluate"]
"""`minimal`: all steps, and the success nearest to the input is returned. `evaluate`: a row stops at its first success
within eps.
"""

_KEEP: dict[MinimalMode, Keep] = {"minimal": "closest", "evaluate": "within"}


@dataclass(frozen=True)
class Clear:
    """`objective`, achieved only where the best logit leads by more than 1e-5 of its size.

    Who searches for the nearest success ends at ties, and which class wins a tie depends on the order in which sums are
    taken: the same point, seen again in another batch or memory order, would be no success.
    """

    objective: Objective

    def __call__(self, model: Model, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        leads: list[Tensor] = []

        def watched(point: Tensor) -> Tensor:
            logits = model(point)
            leads.append(clear(logits))
            return logits

        value, achieved = self.objective(watched, x, y)
        for lead in leads:
            achieved = achieved & lead
        return value, achieved


def clear(logits: Float[Tensor, "m classes"]) -> Bool[Tensor, " m"]:
    """Whether the best logit leads by more than 1e-5 of its size."""
    top = logits.detach().topk(min(2, logits.shape[1]), dim=1).values
    return top[:, 0] - top[:, -1] > 1e-5 * top.abs().amax(1)


def closest(
    passes: Passes,
    rule: Rule,
    threat: ThreatModel,
    x: Tensor,
    y: Tensor,
    *,
    steps: int,
    mode: MinimalMode,
    progress: Progress,
) -> Found:
    """`ascend` for an attack for the smallest change: only clear successes count, and the nearest is returned."""
    row = torch.arange(len(x), device=x.device)
    clear = passes.part(row, Clear(passes.objective))
    found = ascend(clear, rule, threat, x, y, steps=steps, keep=_KEEP[mode], progress=progress)
    passes.absorb(row, clear)
    return found


def each(values: Float[Tensor, " m"], like: Tensor) -> Tensor:
    """(m,) -> (m, 1, ..., 1), to be broadcast over `like`."""
    return values.reshape(-1, *[1] * (like.dim() - 1))


def annealed(step: Int64[Tensor, " m"], steps: int, start: float, end: float) -> Float[Tensor, " m"]:
    """Half a cosine wave from `start` at step 0 to `end` at `steps`, for rows that stand at different steps."""
    return end + (start - end) * (1 + torch.cos(math.pi * step.float() / steps)) / 2


def direction(gradient: Float[Tensor, "m *shape"]) -> Float[Tensor, "m *shape"]:
    """The gradient over its Euclidean length; zero stays zero."""
    # scaled before squaring, so that very small gradients keep their direction instead of underflowing to 0
    largest = gradient.flatten(1).abs().amax(1)
    scaled = gradient / each(torch.where(largest > 0, largest, 1), gradient)
    return scaled / each(torch.linalg.vector_norm(scaled.flatten(1), dim=1).clamp(min=1), gradient)


def adam(
    gradient: Float[Tensor, "m *shape"], state: dict[str, Tensor], count: Int64[Tensor, " m"]
) -> Float[Tensor, "m *shape"]:
    """Adam's direction of ascent (Kingma, Ba 2015; rates 0.9 and 0.999), with the moments `mean` and `square` of
    `state` brought up to date; `count`: how many gradients each row's moments have seen before this one.
    """
    state["mean"] = 0.9 * state["mean"] + 0.1 * gradient
    state["square"] = 0.999 * state["square"] + 0.001 * gradient.square()
    seen = count.float() + 1
    mean = state["mean"] / each(1 - 0.9**seen, gradient)
    square = state["square"] / each(1 - 0.999**seen, gradient)
    return mean / (square.sqrt() + 1e-8)


def check_gamma(gamma: float, gamma_final: float) -> None:
    """Raise `UsageError` unless a radius can shrink and grow by these shares."""
    if not 0 < gamma_final <= gamma < 1:
        raise UsageError(
            f"gamma, the share by which the radius changes, must lie in (0, 1) and gamma_final in (0, gamma], but "
            f"gamma={gamma:g} and gamma_final={gamma_final:g} came"
        )


def check_above_zero(**values: float) -> None:
    """Raise `UsageError` unless each is a number above 0."""
    for name, value in values.items():
        if not (value > 0 and math.isfinite(value)):
            raise UsageError(f"{name} must be a number above 0, but {value:g} came")
