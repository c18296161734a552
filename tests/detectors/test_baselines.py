"""The classical detectors: exact equality with scikit-learn, closed forms, and data that break careless ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import TensorDataset

from robustgen.data.rows import TensorRows
from robustgen.detectors.base import Detector
from robustgen.detectors.gaussian_mixture import GaussianMixtureDetector
from robustgen.detectors.isolation_forest import IsolationForestDetector
from robustgen.detectors.k_means import KMeansDetector
from robustgen.detectors.kernel_pca import KernelPCADetector
from robustgen.detectors.knn import KNNDetector
from robustgen.detectors.lof import LOFDetector
from robustgen.detectors.mahalanobis import MahalanobisDetector
from robustgen.detectors.making import make
from robustgen.detectors.neighbours import kept_rows
from robustgen.detectors.one_class_svm import OneClassSVMDetector
from robustgen.detectors.pca import PCADetector
from robustgen.errors import DataError, UsageError
from robustgen.testing import check_detector

CLASSICAL: dict[str, dict[str, Any]] = {
    "pca": {},
    "kernel-pca": {},
    "k-means": {"clusters": 4},
    "knn": {},
    "lof": {"k": 10},
    "mahalanobis": {},
    "gaussian-mixture": {"mixtures": 3},
    "one-class-svm": {},
    "isolation-forest": {"trees": 30},
    "fusion": {"members": "knn,pca scores=likelihood"},
}


def table(generator: torch.Generator, n: int = 300) -> Tensor:
    """Correlated columns, in float64."""
    mixing = torch.randn(5, 8, generator=generator, dtype=torch.float64)
    noise = 0.2 * torch.randn(n, 8, generator=generator, dtype=torch.float64)
    return torch.randn(n, 5, generator=generator, dtype=torch.float64) @ mixing + noise


def scored(detector: Detector, x: Tensor, new: Tensor) -> Any:
    return detector.fit(x).double().score(new).numpy()


@pytest.mark.parametrize("method", ["mean", "largest", "median"])
@pytest.mark.parametrize("k", [1, 4, 5])
def test_knn_is_scikit_learns(generator: torch.Generator, method: str, k: int) -> None:
    from sklearn.neighbors import NearestNeighbors

    x, new = table(generator), table(generator, 40)
    distances, _ = NearestNeighbors(n_neighbors=k).fit(x.numpy()).kneighbors(new.numpy())
    expected = {"mean": distances.mean(1), "largest": distances[:, -1], "median": np.median(distances, 1)}[method]
    found = scored(KNNDetector(k, method, scale="none"), x, new)  # type: ignore[arg-type]
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_lof_is_scikit_learns(generator: torch.Generator) -> None:
    from sklearn.neighbors import LocalOutlierFactor

    x, new = table(generator).float().double(), table(generator, 40)
    expected = -LocalOutlierFactor(n_neighbors=15, novelty=True).fit(x.numpy()).score_samples(new.numpy())
    np.testing.assert_allclose(scored(LOFDetector(15, scale="none"), x, new), expected, rtol=1e-6)


@pytest.mark.parametrize("components", [3, 0.8])
def test_the_likelihood_of_pca_is_scikit_learns(generator: torch.Generator, components: float) -> None:
    from sklearn.decomposition import PCA

    x, new = table(generator), table(generator, 40)
    expected = -PCA(components, svd_solver="full").fit(x.numpy()).score_samples(new.numpy())
    detector = PCADetector(components, "likelihood", "none")
    np.testing.assert_allclose(scored(detector, x, new), expected, rtol=1e-4)


def test_the_scores_of_pca_add_up_to_the_mahalanobis_distance(generator: torch.Generator) -> None:
    """T2 of the first components and the tail of the others are the whole distance."""
    x, new = table(generator), table(generator, 40)
    inside, outside = (scored(PCADetector(3, name, "none"), x, new) for name in ("hotelling", "tail"))  # type: ignore[arg-type]
    apart = new - x.mean(0)
    whole = (apart @ torch.linalg.inv(torch.cov(x.T)) * apart).sum(1)
    np.testing.assert_allclose(inside + outside, whole.numpy(), rtol=1e-4)
    plain = scored(PCADetector(3, "reconstruction", "none"), x, new)
    np.testing.assert_allclose(
        plain, (new - PCADetector(3, scale="none").fit(x).reconstruct(new)).square().mean(1), rtol=1e-4
    )


@pytest.mark.parametrize("covariance", ["full", "diagonal"])
def test_a_mixture_is_scikit_learns(generator: torch.Generator, covariance: str) -> None:
    from sklearn.mixture import GaussianMixture

    x, new = table(generator), table(generator, 40)
    kind = {"full": "full", "diagonal": "diag"}[covariance]
    fitted = GaussianMixture(3, covariance_type=kind, reg_covar=1e-2 * float(x.var(0).mean()), random_state=0)
    expected = -fitted.fit(x.numpy()).score_samples(new.numpy())
    detector = GaussianMixtureDetector(3, covariance, scale="none")  # type: ignore[arg-type]
    np.testing.assert_allclose(scored(detector, x, new), expected, rtol=1e-4)


def test_beyond_the_subspace_there_is_one_variance(generator: torch.Generator) -> None:
    x, new = table(generator), table(generator, 40)
    values, vectors = torch.linalg.eigh(torch.cov(x.T))  # ascending
    least = 1e-2 * float(x.var(0).mean())
    values = values + least
    values[:-2] = values[:-2].mean()
    inside = (x - x.mean(0)) @ vectors[:, -2:]
    values[-2:] = inside.var(0, correction=0) + least  # scikit-learn's mixture divides by n
    law = torch.distributions.MultivariateNormal(x.mean(0), vectors @ torch.diag(values) @ vectors.T)
    detector = GaussianMixtureDetector(1, "subspace", 2, scale="none")
    np.testing.assert_allclose(scored(detector, x, new), -law.log_prob(new).numpy(), rtol=1e-4)
    whole, full = (
        GaussianMixtureDetector(1, "subspace", 99, scale="none"),
        GaussianMixtureDetector(1, "full", scale="none"),
    )
    np.testing.assert_allclose(scored(whole, x, new), scored(full, x, new), rtol=1e-4)


def test_wide_inputs_are_fitted_in_a_subspace(generator: torch.Generator) -> None:
    x = torch.randn(60, 1, 11, 11, generator=generator)
    for options in ({}, {"covariance": "subspace"}, {"components": 200}):
        detector = GaussianMixtureDetector(2, **options).fit(x)  # type: ignore[arg-type]
        assert detector.basis.shape == (121, 59 if "components" in options else 32)
        assert torch.isfinite(detector.score(torch.rand(5, 1, 11, 11, generator=generator))).all()
    assert not GaussianMixtureDetector(2).fit(table(generator)).basis.numel()
    check_detector(lambda: GaussianMixtureDetector(2, components=5), (1, 11, 11))


def test_mahalanobis_is_scikit_learns(generator: torch.Generator) -> None:
    from sklearn.covariance import LedoitWolf, MinCovDet

    x, new = table(generator), table(generator, 40)
    for robust, estimate in ((False, LedoitWolf()), (True, MinCovDet(random_state=0))):
        expected = estimate.fit(x.numpy()).mahalanobis(new.numpy())
        np.testing.assert_allclose(scored(MahalanobisDetector(robust, "none"), x, new), expected, rtol=1e-3)


def test_an_isolation_forest_is_scikit_learns(generator: torch.Generator) -> None:
    from sklearn.ensemble import IsolationForest

    x, new = table(generator).float(), table(generator, 200).float()
    fitted = IsolationForest(n_estimators=40, max_samples=256, random_state=0).fit(x.numpy())
    found = IsolationForestDetector(40).fit(x).score(new).numpy()
    np.testing.assert_allclose(found, -fitted.score_samples(new.numpy()), rtol=1e-5)
    np.testing.assert_allclose(
        IsolationForestDetector(40).fit(x).score(x).numpy(), -fitted.score_samples(x.numpy()), rtol=1e-5
    )


def test_a_one_class_svm_orders_as_scikit_learns_and_tells_far_inputs_apart(generator: torch.Generator) -> None:
    from sklearn.svm import OneClassSVM

    x, new = table(generator), table(generator, 40)
    fitted = OneClassSVM(nu=0.2, gamma=0.02).fit(x.numpy())
    found = scored(OneClassSVMDetector(0.2, 0.02, scale="none"), x, new)
    rho = -fitted.intercept_[0]
    np.testing.assert_allclose(found, -np.log((fitted.decision_function(new.numpy()) + rho) / rho), atol=1e-4)
    far = scored(OneClassSVMDetector(scale="none"), x, new[:1] + torch.tensor([[1e2], [1e3], [1e4]]))
    assert far[0] < far[1] < far[2]


def test_kernel_pca_is_the_distance_in_feature_space(generator: torch.Generator) -> None:
    """As scikit-learn's centred kernel and components have it; nothing is left of a training input with all of them."""
    from sklearn.decomposition import KernelPCA
    from sklearn.metrics.pairwise import rbf_kernel

    x, new = table(generator, 80), table(generator, 20)
    fitted = KernelPCA(5, kernel="rbf", gamma=0.05, eigen_solver="dense").fit(x.numpy())
    between = rbf_kernel(new.numpy(), x.numpy(), gamma=0.05)
    length = 1 - 2 * between.mean(1) + rbf_kernel(x.numpy(), gamma=0.05).mean()
    expected = length - np.square(fitted.transform(new.numpy())).sum(1)
    np.testing.assert_allclose(scored(KernelPCADetector(5, 0.05, scale="none"), x, new), expected, atol=1e-5)
    assert np.abs(scored(KernelPCADetector(80, 0.5, scale="none"), x, x)).max() < 1e-3


