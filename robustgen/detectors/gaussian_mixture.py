"""Negative log-likelihood under a mixture of Gaussians."""

from __future__ import annotations

import warnings
from math import log, pi, prod
from typing import Literal, final, get_args

import torch
from torch import Tensor

from robustgen.data.rows import Rows
from robustgen.detectors.base import Detector
from robustgen.detectors.neighbours import kept_rows
from robustgen.detectors.standardise import Scale, require_scale
from robustgen.errors import DataError, UsageError
from robustgen.registry import suggestion
from robustgen.training.descent import TrainingProgress

_MOST = 50_000  # training inputs
_FULL = 100  # values up to which "auto" takes full covariances

Covariance = Literal["auto", "full", "diagonal"]


@final
class GaussianMixtureDetector(Detector):
    """-log sum_k w_k N(x; mean_k, C_k), fitted by expectation maximisation (Dempster, Laird, Rubin 1977).

    `mixtures`: how many Gaussians, at most one for every ten training inputs. `covariance`: "full", "diagonal", or
    "auto" (full up to 100 values). `regularisation`: added to every variance, as a share of the inputs' mean variance;
    without it a Gaussian can shrink onto a few inputs. At most 50,000 training inputs are used, drawn by `seed`.
    `scale`: see `Detector`. scikit-learn fits, torch scores.
    """

    weights: Tensor
    means: Tensor
    precisions: Tensor

    def __init__(
        self,
        mixtures: int = 8,
        covariance: Covariance = "auto",
        regularisation: float = 1e-2,
        scale: Scale = "auto",
        seed: int = 0,
    ) -> None:
        super().__init__()
        if mixtures < 1 or not 0 < regularisation < float("inf"):
            raise UsageError(
                f"mixtures must be at least 1 and regularisation above 0, but {mixtures} and {regularisation:g} came"
            )
        if covariance not in get_args(Covariance):
            raise UsageError(suggestion(covariance, get_args(Covariance), "covariance"))
        self.mixtures, self.covariance, self.regularisation = mixtures, covariance, regularisation
        self.scale, self.seed = require_scale(scale), seed
        self.register_buffer("weights", torch.empty(0))
        self.register_buffer("means", torch.empty(0, 0))
        self.register_buffer("precisions", torch.empty(0))  # Cholesky factors (k, d, d), or roots (k, d)

    def _fit(self, rows: Rows, progress: TrainingProgress | None) -> None:
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.mixture import GaussianMixture

        x = kept_rows(rows, _MOST, self.seed).double().cpu()
        if len(x) < 2:
            raise DataError("a mixture of Gaussians needs at least 2 training inputs")
        full = self.covariance == "full" or (self.covariance == "auto" and prod(rows.shape) <= _FULL)
        fitted = GaussianMixture(
            max(1, min(self.mixtures, len(x) // 10)),
            covariance_type="full" if full else "diag",
            reg_covar=max(1e-9, self.regularisation * float(x.var(0).mean())),
            random_state=self.seed,
        )
        with warnings.catch_warnings():  # after 100 rounds it is near enough; fewer distinct inputs than Gaussians do
            warnings.simplefilter("ignore", ConvergenceWarning)
            fitted.fit(x.numpy())
        device = self._device
        self.weights = torch.from_numpy(fitted.weights_).float().to(device)
        self.means = torch.from_numpy(fitted.means_).float().to(device)
        self.precisions = torch.from_numpy(fitted.precisions_cholesky_).float().to(device)

    def _score(self, x: Tensor, condition: Tensor | None) -> Tensor:
        precisions, apart = self.precisions.to(x.dtype), x.flatten(1)[:, None] - self.means.to(x.dtype)
        if precisions.ndim == 3:
            white = torch.einsum("nkd,kde->nke", apart, precisions)
            roots = precisions.diagonal(dim1=1, dim2=2)
        else:
            white, roots = apart * precisions, precisions
        each = roots.log().sum(1) - (white.square().sum(2) + apart.shape[2] * log(2 * pi)) / 2
        return -(each + self.weights.to(x.dtype).log()).logsumexp(1)
