"""A score in a unit that all scores share: how rare it is among normal inputs."""

from __future__ import annotations

from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn


@final
class Evidence(nn.Module):
    """-log p of a score, with p the share of held-out normal inputs that score higher, and how many robust deviations
    it lies above their median.

    Between held-out scores -log p is interpolated; above the highest tenth it goes on as an exponential tail of their
    mean excess (the generalised Pareto tail of shape 0: Pickands 1975), so that far scores still differ. Both increase
    with the score everywhere.
    """

    held: Tensor
    levels: Tensor
    tail: Tensor
    unit: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in ("held", "levels", "tail", "unit"):
            self.register_buffer(name, torch.empty(0))

    def prepare(self, scores: Float[Tensor, " m"]) -> None:
        """Take the scores of held-out normal inputs, one at least."""
        held = scores.double().sort().values
        n, places = len(held), torch.arange(1, len(held) + 1, dtype=torch.float64, device=held.device)
        levels = torch.log((n + 1) / (n + 1 - places))
        centre = held.median()
        deviation = 1.4826 * (held - centre).abs().median()
        # more than half of them alike: then the spread of all, and where all are alike any unit does
        deviation = next(d for d in (deviation, held.std(correction=0), torch.ones_like(centre)) if d > 0)
        above = max(1, n // 10)
        start = max(0, n - above - 1)
        excess = (held[n - above :] - held[start]).mean()
        self.held, self.levels = held.float(), levels.float()
        self.tail = torch.stack([held[start], levels[start], excess if excess > 0 else deviation]).float()
        self.unit = torch.stack([centre, deviation]).float()

    def deviations(self, score: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
        """(score - median) / (1.4826 x the median absolute deviation)."""
        unit = self.unit.to(score.dtype)
        return (score - unit[0]) / unit[1]

    def forward(self, score: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
        held, levels = self.held.to(score.dtype), self.levels.to(score.dtype)
        start, level, excess = self.tail.to(score.dtype)
        # a thousandth of the deviations keeps the order where the steps are flat: below the lowest, and between ties
        slope = 1e-3 * self.deviations(score)
        with torch.no_grad():
            after = _places(held, score).clamp(1, max(1, len(held) - 1))
        before, after = after - 1, after.clamp(max=len(held) - 1)
        width = held[after] - held[before]
        along = torch.where(width > 0, (score - held[before]) / torch.where(width > 0, width, 1), 0).clamp(0, 1)
        inside = levels[before] + along * (levels[after] - levels[before])
        return torch.where(score > start, level + (score - start) / excess, inside) + slope


def _places(held: Tensor, score: Tensor) -> Tensor:
    """How many of the sorted `held` are at most each score."""
    if torch.compiler.is_exporting():  # ONNX has no search
        return (held <= score[:, None]).sum(1)
    return torch.searchsorted(held, score.contiguous(), right=True)