def test_small_clusters_do_not_count_if_asked(generator: torch.Generator) -> None:
    """Anomalies that form a cluster among the training inputs are found again."""
    crowd, clique = torch.randn(300, 3, generator=generator), 0.1 * torch.randn(6, 3, generator=generator) + 9
    x = torch.cat([crowd, clique])
    assert KMeansDetector(8).fit(x).score(clique).max() < KMeansDetector(8).fit(x).score(crowd).median()
    detector = KMeansDetector(8, smallest=0.03).fit(x)
    assert detector.score(clique).min() > detector.score(crowd).max()
    assert len(KMeansDetector(8, smallest=0.9).fit(x).centroids) == 1  # the largest always counts


@pytest.mark.parametrize("name", CLASSICAL)
def test_no_data_make_a_score_infinite(generator: torch.Generator, name: str) -> None:
    """Dependent, constant and huge columns, fewer rows than columns, copies of rows, all rows alike."""
    plain = torch.rand(60, 6, generator=generator)
    dependent, constant, huge = plain.clone(), plain.clone(), plain.clone()
    dependent[:, 2] = dependent[:, 1] - 2 * dependent[:, 0]
    constant[:, 3] = 0.1
    huge[:, 4] = 1e6 + 10 * huge[:, 4]
    wide = torch.rand(12, 40, generator=generator)
    for x in (dependent, constant, huge, wide, plain[:20].repeat(3, 1), torch.full((30, 5), 0.3)):
        detector = make(name, CLASSICAL[name]).fit(x)
        moved = x + torch.eye(x.shape[1])[-1]
        for scores in (detector.score(x), detector.score(moved), detector.score(moved * 100)):
            assert torch.isfinite(scores).all()
    changed = constant[:1] + torch.eye(6)[3:4]
    if name != "isolation-forest":  # it never cuts a constant column
        detector = make(name, CLASSICAL[name]).fit(constant)
        assert detector.score(changed) > detector.score(constant[:1])


