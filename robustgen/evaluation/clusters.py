"""Intervals for figures to which one input adds several times: the inputs are drawn again, not the figures.

Several attacks on the same image stand or fall together. An interval that took them for independent would be too
narrow, by up to the root of their number.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from robustgen.errors import DataError
from robustgen.metrics import Array, Estimate, proportion, scores_array

RESAMPLES = 1000


def clustered_mean(values: Any, cluster: Any, *, seed: int = 0) -> Estimate:
    """The mean of `values` (n,), each 0 or 1 or a share, with the 95 % percentile interval of a bootstrap over the
    clusters (Field, Welsh 2007); `cluster` (n,): the number of the input that each value belongs to.

    `n` of the result counts the clusters. Where every cluster has the same mean at 0 or 1, resampling says nothing, and
    the interval is Wilson's of that many inputs. Raises `DataError` for arrays that do not fit each other.
    """
    from scipy.stats import bootstrap

    x, group = _grouped(values, cluster)
    sums, counts = np.bincount(group, x), np.bincount(group).astype(np.float64)
    value = float(x.mean())
    if value in (0.0, 1.0) and np.isin(x, (0.0, 1.0)).all():
        return proportion(round(value * len(sums)), len(sums))
    if len(sums) < 2:
        return Estimate(value, 0.0, 1.0, 1)
    found = bootstrap(
        (sums, counts),
        lambda total, count, axis: total.sum(axis) / count.sum(axis),
        paired=True,
        n_resamples=RESAMPLES,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return Estimate(value, float(found.low), float(found.high), len(sums))


def clustered_auroc(
    normal: Any, normal_cluster: Any, anomalous: Any, anomalous_cluster: Any, *, seed: int = 0
) -> Estimate:
    """P(anomalous score > normal score), ties counting one half, over all pairs, with the 95 % percentile interval of a
    bootstrap over the inputs that scores of either side came from; `n` counts these.

    Raises `DataError` as `clustered_mean` does.
    """
    a, first = scores_array(normal, "normal scores"), np.asarray(normal_cluster)
    b, second = scores_array(anomalous, "anomalous scores"), np.asarray(anomalous_cluster)
    _, group = _grouped(np.r_[a, b], np.r_[first, second])
    own, other, k = group[: len(a)], group[len(a) :], int(group.max()) + 1
    wins = np.zeros(
        (k, k)
    )  # pairs in the right order, of a normal score of one cluster and an anomalous one of another
    for place in range(k):
        mine = b[other == place]
        if len(mine):
            below = (a[:, None] < mine).sum(1) + 0.5 * (a[:, None] == mine).sum(1)
            wins[:, place] = np.bincount(own, below, minlength=k)
    per_normal, per_anomalous = np.bincount(own, minlength=k), np.bincount(other, minlength=k)
    value = float(wins.sum() / (len(a) * len(b)))
    drawn = np.random.default_rng(seed).multinomial(k, np.full(k, 1 / k), size=RESAMPLES).astype(np.float64)
    pairs = (drawn @ per_normal) * (drawn @ per_anomalous)
    kept = pairs > 0
    shares = np.einsum("ri,ij,rj->r", drawn[kept], wins, drawn[kept], optimize=True) / pairs[kept]
    low, high = np.percentile(shares, [2.5, 97.5])
    return Estimate(value, float(low), float(high), k)


def _grouped(values: Any, cluster: Any) -> tuple[Array, npt.NDArray[np.int64]]:
    """The values, and for each the place of its cluster among all that occur."""
    x, names = scores_array(values, "values"), np.asarray(cluster)
    if names.shape != x.shape:
        raise DataError(f"every value belongs to one input, but {len(x)} values and {len(names)} numbers came")
    return x, np.asarray(np.unique(names, return_inverse=True)[1], dtype=np.int64)
