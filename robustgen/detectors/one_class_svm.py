"""Outside the smallest region that holds most training inputs."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from robustgen.data.rows import Rows
from robustgen.detectors.base import Detector
from robustgen.detectors.kernel import kernel_exponents, usual_gamma
from robustgen.detectors.neighbours import kept_rows
from robustgen.detectors.standardise import Scale, require_scale
from robustgen.errors import DataError, UsageError
from robustgen.training.descent import TrainingProgress


@final
class OneClassSVMDetector(Detector):
    """log rho - log sum_i a_i exp(-gamma ||x - s_i||^2), with support vectors s_i and their weights a_i of the
    one-class support vector machine (Schölkopf et al. 2001): above 0 outside its region.

    The order of inputs is that of its decision function rho - sum; the logarithm goes on telling far inputs apart where
    the sum has become 0. `nu`: the share of training inputs that may lie outside, in (0, 1]. `gamma`: None = 1 /
    (values times their mean variance). `most`: training inputs used at most, drawn by `seed`, as the fit takes their
    square. `scale`: see `Detector`. scikit-learn fits, torch scores.
    """

    support: Tensor
    weights: Tensor
    rho: Tensor
    width: Tensor

    def __init__(
        self, nu: float = 0.5, gamma: float | None = None, most: int = 10_000, scale: Scale = "auto", seed: int = 0
    ) -> None:
        super().__init__()
        if not 0 < nu <= 1 or (gamma is not None and not 0 < gamma < float("inf")) or most < 2:
            raise UsageError(
                f"nu must be in (0, 1], gamma above 0 and most at least 2, but nu={nu:g}, gamma={gamma}, most={most} "
                "came"
            )
        self.nu, self.gamma, self.most, self.scale, self.seed = nu, gamma, most, require_scale(scale), seed
        self.register_buffer("support", torch.empty(0, 0))
        for name in ("weights", "rho", "width"):
            self.register_buffer(name, torch.empty(0))

    def _fit(self, rows: Rows, progress: TrainingProgress | None) -> None:
        from sklearn.svm import OneClassSVM

        x = kept_rows(rows, self.most, self.seed).double().cpu()
        if len(x) < 2:
            raise DataError("a one-class SVM needs at least 2 training inputs")
        gamma = self.gamma or usual_gamma(x)
        fitted = OneClassSVM(nu=max(self.nu, 1 / len(x)), gamma=gamma).fit(x.numpy())
        device = self._device
        self.support = torch.from_numpy(fitted.support_vectors_).float().to(device)
        self.weights = torch.from_numpy(fitted.dual_coef_[0]).float().to(device)
        self.rho = torch.tensor(max(float(-fitted.intercept_[0]), 1e-30), device=device)
        self.width = torch.tensor(gamma, device=device)

    def _score(self, x: Tensor, condition: Tensor | None) -> Tensor:
        exponents = kernel_exponents(x.flatten(1), self.support.to(x.dtype), self.width.to(x.dtype))
        return self.rho.to(x.dtype).log() - (exponents + self.weights.to(x.dtype).log()).logsumexp(1)