@pytest.mark.parametrize("name", ["knn", "k-means", "pca", "lof", "mahalanobis", "gaussian-mixture"])
def test_the_unit_of_a_column_changes_nothing(generator: torch.Generator, name: str) -> None:
    x = table(generator, 200).float()
    units = torch.tensor([1, 10, 100, 1e3, 1e-3, 1, 5, 1e4])
    offsets = torch.tensor([0, 1, 10, 0, 1, 0, 3, 7.0])
    first = make(name, CLASSICAL[name]).fit(x).score(x)
    second = make(name, CLASSICAL[name]).fit(x * units + offsets).score(x * units + offsets)
    torch.testing.assert_close(first, second, rtol=1e-2, atol=1e-2)


def test_standardising_is_for_tables_unless_asked(generator: torch.Generator) -> None:
    images, rows = torch.rand(50, 1, 4, 4, generator=generator), torch.rand(50, 16, generator=generator)
    assert KNNDetector().fit(images).standardise is None
    assert KNNDetector(scale="standard").fit(images).standardise is not None
    assert KNNDetector(scale="none").fit(rows).standardise is None
    detector = KNNDetector().fit(rows)
    assert detector.standardise is not None
    torch.testing.assert_close(detector.standardise.centre, rows.mean(0))
    torch.testing.assert_close(detector.standardise.deviation, rows.std(0, correction=0))
    torch.testing.assert_close(detector.restored(detector.standardised(rows)), rows)
    for name in ("pca", "autoencoder"):
        options = {"epochs": 30} if name == "autoencoder" else {"components": 14}
        big: Any = make(name, options).fit(rows * 1000)
        assert (big.reconstruct(rows * 1000) / 1000 - rows).abs().mean() < 0.2


