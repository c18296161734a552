"""Local outlier factor: how much sparser than its neighbours a place is."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from robustgen.data.rows import Rows
from robustgen.detectors.base import Detector
from robustgen.detectors.neighbours import kept_rows, nearest
from robustgen.detectors.standardise import Scale, require_scale
from robustgen.errors import DataError, UsageError
from robustgen.training.descent import TrainingProgress


@final
class LOFDetector(Detector):
    """Mean local reachability density of the `k` nearest training inputs over the input's own (Breunig et al. 2000,
    definitions 5 to 7), for new inputs: 1 where it is as dense as around them.

    `bank`: how many training inputs are kept at most, drawn by `seed` where there are more. `scale`: see `Detector`.
    scikit-learn's `LocalOutlierFactor(novelty=True)` fits, torch scores.
    """

    bank_rows: Tensor
    reach: Tensor
    density: Tensor

    def __init__(self, k: int = 20, bank: int = 20_000, scale: Scale = "auto", seed: int = 0) -> None:
        super().__init__()
        if k < 1 or bank < 2:
            raise UsageError(f"lof needs at least 1 neighbour and a bank of 2, but k={k} and bank={bank} came")
        self.k, self.bank, self.scale, self.seed = k, bank, require_scale(scale), seed
        self.register_buffer("bank_rows", torch.empty(0, 0))
        self.register_buffer("reach", torch.empty(0))
        self.register_buffer("density", torch.empty(0))

    def _fit(self, rows: Rows, progress: TrainingProgress | None) -> None:
        from sklearn.neighbors import LocalOutlierFactor

        bank = kept_rows(rows, self.bank, self.seed).cpu()
        if len(bank) < 2:
            raise DataError("lof compares training inputs with each other: give at least 2")
        k = min(self.k, len(bank) - 1)
        fitted = LocalOutlierFactor(n_neighbors=k, novelty=True)
        fitted.fit(bank.double().numpy())
        self.bank_rows = bank.to(self._device)
        self.reach = torch.from_numpy(fitted._distances_fit_X_[:, k - 1]).float().to(self._device)
        self.density = torch.from_numpy(fitted._lrd).float().to(self._device)

    def _score(self, x: Tensor, condition: Tensor | None) -> Tensor:
        k = min(self.k, len(self.bank_rows) - 1)
        distances, which = nearest(x.flatten(1), self.bank_rows.to(x.dtype), k)
        reached = torch.maximum(distances, self.reach.to(x.dtype)[which]).mean(1)
        return self.density.to(x.dtype)[which].mean(1) * (reached + 1e-10)  # as scikit-learn keeps it finite
