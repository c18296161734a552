"""Distance to the nearest centroid."""

from __future__ import annotations

from math import prod
from typing import final

import torch
from torch import Tensor

from robustgen.data.rows import Rows
from robustgen.detectors.base import Detector
from robustgen.errors import UsageError
from robustgen.training.descent import TrainingProgress

_IN_MEMORY = 2**27  # values (512 MiB as float32); above, the fit goes batch by batch


@final
class KMeansDetector(Detector):
    """min over k of ||x - centroid_k||^2 / d, with centroids by Lloyd's algorithm from k-means++ starts (Arthur,
    Vassilvitskii 2007).

    `clusters`: how many centroids; fewer if there are fewer inputs. scikit-learn fits (in mini-batches when the data
    exceeds 512 MiB), torch scores.
    """

    centroids: Tensor

    def __init__(self, clusters: int = 50, seed: int = 0) -> None:
        super().__init__()
        if clusters < 1:
            raise UsageError(f"k-means needs at least 1 cluster, but {clusters} came")
        self.clusters, self.seed = clusters, seed
        self.register_buffer("centroids", torch.empty(0, 0))

    def _fit(self, rows: Rows, progress: TrainingProgress | None) -> None:
        from sklearn.cluster import KMeans, MiniBatchKMeans

        clusters = min(self.clusters, len(rows))
        if len(rows) * prod(rows.shape) <= _IN_MEMORY:
            x = torch.cat([batch.flatten(1) for batch in rows.batches(4096)]).cpu().numpy()
            fitted = KMeans(clusters, n_init=1, random_state=self.seed).fit(x)
        else:
            fitted = MiniBatchKMeans(clusters, random_state=self.seed, n_init=1)
            for epoch in range(3):
                for batch in rows.batches(4096, torch.Generator().manual_seed(self.seed + epoch)):
                    if len(batch) >= clusters:
                        fitted.partial_fit(batch.flatten(1).cpu().numpy())
        self.centroids = torch.from_numpy(fitted.cluster_centers_).float().to(self._device)

    def _nearest(self, flat: Tensor) -> Tensor:
        centroids = self.centroids.to(flat.dtype)
        # the nearest is found by the cheap expansion, its distance is then computed without cancellation
        with torch.no_grad():
            nearest = (centroids.square().sum(1) - 2 * flat @ centroids.T).argmin(1)
        return centroids[nearest]

    def _score(self, x: Tensor, condition: Tensor | None) -> Tensor:
        flat = x.flatten(1)
        return (flat - self._nearest(flat)).square().mean(1)

    def _map(self, x: Tensor, condition: Tensor | None) -> Tensor:
        flat = x.flatten(1)
        return ((flat - self._nearest(flat)).square() / flat.shape[1]).reshape(x.shape)
