"""Codes laid out on a plane, to be looked at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from robustgen.errors import DataError, UsageError
from robustgen.metrics import Array
from robustgen.registry import suggestion

Layout = Literal["pca", "t-sne"]
_BEFORE_TSNE = 50  # components that t-SNE is given, as van der Maaten and Hinton do


@dataclass(frozen=True)
class Plane:
    """n points (n, 2), and what each axis is called."""

    points: Array
    axes: tuple[str, str]


def lay_out(codes: Float[Tensor, "n k"], layout: Layout = "pca", seed: int = 0) -> Plane:
    """The first two principal components, or t-SNE (van der Maaten, Hinton 2008), which keeps neighbours together and
    means nothing by distances between groups. scikit-learn does both.

    Raises `UsageError` for an unknown layout, `DataError` for fewer than 3 codes or codes of one value.
    """
    if layout not in get_args(Layout):
        raise UsageError(suggestion(layout, get_args(Layout), "layout"))
    if min(codes.shape) < 2 or len(codes) < 3:
        raise DataError(f"a map needs at least 3 codes of 2 values, but {len(codes)} of {codes.shape[1]} came")
    from sklearn.decomposition import PCA

    values: NDArray[np.float64] = codes.double().cpu().numpy()
    kept = min(_BEFORE_TSNE if layout == "t-sne" else 2, *values.shape)
    with np.errstate(invalid="ignore"):  # shares of no variance at all, where all codes are alike
        fitted = PCA(kept, svd_solver="full").fit(values)
    points = fitted.transform(values)
    if layout == "pca":
        shares = np.nan_to_num(fitted.explained_variance_ratio_)
        said = [f"{100 * share:.0f} % of the variance" for share in shares]
        return Plane(points, (f"1st component, {said[0]}", f"2nd component, {said[1]}"))
    from sklearn.manifold import TSNE

    perplexity = min(30.0, (len(values) - 1) / 3)
    found = TSNE(2, perplexity=perplexity, init="pca", random_state=seed).fit_transform(points)
    return Plane(np.asarray(found, dtype=np.float64), ("t-SNE 1", "t-SNE 2"))
