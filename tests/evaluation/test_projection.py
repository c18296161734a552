from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from robustgen.errors import DataError, UsageError
from robustgen.evaluation.projection import lay_out


def test_the_first_components_are_those_of_scikit_learn(generator: torch.Generator) -> None:
    codes = torch.randn(60, 5, generator=generator) * torch.tensor([1.0, 4, 2, 0.1, 0.1])
    found = lay_out(codes)
    fitted = PCA(2, svd_solver="full").fit(codes.double().numpy())
    np.testing.assert_allclose(found.points, fitted.transform(codes.double().numpy()))
    shares = 100 * fitted.explained_variance_ratio_
    assert found.axes == (f"1st component, {shares[0]:.0f} % of the variance", found.axes[1])


def test_neighbours_stay_together(generator: torch.Generator) -> None:
    """Three far groups of codes are three far groups on the plane, and the same seed gives the same plane."""
    group = torch.arange(90) % 3
    codes = 20.0 * torch.eye(3)[group].repeat(1, 2) + torch.randn(90, 6, generator=generator)
    found = lay_out(codes, "t-sne", seed=3)
    assert found.points.shape == (90, 2)
    distances = np.linalg.norm(found.points[:, None] - found.points[None], axis=2)
    np.fill_diagonal(distances, np.inf)
    assert (group.numpy()[distances.argmin(1)] == group.numpy()).all()
    np.testing.assert_array_equal(lay_out(codes, "t-sne", seed=3).points, found.points)


def test_what_cannot_be_laid_out() -> None:
    with pytest.raises(DataError, match="at least 3 codes"):
        lay_out(torch.rand(2, 5))
    with pytest.raises(DataError, match="100 of 1 came"):
        lay_out(torch.rand(100, 1))
    with pytest.raises(UsageError, match="unknown layout 'umap'"):
        lay_out(torch.rand(9, 3), "umap")  # type: ignore[arg-type]
    assert "0 % of the variance" in lay_out(torch.ones(9, 3)).axes[0]
