"""Mahalanobis distance from the mean."""

from __future__ import annotations

from math import prod
from typing import final

import torch
from torch import Tensor

from robustgen.data.rows import Rows
from robustgen.detectors.base import Detector
from robustgen.detectors.neighbours import kept_rows
from robustgen.detectors.standardise import Scale, require_scale
from robustgen.errors import DataError, UsageError
from robustgen.training.descent import TrainingProgress

_MOST = 50_000  # training inputs; more would not change a covariance by much


@final
class MahalanobisDetector(Detector):
    """(x - mean)' C^-1 (x - mean), the squared Mahalanobis distance.

    C is the covariance of at most 50,000 training inputs, shrunk towards a multiple of the identity (Ledoit, Wolf
    2004); with `robust`, the covariance of the half of them that lie closest together (Rousseeuw, Van Driessen 1999),
    which needs more than twice as many inputs as values and takes long beyond some 100 values. Its eigenvalues count at
    least as a millionth of their mean. `scale`: see `Detector`. scikit-learn fits, torch scores.
    """

    mean: Tensor
    whitening: Tensor

    def __init__(self, robust: bool = False, scale: Scale = "auto", seed: int = 0) -> None:
        super().__init__()
        self.robust, self.scale, self.seed = robust, require_scale(scale), seed
        self.register_buffer("mean", torch.empty(0))
        self.register_buffer("whitening", torch.empty(0, 0))

    def _fit(self, rows: Rows, progress: TrainingProgress | None) -> None:
        from sklearn.covariance import MinCovDet, ledoit_wolf

        x = kept_rows(rows, _MOST, self.seed).double().cpu()
        if len(x) < 2:
            raise DataError("a covariance needs at least 2 training inputs")
        mean = x.mean(0)
        if self.robust:
            size = prod(rows.shape)
            if len(x) <= 2 * size:
                raise UsageError(
                    f"a robust covariance needs more than {2 * size} training inputs of {size} values, but {len(x)} "
                    "came: leave out robust"
                )
            kept = x.std(0) > 0  # a constant column would make every subset's determinant 0
            covariance = torch.diag((~kept).double() * 1e-12)
            fitted = MinCovDet(random_state=self.seed).fit(x[:, kept].numpy())
            places = kept.nonzero()[:, 0]
            covariance[places[:, None], places] = torch.from_numpy(fitted.covariance_)
            mean[places] = torch.from_numpy(fitted.location_)
        else:
            covariance = torch.from_numpy(ledoit_wolf(x.numpy())[0])
        values, vectors = torch.linalg.eigh(covariance)
        values = values.clamp_min(max(1e-12, 1e-6 * float(values.mean())))
        self.mean = mean.float().to(self._device)
        self.whitening = (vectors * values.rsqrt()).float().to(self._device)

    def _score(self, x: Tensor, condition: Tensor | None) -> Tensor:
        white = (x.flatten(1) - self.mean.to(x.dtype)) @ self.whitening.to(x.dtype)
        return white.square().sum(1)
