"""Distance to the nearest training inputs."""

from __future__ import annotations

from typing import Literal, final, get_args

import torch
from torch import Tensor

from robustgen.data.rows import Rows
from robustgen.detectors.base import Detector
from robustgen.detectors.neighbours import kept_rows, nearest
from robustgen.detectors.standardise import Scale, require_scale
from robustgen.errors import UsageError
from robustgen.registry import suggestion
from robustgen.training.descent import TrainingProgress

Method = Literal["mean", "largest", "median"]


@final
class KNNDetector(Detector):
    """Euclidean distance to the `k` nearest training inputs: their mean (Angiulli, Pizzuti 2002), the largest
    (Ramaswamy, Rastogi, Shim 2000) or the median.

    `bank`: how many training inputs are kept at most, drawn by `seed` where there are more. `scale`: see `Detector`.
    """

    bank_rows: Tensor

    def __init__(
        self, k: int = 5, method: Method = "mean", bank: int = 20_000, scale: Scale = "auto", seed: int = 0
    ) -> None:
        super().__init__()
        if min(k, bank) < 1:
            raise UsageError(f"knn needs at least 1 neighbour and a bank of 1, but k={k} and bank={bank} came")
        if method not in get_args(Method):
            raise UsageError(suggestion(method, get_args(Method), "method of knn"))
        self.k, self.method, self.bank, self.scale, self.seed = k, method, bank, require_scale(scale), seed
        self.register_buffer("bank_rows", torch.empty(0, 0))

    def _fit(self, rows: Rows, progress: TrainingProgress | None) -> None:
        self.bank_rows = kept_rows(rows, self.bank, self.seed).to(self._device)

    def _score(self, x: Tensor, condition: Tensor | None) -> Tensor:
        distances, _ = nearest(x.flatten(1), self.bank_rows.to(x.dtype), self.k)
        if self.method == "mean":
            return distances.mean(1)
        if self.method == "largest":
            return distances.amax(1)
        middle = distances.sort(1).values
        half = middle.shape[1] // 2
        return middle[:, half] if middle.shape[1] % 2 else (middle[:, half - 1] + middle[:, half]) / 2
