"""Principal components: distance from their subspace, within it, or both."""

from __future__ import annotations

from math import log, pi, prod
from typing import Literal, final, get_args

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from torch import Tensor

from robustgen.data.rows import Rows
from robustgen.detectors.base import Detector
from robustgen.detectors.standardise import Scale, require_scale
from robustgen.errors import DataError, UsageError
from robustgen.registry import suggestion
from robustgen.training.descent import TrainingProgress

_IN_MEMORY = 2**27  # values (512 MiB as float32); above, the fit goes batch by batch
_FLOOR = 1e-6  # of the mean variance: directions without any would make scores infinite

Score = Literal["auto", "reconstruction", "hotelling", "likelihood", "tail"]


@final
class PCADetector(Detector):
    """How unlike the training inputs an input is along their principal components v_i, of variance l_i.

    With z_i = v_i . (x - mean), k components kept of d values, and r what they leave of x - mean, `scores` is

    - "reconstruction": ||r||^2 / d, the mean squared error ("Q statistic", Jackson, Mudholkar 1979);
    - "hotelling": sum_{i <= k} z_i^2 / l_i (Hotelling's T^2, 1931), which sees nothing outside the subspace;
    - "likelihood": -log p(x) of probabilistic PCA, (d log 2 pi + sum_{i <= k} log l_i + (d - k) log s + T^2 +
      ||r||^2 / s) / 2, with s the mean variance of what is left out (Tipping, Bishop 1999, equations 4 to 8);
    - "tail": sum_{i > k} z_i^2 / l_i (the minor components of Shyu et al. 2003);
    - "auto": "likelihood" for vectors (tables), "reconstruction" for images.

    Variances count at least as a millionth of their mean: scores stay finite whatever the rank of the data.
    `components`: a number of them, or the share of variance in (0, 1) that they are to explain; None = 0.9, of images
    from 16 x 16 up 0.8. `scale`: see
    `Detector`. scikit-learn fits (exactly; batch by batch with its incremental PCA when the data exceeds 512 MiB),
    torch scores.
    """

    mean: Tensor
    directions: Tensor
    variances: Tensor
    rest: Tensor
    rest_variances: Tensor
    noise: Tensor

    def __init__(self, components: float | None = None, scores: Score = "auto", scale: Scale = "auto") -> None:
        super().__init__()
        if components is not None and (not components > 0 or (components > 1 and components != int(components))):
            raise UsageError(f"components is a count from 1 up or a share of variance below 1, but {components:g} came")
        if scores not in get_args(Score):
            raise UsageError(suggestion(scores, get_args(Score), "score of pca"))
        self.components, self.scores, self.scale = components, scores, require_scale(scale)
        for name in ("directions", "rest"):
            self.register_buffer(name, torch.empty(0, 0))
        for name in ("mean", "variances", "rest_variances", "noise"):
            self.register_buffer(name, torch.empty(0))

    def _fit(self, rows: Rows, progress: TrainingProgress | None) -> None:
        size, n = prod(rows.shape), len(rows)
        most = min(n, size - 1)  # with all directions kept nothing would be left over to score
        if n < 2 or most < 1:
            raise DataError(f"principal components need at least 2 inputs of 2 values, but {n} of {size} came")
        chosen = self.components or (0.8 if len(rows.shape) == 3 and min(rows.shape[1:]) >= 16 else 0.9)
        wanted = int(chosen) if chosen >= 1 else chosen
        if wanted > most:
            raise UsageError(
                f"{wanted:g} components were asked for, but {n} inputs of {size} values have at most {most}"
            )
        mean, found, variances, total = _components(rows, int(wanted) if wanted >= 1 else None)
        k = int(wanted) if wanted >= 1 else _reaching(variances, wanted * total)
        k = min(k, most, len(variances))
        left = max(0.0, total - float(variances[:k].sum()))
        floor = max(_FLOOR * total / size, 1e-12)
        noise = max(left / (size - k), floor)
        device = self._device

        def stored(values: npt.NDArray[np.float64]) -> Tensor:
            return torch.from_numpy(np.ascontiguousarray(values)).float().to(device)

        self.mean, self.directions = stored(mean), stored(found[:k])
        self.variances = stored(np.maximum(variances[:k], floor))
        self.noise = torch.tensor(noise, device=device)
        if self.scores == "tail":
            self.rest, self.rest_variances = stored(found[k:]), stored(np.maximum(variances[k:], floor))
            self.noise = torch.tensor(floor, device=device)

    def encode(self, x: Float[Tensor, "n *shape"]) -> Float[Tensor, "n k"]:
        """The coordinates of each input along the principal components."""
        return self._along(self.standardised(x))

    def decode(self, code: Float[Tensor, "n k"]) -> Float[Tensor, "n *shape"]:
        """The point of the principal subspace with these coordinates."""
        return self.restored(self._from(code))

    def reconstruct(self, x: Float[Tensor, "n *shape"]) -> Float[Tensor, "n *shape"]:
        """The point of the principal subspace nearest to each input."""
        return self.decode(self.encode(x))

    def _along(self, x: Tensor) -> Tensor:
        return (x.flatten(1) - self.mean.to(x.dtype)) @ self.directions.to(x.dtype).T

    def _from(self, code: Tensor) -> Tensor:
        flat = code @ self.directions.to(code.dtype) + self.mean.to(code.dtype)
        return flat.reshape(-1, *(self.shape or ()))

    def _chosen(self, x: Tensor) -> Score:
        if self.scores == "auto":
            return "likelihood" if x.ndim == 2 else "reconstruction"
        return self.scores

    def _score(self, x: Tensor, condition: Tensor | None) -> Tensor:
        code = self._along(x)
        left = (x - self._from(code)).flatten(1)
        chosen = self._chosen(x)
        if chosen == "reconstruction":
            return left.square().mean(1)
        if chosen == "tail":
            rest = self.rest.to(x.dtype)
            z = left @ rest.T
            beyond = (left - z @ rest).square().sum(1)  # where the training inputs never went
            return (z.square() / self.rest_variances.to(x.dtype)).sum(1) + beyond / self.noise.to(x.dtype)
        inside = (code.square() / self.variances.to(x.dtype)).sum(1)
        if chosen == "hotelling":
            return inside
        noise, size = self.noise.to(x.dtype), left.shape[1]
        spread = self.variances.to(x.dtype).log().sum() + (size - code.shape[1]) * noise.log()
        return (size * log(2 * pi) + spread + inside + left.square().sum(1) / noise) / 2

    def _map(self, x: Tensor, condition: Tensor | None) -> Tensor | None:
        if self._chosen(x) != "reconstruction":
            return None
        return (x - self._from(self._along(x))).square() / prod(x.shape[1:])


