"""Distance to the nearest centroid."""

from __future__ import annotations

import warnings
from math import prod
from typing import final

import torch
from torch import Tensor

from robustgen.data.rows import Rows, TensorRows
from robustgen.detectors.base import Detector
from robustgen.detectors.standardise import Scale, require_scale
from robustgen.errors import UsageError
from robustgen.training.descent import TrainingProgress

_IN_MEMORY = 2**27  # values (512 MiB as float32); above, the fit goes batch by batch


@final
class KMeansDetector(Detector):
    """min over k of ||x - centroid_k||^2 / d, with centroids by Lloyd's algorithm from k-means++ starts (Arthur,
    Vassilvitskii 2007).

    `clusters`: how many centroids; fewer if there are fewer inputs. `smallest`: the share of training inputs in [0, 1)
    that a cluster must have to count (after He, Xu, Deng 2003, who tell large clusters from small ones): then anomalies
    among the training inputs that form a cluster of their own stay anomalies. If no cluster is as large, the largest
    counts. `per_class`: as many centroids of each class of labelled training inputs, and an input is judged by those of
    the class that a classifier predicts, which is the score's condition; one predicted as a class that no training
    input had, by the centroid farthest from it. `scale`: see `Detector`. scikit-learn fits (in mini-batches when the
    data exceeds 512 MiB), torch scores.
    """

    centroids: Tensor
    owner: Tensor

    def __init__(
        self,
        clusters: int = 50,
        smallest: float = 0.0,
        per_class: bool = False,
        scale: Scale = "auto",
        seed: int = 0,
    ) -> None:
        super().__init__()
        if clusters < 1:
            raise UsageError(f"k-means needs at least 1 cluster, but {clusters} came")
        if not 0 <= smallest < 1:
            raise UsageError(f"smallest is a share of the training inputs in [0, 1), but {smallest:g} came")
        self.clusters, self.smallest, self.scale, self.seed = clusters, smallest, require_scale(scale), seed
        self.per_class = self.conditional = per_class
        self.register_buffer("centroids", torch.empty(0, 0))
        self.register_buffer("owner", torch.empty(0, dtype=torch.int64))  # the class of each centroid, if asked for

    def _fit(self, rows: Rows, progress: TrainingProgress | None) -> None:
        if not self.per_class:
            self.centroids = self._centroids(rows)
            return
        labels = sorted({label for _, y in rows.pairs(4096) for label in y.tolist()})
        found = [  # one class at a time in memory
            self._centroids(TensorRows(torch.cat([x[y == label] for x, y in rows.pairs(4096)]))) for label in labels
        ]
        self.centroids = torch.cat(found)
        counts = torch.tensor([len(centroids) for centroids in found])
        self.owner = torch.tensor(labels).repeat_interleave(counts).to(self._device)

    def _centroids(self, rows: Rows) -> Tensor:
        from sklearn.cluster import KMeans, MiniBatchKMeans
        from sklearn.exceptions import ConvergenceWarning

        clusters = min(self.clusters, len(rows))
        if len(rows) * prod(rows.shape) <= _IN_MEMORY:
            x = torch.cat([batch.flatten(1) for batch in rows.batches(4096)]).cpu().numpy()
            with warnings.catch_warnings():  # fewer distinct inputs than centroids: some centroids coincide
                warnings.simplefilter("ignore", ConvergenceWarning)
                fitted = KMeans(clusters, n_init=1, random_state=self.seed).fit(x)
        else:
            fitted = MiniBatchKMeans(clusters, random_state=self.seed, n_init=1)
            for epoch in range(3):
                for batch in rows.batches(4096, torch.Generator().manual_seed(self.seed + epoch)):
                    if len(batch) >= clusters:
                        fitted.partial_fit(batch.flatten(1).cpu().numpy())
        centroids = torch.from_numpy(fitted.cluster_centers_).float().to(self._device)
        return centroids[self._large(centroids, rows)] if self.smallest else centroids

    def _large(self, centroids: Tensor, rows: Rows) -> Tensor:
        """Which clusters have enough of the rows."""
        members = torch.zeros(len(centroids), dtype=torch.int64, device=centroids.device)
        for x in rows.batches(4096):
            members += torch.bincount(_nearest(x.flatten(1).to(centroids), centroids), minlength=len(centroids))
        return members >= min(self.smallest * len(rows), int(members.max()))

    def _nearest(self, flat: Tensor, condition: Tensor | None) -> Tensor:
        centroids = self.centroids.to(flat.dtype)
        with torch.no_grad():
            return centroids[_nearest(flat, centroids, self._foreign(flat, condition))]

    def _foreign(self, x: Tensor, condition: Tensor | None) -> Tensor | None:
        """(n, centroids) which of them do not count for inputs (n, d) of these classes; None = all count."""
        if not self.per_class:
            return None
        if condition is None or condition.is_floating_point() or condition.shape != x.shape[:1]:
            raise UsageError("k-means with per_class judges an input by its class: pass the labels that are predicted")
        return condition[:, None].to(self.owner) != self.owner

    def _score(self, x: Tensor, condition: Tensor | None) -> Tensor:
        flat = x.flatten(1)
        return (flat - self._nearest(flat, condition)).square().mean(1)

    def _map(self, x: Tensor, condition: Tensor | None) -> Tensor:
        flat = x.flatten(1)
        return ((flat - self._nearest(flat, condition)).square() / flat.shape[1]).reshape(x.shape)


def _nearest(x: Tensor, centroids: Tensor, foreign: Tensor | None = None) -> Tensor:
    """The nearest centroid of each row, by the cheap expansion: its distance is to be computed without cancellation.
    Where all are foreign (n, centroids), the farthest.
    """
    distance = centroids.square().sum(1) - 2 * x @ centroids.T
    if foreign is None:
        return distance.argmin(1)
    return torch.where(foreign.all(1), distance.argmax(1), distance.masked_fill(foreign, torch.inf).argmin(1))
