"""How many different inputs does a generator make? Two answers, one in every step and one of the players of a round."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from torch import Tensor

from robustgen.metrics import Array

_BINS, _ROWS = 10, 10  # clusters of the data, and at least so many inputs for each


def variety(made: Float[Tensor, "n *shape"], real: Float[Tensor, "n *shape"]) -> Float[Tensor, ""]:
    """How far a made input is from the nearest other one, in the distance that real ones have; medians, so that it is 0
    where most of them have a twin, as they have when the generator makes a few inputs only. 1 where nothing can be
    said: of fewer than 2 of them, or where most real ones have a twin, as rows of a table may.
    """
    if min(len(made), len(real)) < 2:
        return torch.ones((), device=made.device)
    usual = _nearest(real)
    return torch.where(usual > 0, _nearest(made) / usual.clamp(min=1e-12), 1.0)


def _nearest(x: Tensor) -> Tensor:
    flat = x.detach().flatten(1).float()
    apart = torch.cdist(flat, flat, compute_mode="donot_use_mm_for_euclid_dist")
    return apart.fill_diagonal_(torch.inf).amin(1).median()


class Modes:
    """The clusters of real inputs (k-means, 10 of them where there are 100 inputs), and how many of these made inputs
    reach (after Richardson, Weiss 2018, who count those that hold too few).
    """

    def __init__(self, real: Float[Tensor, "n *shape"], seed: int = 0) -> None:
        from sklearn.cluster import KMeans

        flat = _flat(real)
        bins = max(1, min(_BINS, len(flat) // _ROWS, len(np.unique(flat, axis=0))))
        self._clusters = KMeans(bins, n_init=1, random_state=seed).fit(flat)
        self._number = _effective(self._clusters.labels_)

    def reached(self, made: Float[Tensor, "n *shape"]) -> float:
        """The number of clusters that made inputs fill, as a share of that of real ones: exponentials of entropies, so
        that a cluster with few inputs counts for little. 1 = as many; may be above.
        """
        return _effective(self._clusters.predict(_flat(made))) / self._number


def _flat(x: Tensor) -> Array:
    values: Array = x.detach().flatten(1).double().cpu().numpy()
    return values


def _effective(labels: npt.NDArray[np.integer[Any]]) -> float:
    from scipy.stats import entropy

    return float(np.exp(entropy(np.bincount(labels))))
