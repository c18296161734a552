"""Distance from the principal subspace."""

from __future__ import annotations

from math import prod
from typing import final

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from robustgen.data.rows import Rows
from robustgen.detectors.base import Detector
from robustgen.errors import UsageError
from robustgen.training.descent import TrainingProgress

_IN_MEMORY = 2**27  # values (512 MiB as float32); above, the fit goes batch by batch


@final
class PCADetector(Detector):
    """Mean squared error of the projection onto the first principal components, ||x - mean - V V' (x - mean)||^2 / d.

    Jackson, Mudholkar 1979 ("Q statistic"). `components`: a number of them, or the share of variance in (0, 1) that
    they are to explain. scikit-learn fits (exactly; batch by batch with its incremental PCA when the data exceeds 512
    MiB), torch scores.
    """

    mean: Tensor
    directions: Tensor

    def __init__(self, components: float = 0.9) -> None:
        super().__init__()
        if not components > 0 or (components > 1 and components != int(components)):
            raise UsageError(f"components is a count from 1 up or a share of variance below 1, but {components:g} came")
        self.components = components
        self.register_buffer("mean", torch.empty(0))
        self.register_buffer("directions", torch.empty(0, 0))

    def _fit(self, rows: Rows, progress: TrainingProgress | None) -> None:
        from sklearn.decomposition import PCA, IncrementalPCA

        size = prod(rows.shape)
        most = min(len(rows), size - 1)  # with all directions kept nothing would be left over to score
        wanted = int(self.components) if self.components >= 1 else self.components
        if wanted > most or most < 1:
            raise UsageError(
                f"{wanted:g} components were asked for, but {len(rows)} inputs of {size} values have at most {most}"
            )
        if len(rows) * size <= _IN_MEMORY:
            x = torch.cat([batch.flatten(1) for batch in rows.batches(4096)]).double().cpu().numpy()
            fitted = PCA(
                n_components=wanted, svd_solver="full" if most <= 1000 or wanted < 1 else "auto", random_state=0
            ).fit(x)
            directions = fitted.components_[:most]
        else:
            fitted = IncrementalPCA(n_components=min(most, 512) if wanted < 1 else wanted)
            for batch in rows.batches(max(4096, 2 * int(fitted.n_components))):
                if len(batch) >= fitted.n_components:  # scikit-learn cannot take a last batch smaller than this
                    fitted.partial_fit(batch.flatten(1).double().cpu().numpy())
            explained = np.cumsum(fitted.explained_variance_ratio_)
            directions = (
                fitted.components_[: int(np.searchsorted(explained, wanted)) + 1] if wanted < 1 else fitted.components_
            )
        device = self._device
        self.mean = torch.from_numpy(np.ascontiguousarray(fitted.mean_)).float().to(device)
        self.directions = torch.from_numpy(np.ascontiguousarray(directions)).float().to(device)

    def reconstruct(self, x: Float[Tensor, "n *shape"]) -> Float[Tensor, "n *shape"]:
        """The point of the principal subspace nearest to each input."""
        centred = x.flatten(1) - self.mean.to(x.dtype)
        directions = self.directions.to(x.dtype)
        return (centred @ directions.T @ directions + self.mean.to(x.dtype)).reshape(x.shape)

    def _score(self, x: Tensor, condition: Tensor | None) -> Tensor:
        return (x - self.reconstruct(x)).square().flatten(1).mean(1)

    def _map(self, x: Tensor, condition: Tensor | None) -> Tensor:
        return (x - self.reconstruct(x)).square() / prod(x.shape[1:])