def test_a_bank_keeps_no_more_than_its_size(generator: torch.Generator) -> None:
    x = torch.arange(200.0).reshape(100, 2)
    kept = kept_rows(TensorRows(x), 30, 0)
    assert kept.shape == (30, 2)
    assert (kept[1:, 0] > kept[:-1, 0]).all()
    torch.testing.assert_close(kept, kept_rows(TensorRows(x), 30, 0))
    assert not torch.equal(kept, kept_rows(TensorRows(x), 30, 1))
    assert KNNDetector(bank=30).fit(x).bank_rows.shape == (30, 2)


@pytest.mark.parametrize(
    ("make_it", "says"),
    [
        (lambda: KNNDetector(0), "k=0"),
        (lambda: LOFDetector(bank=1), "bank=1"),
        (lambda: GaussianMixtureDetector(0), "at least 1"),
        (lambda: GaussianMixtureDetector(components=0), "at least 1"),
        (lambda: OneClassSVMDetector(nu=0), "nu=0"),
        (lambda: KernelPCADetector(gamma=-1), "gamma=-1"),
        (lambda: KernelPCADetector(components=1.5), "1.5 came"),
        (lambda: IsolationForestDetector(0), "at least 1 tree"),
        (lambda: KMeansDetector(smallest=1), "1 came"),
        (lambda: MahalanobisDetector(robust=True).fit(torch.rand(9, 5)), "more than 10"),
    ],
)
def test_settings_that_make_no_sense(make_it: Any, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        make_it()


@pytest.mark.parametrize("name", [name for name in CLASSICAL if name not in ("k-means", "knn", "fusion")])
def test_one_input_is_too_few(name: str) -> None:
    with pytest.raises(DataError, match="2"):
        make(name, CLASSICAL[name]).fit(torch.rand(1, 4))


@pytest.mark.parametrize("shape", [(6,), (1, 8, 8)])
def test_k_means_of_each_class_keeps_the_contract(shape: tuple[int, ...]) -> None:
    check_detector(lambda: KMeansDetector(4, per_class=True), shape)


def test_k_means_of_each_class_asks_only_that_class(generator: torch.Generator) -> None:
    """The same as a k-means for each class alone; an input said to be of another class is far from its centroids."""
    x, y = torch.rand(300, 5, generator=generator), torch.arange(300) % 3
    x = x + 4 * torch.nn.functional.one_hot(y, 5)
    together = KMeansDetector(4, per_class=True, scale="none").fit(TensorDataset(x, y))
    alone = [KMeansDetector(4, scale="none").fit(x[y == label]) for label in range(3)]
    expected = torch.stack([alone[label].score(x[i : i + 1])[0] for i, label in enumerate(y.tolist())])
    torch.testing.assert_close(together.score(x, y), expected)
    assert (together.score(x, (y + 1) % 3) > together.score(x, y)).all()
    with pytest.raises(UsageError, match="by its class"):
        together.score(x)
    stranger = together.score(x, torch.where(torch.arange(300) < 3, 7, y))  # no training input was of class 7
    farthest = (x[:3, None] - together.centroids).square().mean(2).amax(1)
    torch.testing.assert_close(stranger[:3], farthest)
    torch.testing.assert_close(stranger[3:], expected[3:])
    with pytest.raises(DataError, match="no labels"):
        KMeansDetector(4, per_class=True).fit(x)
