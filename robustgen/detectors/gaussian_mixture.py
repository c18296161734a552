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
_FULL = 100  # values up to which "auto" takes full covariances of all of them

Covariance = Literal["auto", "full", "diagonal", "subspace"]


@final
class GaussianMixtureDetector(Detector):
    """-log sum_k w_k N(x; mean_k, C_k), fitted by expectation maximisation (Dempster, Laird, Rubin 1977).

    `mixtures`: how many Gaussians, at most one for every ten training inputs. `covariance`: "full"; "diagonal";
    "subspace", full in the first `components` principal components, and one variance for all directions beyond, as in
    probabilistic PCA (Tipping, Bishop 1999), the same for all Gaussians; or "auto", full up to 100 values, subspace
    above. `regularisation`: added to every variance, as a share of the inputs' mean variance; without it a Gaussian can
    shrink onto a few inputs. At most 50,000 training inputs are used, drawn by `seed`. `scale`: see `Detector`.
    scikit-learn fits, torch scores.
    """

    weights: Tensor
    means: Tensor
    precisions: Tensor
    centre: Tensor
    basis: Tensor
    noise: Tensor

    def __init__(
        self,
        mixtures: int = 8,
        covariance: Covariance = "auto",
        components: int = 32,
        regularisation: float = 1e-2,
        scale: Scale = "auto",
        seed: int = 0,
    ) -> None:
        super().__init__()
        if min(mixtures, components) < 1 or not 0 < regularisation < float("inf"):
            raise UsageError(
                "mixtures and components must be at least 1 and regularisation above 0, but "
                f"{mixtures}, {components} and {regularisation:g} came"
            )
        if covariance not in get_args(Covariance):
            raise UsageError(suggestion(covariance, get_args(Covariance), "covariance"))
        self.mixtures, self.covariance, self.regularisation = mixtures, covariance, regularisation
        self.components = components
        self.scale, self.seed = require_scale(scale), seed
        self.register_buffer("weights", torch.empty(0))
        self.register_buffer("means", torch.empty(0, 0))
        self.register_buffer("precisions", torch.empty(0))  # Cholesky factors (k, d, d), or roots (k, d)
        self.register_buffer("centre", torch.empty(0))
        self.register_buffer("basis", torch.empty(0, 0))  # of the subspace (values, d); empty = all values are used
        self.register_buffer("noise", torch.empty(0))  # the variance of each direction beyond it

    def _fit(self, rows: Rows, progress: TrainingProgress | None) -> None:
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.mixture import GaussianMixture

        x = kept_rows(rows, _MOST, self.seed).double().cpu()
        if len(x) < 2:
            raise DataError("a mixture of Gaussians needs at least 2 training inputs")
        chosen = self.covariance
        if chosen == "auto":
            chosen = "full" if prod(rows.shape) <= _FULL else "subspace"
        least = max(1e-9, self.regularisation * float(x.var(0).mean()))
        if chosen == "subspace":
            x = self._into_subspace(x, least)
        fitted = GaussianMixture(
            max(1, min(self.mixtures, len(x) // 10)),
            covariance_type="diag" if chosen == "diagonal" else "full",
            reg_covar=least,
            random_state=self.seed,
        )
        with warnings.catch_warnings():  # after 100 rounds it is near enough; fewer distinct inputs than Gaussians do
            warnings.simplefilter("ignore", ConvergenceWarning)
            fitted.fit(x.numpy())
        device = self._device
        self.weights = torch.from_numpy(fitted.weights_).float().to(device)
        self.means = torch.from_numpy(fitted.means_).float().to(device)
        self.precisions = torch.from_numpy(fitted.precisions_cholesky_).float().to(device)

    def _into_subspace(self, x: Tensor, least: float) -> Tensor:
        """The coordinates of `x` in a subspace, which is kept, as is the variance beyond it."""
        from sklearn.decomposition import PCA

        pca = PCA(min(self.components, len(x) - 1, x.shape[1]), random_state=self.seed).fit(x.numpy())
        coordinates = torch.from_numpy(pca.transform(x.numpy()))
        device = self._device
        self.centre = torch.from_numpy(pca.mean_).float().to(device)
        self.basis = torch.from_numpy(pca.components_.T).float().contiguous().to(device)
        self.noise = torch.tensor(float(pca.noise_variance_) + least).to(device)
        return coordinates

    def _score(self, x: Tensor, condition: Tensor | None) -> Tensor:
        x, beyond = x.flatten(1), x.new_zeros(())
        if self.basis.numel():
            basis, noise, x = self.basis.to(x.dtype), self.noise.to(x.dtype), x - self.centre.to(x.dtype)
            along = x @ basis
            more = x.shape[1] - along.shape[1]
            beyond = ((x - along @ basis.T).square().sum(1) / noise + more * (2 * pi * noise).log()) / 2
            x = along
        precisions, apart = self.precisions.to(x.dtype), x[:, None] - self.means.to(x.dtype)
        if precisions.ndim == 3:
            white = torch.einsum("nkd,kde->nke", apart, precisions)
            roots = precisions.diagonal(dim1=1, dim2=2)
        else:
            white, roots = apart * precisions, precisions
        each = roots.log().sum(1) - (white.square().sum(2) + apart.shape[2] * log(2 * pi)) / 2
        return beyond - (each + self.weights.to(x.dtype).log()).logsumexp(1)
