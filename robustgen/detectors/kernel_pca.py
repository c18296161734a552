"""Distance from the principal subspace in the feature space of a kernel."""

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
class KernelPCADetector(Detector):
    """Squared distance of phi(x) from the first principal components of the training inputs' phi, with
    phi(a) . phi(b) = exp(-gamma ||a - b||^2) (Hoffmann 2007, equations 5 to 9): PCA that follows curved data.

    `components`: a number of them, or the share of variance in feature space in (0, 1) that they are to explain.
    `gamma`: None = 1 / (values times their mean variance). `landmarks`: training inputs used at most, drawn by `seed`
    (time grows with their cube). Scores lie in [0, 1] but for the means: far inputs are all about as anomalous.
    `scale`: see `Detector`. scikit-learn fits, torch scores.
    """

    landmarks_kept: Tensor
    directions: Tensor
    row_means: Tensor
    width: Tensor

    def __init__(
        self,
        components: float = 0.95,
        gamma: float | None = None,
        landmarks: int = 2000,
        scale: Scale = "auto",
        seed: int = 0,
    ) -> None:
        super().__init__()
        if not components > 0 or (components > 1 and components != int(components)):
            raise UsageError(f"components is a count from 1 up or a share of variance below 1, but {components:g} came")
        if (gamma is not None and not 0 < gamma < float("inf")) or landmarks < 2:
            raise UsageError(
                f"gamma must be above 0 and landmarks at least 2, but gamma={gamma} and landmarks={landmarks} came"
            )
        self.components, self.gamma, self.landmarks = components, gamma, landmarks
        self.scale, self.seed = require_scale(scale), seed
        for name in ("landmarks_kept", "directions"):
            self.register_buffer(name, torch.empty(0, 0))
        for name in ("row_means", "width"):
            self.register_buffer(name, torch.empty(0))

    def _fit(self, rows: Rows, progress: TrainingProgress | None) -> None:
        from sklearn.decomposition import KernelPCA

        x = kept_rows(rows, self.landmarks, self.seed).double().cpu()
        if len(x) < 2:
            raise DataError("kernel PCA needs at least 2 training inputs")
        gamma = torch.tensor(self.gamma or usual_gamma(x), dtype=torch.float64)
        kernel = kernel_exponents(x, x, gamma).exp()
        fitted = KernelPCA(kernel="precomputed", eigen_solver="dense").fit(kernel.numpy())
        values, vectors = torch.from_numpy(fitted.eigenvalues_), torch.from_numpy(fitted.eigenvectors_)
        if self.components >= 1:
            k = int(self.components)
        else:
            k = int(torch.searchsorted(values.cumsum(0), self.components * values.sum())) + 1
        used = values[:k] > 1e-9 * len(x)  # the rest is rounding
        values, vectors = values[:k][used], vectors[:, :k][:, used]
        device = self._device
        self.landmarks_kept = x.float().to(device)
        self.directions = (vectors * values.rsqrt()).float().to(device)
        self.row_means = kernel.mean(0).float().to(device)
        self.width = gamma.float().to(device)

    def _score(self, x: Tensor, condition: Tensor | None) -> Tensor:
        kernel = kernel_exponents(x.flatten(1), self.landmarks_kept.to(x.dtype), self.width.to(x.dtype)).exp()
        means = self.row_means.to(x.dtype)
        here, everywhere = kernel.mean(1), means.mean()
        centred = kernel - here[:, None] - means + everywhere
        along = centred @ self.directions.to(x.dtype)
        return 1 - 2 * here + everywhere - along.square().sum(1)
