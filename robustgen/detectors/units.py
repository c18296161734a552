"""Several readings of an input as one score."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from robustgen.detectors.combination import robust_units
from robustgen.errors import UsageError


@final
class Units(nn.Module):
    """The sum of the chosen readings, each in robust deviations from its median on held-out normal inputs; one alone
    keeps its own unit.

    `names`: readings joined by "+". Raises `UsageError` for names that are not among those `known`, or come twice.
    """

    centre: Tensor
    scale: Tensor

    def __init__(self, names: str, known: Sequence[str]) -> None:
        super().__init__()
        self.chosen = names.split("+")
        for name in self.chosen:
            if name not in known:
                raise UsageError(f"a score is made of {', '.join(known)}, joined by +, but {name!r} came")
        if len(set(self.chosen)) < len(self.chosen):
            raise UsageError(f"each part of a score counts once, but {names!r} came")
        self.register_buffer("centre", torch.zeros(len(self.chosen)))
        self.register_buffer("scale", torch.ones(len(self.chosen)))

    def prepare(self, apart: Float[Tensor, "kinds n"]) -> None:
        """Take the units from the readings of held-out normal inputs."""
        if len(self.chosen) > 1:
            centre, scale = robust_units(apart)
            self.centre, self.scale = centre.to(self.centre), scale.to(self.scale)

    def forward(self, apart: Float[Tensor, "kinds n"]) -> Float[Tensor, " n"]:
        if len(self.centre) != len(self.chosen):
            raise UsageError(
                f"this state is that of {len(self.centre)} readings, but the score is made of {'+'.join(self.chosen)}: "
                "give the classifier that it was fitted with (watch), or the same scores"
            )
        if len(self.chosen) == 1:
            return apart[0]
        deviations = (apart - self.centre.to(apart.dtype)[:, None]) / self.scale.to(apart.dtype)[:, None]
        return deviations.sum(0)