def _components(
    rows: Rows, count: int | None
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.float64], float]:
    """(mean, directions, their variances in falling order, the variance of all directions together)."""
    from sklearn.decomposition import PCA, IncrementalPCA

    size, most = prod(rows.shape), min(len(rows), prod(rows.shape))
    if len(rows) * size <= _IN_MEMORY:
        x = torch.cat([batch.flatten(1) for batch in rows.batches(4096)]).double().cpu().numpy()
        exact = most <= 1000 or count is None
        with np.errstate(invalid="ignore"):  # shares of no variance at all, where all inputs are alike
            fitted = PCA(None if exact else count, svd_solver="full" if exact else "auto", random_state=0).fit(x)
        total = float(x.var(0, ddof=1).sum())
    else:
        fitted = IncrementalPCA(n_components=min(most, 512) if count is None else count)
        for batch in rows.batches(max(4096, 2 * int(fitted.n_components))):
            if len(batch) >= fitted.n_components:  # scikit-learn cannot take a last batch smaller than this
                fitted.partial_fit(batch.flatten(1).double().cpu().numpy())
        total = float(fitted.var_.sum()) * len(rows) / (len(rows) - 1)
    return fitted.mean_, fitted.components_, fitted.explained_variance_, total


def _reaching(variances: npt.NDArray[np.float64], share: float) -> int:
    """How many of the variances add up to more than `share`."""
    return int(np.searchsorted(np.cumsum(variances), share, side="right")) + 1
