"""Several readings of an input as one score."""

from __future__ import annotations

from collections.abc import Iterable
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from robustgen.errors import UsageError


@final
class Units(nn.Module):
    """Readings, each in robust deviations from its median on held-out normal inputs, and their sum. One alone keeps its
    own unit.

    `names`: those chosen, joined by `separator`. Raises `UsageError` for names that are not among those `known`, or
    come twice.
    """

    centre: Tensor
    scale: Tensor

    def __init__(self, names: str, known: Iterable[str], separator: str = "+") -> None:
        super().__init__()
        self.chosen, there = names.split(separator), list(known)
        for name in self.chosen:
            if name not in there:
                raise UsageError(
                    f"a score is made of {', '.join(there)}, joined by {separator}, but {name!r} came: for example "
                    f"{separator.join(there[:2])}"
                )
        if len(set(self.chosen)) < len(self.chosen):
            raise UsageError(f"each part of a score counts once, but {names!r} came")
        self.register_buffer("centre", torch.zeros(len(self.chosen)))
        self.register_buffer("scale", torch.ones(len(self.chosen)))

    def prepare(self, apart: Float[Tensor, "kinds n"]) -> None:
        """Take the units from the readings of held-out normal inputs."""
        if len(self.chosen) > 1:
            centre, scale = robust_units(apart)
            self.centre, self.scale = centre.to(self.centre.device), scale.to(self.scale.device)

    def deviations(self, apart: Float[Tensor, "kinds n"]) -> Float[Tensor, "kinds n"]:
        """The readings in their units."""
        if len(self.centre) != len(self.chosen):
            raise UsageError(
                f"this state is that of {len(self.centre)} readings, but the score is made of {'+'.join(self.chosen)}: "
                "give the classifier that it was fitted with (watch), or the same scores"
            )
        if len(self.chosen) == 1:
            return apart
        return (apart - self.centre.to(apart.dtype)[:, None]) / self.scale.to(apart.dtype)[:, None]

    def forward(self, apart: Float[Tensor, "kinds n"]) -> Float[Tensor, " n"]:
        return self.deviations(apart).sum(0)


def robust_units(scores: Float[Tensor, "kinds n"]) -> tuple[Float[Tensor, " kinds"], Float[Tensor, " kinds"]]:
    """The median and the robust deviation of each kind of score over inputs."""
    centre = scores.median(1).values
    deviation = 1.4826 * (scores - centre[:, None]).abs().median(1).values
    # more than half of the inputs alike: then the spread of all, and where all are alike any unit does
    deviation = torch.where(deviation > 0, deviation, scores.std(1, unbiased=False))
    return centre, torch.where(deviation > 0, deviation, 1)
