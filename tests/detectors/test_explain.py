"""Explanations: they sum to what they explain, agree with closed forms, and point at what is wrong."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.utils.data import TensorDataset

from robustgen.detectors import DETECTORS
from robustgen.detectors.attribution import attribute, integrated_gradients, occlusion, typical
from robustgen.detectors.base import Detector
from robustgen.detectors.image_differences import dissimilarity
from robustgen.detectors.k_means import KMeansDetector
from robustgen.detectors.making import make
from robustgen.detectors.parts import PARTS, View
from robustgen.detectors.pca import PCADetector
from robustgen.detectors.reconstruction import ReconstructionDetector
from robustgen.errors import RobustgenError, UsageError
from toys import APART, FUSED

SHORT = {"autoencoder": {"epochs": 8}, "gan": {"steps": 40, "width": 8}, "gat": {"steps": 40, "width": 8}}
QUICK = {name: next((options for kind, options in SHORT.items() if kind in name), {}) for name in DETECTORS}
CODE_PARTS = ("knn", "edges", "mahalanobis", "k-means")


class Distance(Detector):
    """Squared distance from the median input, with no map of its own."""

    def _fit(self, rows: object, progress: object) -> None:
        pass

    scale = "none"

    def _score(self, x: Tensor, condition: object) -> Tensor:
        return (x - self.typical.to(x.dtype)).square().flatten(1).mean(1)


class Counting(Detector):
    """How many values differ from the median input by more than 0.5: no gradient anywhere."""

    differentiable = False
    scale = "none"

    def _fit(self, rows: object, progress: object) -> None:
        pass

    def _score(self, x: Tensor, condition: object) -> Tensor:
        return ((x - self.typical.to(x.dtype)).abs() > 0.5).flatten(1).sum(1).to(x.dtype)


def normal(shape: tuple[int, ...], n: int = 200) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    basis = torch.rand(3, *shape, generator=generator)
    return torch.einsum("nk,k...->n...", torch.rand(n, 3, generator=generator), basis) / 3


@pytest.mark.parametrize("name", [name for name in DETECTORS if name not in APART])
@pytest.mark.parametrize("shape", [(1, 8, 8), (12,)])
def test_an_explanation_does_not_depend_on_the_batch_and_leaves_no_trace(name: str, shape: tuple[int, ...]) -> None:
    if name == "style-gan" and len(shape) == 1:
        pytest.skip("it is for images")
    x = normal(shape)
    y = torch.arange(len(x)) % 2
    made = make(name, FUSED if name == "fusion" and len(shape) == 3 else QUICK[name])
    label = y[:7] if made.conditional else None
    detector = made.fit(TensorDataset(x, y) if made.conditional else x).double()
    asked = x[:7].double().requires_grad_()
    found = detector.explain(asked, label)
    assert found.shape == asked.shape
    assert torch.isfinite(found).all()
    assert not found.requires_grad
    assert asked.grad is None
    alone = torch.cat(
        [detector.explain(asked[i : i + 1], None if label is None else label[i : i + 1]) for i in range(7)]
    )
    torch.testing.assert_close(alone, found, rtol=1e-6, atol=1e-12)
    assert not any(parameter.requires_grad or parameter.grad is not None for parameter in detector.parameters())


def test_integrated_gradients_of_a_polynomial_are_exact() -> None:
    """For f = sum of a_i x_i^3 + x_0 x_1, the integral from 0 is a_i x_i^3, and the product halved between the two."""
    a = torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64)
    x = torch.tensor([[0.5, 2.0, -1.0], [1.0, 0.0, 0.25]], dtype=torch.float64)
    found = integrated_gradients(lambda z: (a * z**3).sum(1) + z[:, 0] * z[:, 1], x, torch.zeros_like(x))
    half = x[:, :1] * x[:, 1:2] / 2
    torch.testing.assert_close(found, a * x**3 + torch.cat([half, half, torch.zeros_like(half)], 1))


def test_what_the_quadrature_leaves_over_is_made_up() -> None:
    """A kink on the way costs the quadrature its exactness; the sum stays exact all the same."""
    x = torch.rand(20, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def score(z: Tensor) -> Tensor:
        return (z.sum(1) - 0.7321).relu()

    found = integrated_gradients(score, x, torch.zeros_like(x))
    torch.testing.assert_close(found.sum(1), score(x), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found / found.sum(1, keepdim=True), x / x.sum(1, keepdim=True))


def test_on_images_the_difference_is_shared_out_by_size() -> None:
    """Parts of opposite signs side by side become parts of one sign, of the same sum, spread a little."""
    x = torch.zeros(1, 1, 24, 24)
    x[0, 0, 5, 5], x[0, 0, 5, 6] = 3.0, 2.0
    signs = torch.ones(24, 24)
    signs[5, 6] = -1

    def score(z: Tensor) -> Tensor:
        return (z * signs).flatten(1).sum(1)

    found = attribute(score, x, torch.zeros_like(x))
    assert (found >= 0).all()
    torch.testing.assert_close(found.sum(), torch.tensor(1.0))
    assert int(found.argmax()) == 5 * 24 + 5
    assert found[0, 0, 3:8, 3:9].sum() > 0.95
    small = attribute(lambda z: (z * signs[:8, :8]).flatten(1).sum(1), x[..., :8, :8], torch.zeros(1, 1, 8, 8))
    torch.testing.assert_close(small, x[..., :8, :8] * signs[:8, :8])


def test_an_input_that_is_its_own_counterpart_has_nothing_to_explain() -> None:
    x = torch.rand(3, 4)
    assert not integrated_gradients(lambda z: z.square().sum(1), x, x).any()


@pytest.mark.parametrize("shape", [(1, 8, 8), (12,)])
def test_errors_of_pca_and_k_means_are_integrated_gradients_from_their_counterparts(shape: tuple[int, ...]) -> None:
    """The residual is orthogonal to the subspace, the centroid stays the nearest on the way: both maps are exact."""
    x, odd = normal(shape), torch.rand(5, *shape, dtype=torch.float64)
    pca = PCADetector(2, "reconstruction", "none").fit(x).double()
    k_means = KMeansDetector(4, scale="none").fit(x).double()
    centroids = k_means.centroids
    nearest = centroids[torch.cdist(odd.flatten(1), centroids).argmin(1)].reshape(odd.shape)
    for detector, start in ((pca, pca.reconstruct(odd)), (k_means, nearest)):
        found = detector.explain(odd)
        torch.testing.assert_close(found.flatten(1).sum(1), detector.score(odd))
        torch.testing.assert_close(found, integrated_gradients(detector.score, odd, start), rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("part", PARTS)
def test_each_part_of_an_autoencoder_is_explained_completely(part: str) -> None:
    """Maps of errors sum to the score; explanations of the code to the score less that of the reconstruction."""
    detector = make("autoencoder", {"epochs": 8, "scores": part, "code": 3}).fit(normal((2, 9, 8))).double()
    assert isinstance(detector, ReconstructionDetector)
    odd = torch.rand(6, 2, 9, 8, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    expected = detector.score(odd)
    if part in CODE_PARTS:
        expected = expected - detector.score(detector.reconstruct(odd))
    else:
        assert (detector.explain(odd) >= 0).all()
    torch.testing.assert_close(detector.explain(odd).flatten(1).sum(1), expected)


def test_a_combination_is_explained_in_the_units_of_its_parts() -> None:
    x = normal((1, 8, 8))
    odd = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    names = ("ssim", "knn", "l1")
    both = make("autoencoder", {"epochs": 8, "scores": "+".join(names)}).fit(x).double()
    apart = [make("autoencoder", {"epochs": 8, "scores": name}).fit(x).double() for name in names]
    expected = sum(one.explain(odd) / scale for one, scale in zip(apart, both.combination.units.scale, strict=True))
    torch.testing.assert_close(both.explain(odd), expected, rtol=1e-5, atol=1e-6)


def test_dissimilarity_is_shared_by_the_windows_that_hold_a_pixel() -> None:
    """Against the sum written out: the mean over the windows around each pixel, scaled to the score."""
    generator = torch.Generator().manual_seed(0)
    x, back = torch.rand(2, 1, 9, 11, generator=generator), torch.rand(2, 1, 9, 11, generator=generator)
    windows = dissimilarity(x, back)
    expected = torch.zeros_like(x)
    for row in range(9):
        for column in range(11):
            held = windows[:, 0, max(0, row - 6) : row + 1, max(0, column - 6) : column + 1]
            expected[:, 0, row, column] = held.flatten(1).mean(1)
    expected *= (windows.flatten(1).mean(1) / expected.flatten(1).sum(1)).reshape(-1, 1, 1, 1)
    part = PARTS["ssim"]()
    torch.testing.assert_close(part.map(View(x, back, x)), expected)


def test_the_largest_region_alone_is_marked() -> None:
    x, back = torch.zeros(1, 2, 8, 8), torch.zeros(1, 2, 8, 8)
    x[0, :, 2:4, 5:7] = 0.5
    x[0, 0, 7, 0] = 0.6
    part = PARTS["region"]()
    found = part.map(View(x, back, x))
    assert found is not None
    torch.testing.assert_close(found.nonzero(), x[:, :, :7].nonzero())
    torch.testing.assert_close(found.flatten(1).sum(1), part(View(x, back, x)))


def test_without_a_map_the_way_starts_at_the_median_input() -> None:
    x = normal((12,))
    detector = Distance().fit(x)
    torch.testing.assert_close(detector.typical, x.median(0).values)
    odd = torch.rand(4, 12)
    torch.testing.assert_close(detector.explain(odd), (odd - detector.typical).square() / 12)


def test_without_a_gradient_values_are_replaced_one_by_one() -> None:
    x = normal((12,))
    detector = Counting().fit(x)
    odd = detector.typical + torch.randn(9, 12, generator=torch.Generator().manual_seed(0))
    expected = ((odd - detector.typical).abs() > 0.5).float()
    torch.testing.assert_close(detector.explain(odd), expected)
    assert detector.explain(odd[:0]).shape == (0, 12)


def test_patches_of_images_are_replaced_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """A score that looks at one patch gives the fall to that patch, evenly; the number of passes changes nothing."""
    x = torch.rand(3, 2, 17, 20, generator=torch.Generator().manual_seed(0))
    patch = (slice(None), slice(None), slice(5, 7), slice(10, 13))  # the third patch down, the fifth across

    def score(z: Tensor) -> Tensor:
        return z[patch].flatten(1).sum(1)

    found = occlusion(score, x, torch.zeros(2, 17, 20))
    assert (found[patch] > 0).all()
    torch.testing.assert_close(found.flatten(1).sum(1), score(x))
    assert all(len(row.unique()) == 2 for row in found)
    monkeypatch.setattr("robustgen.detectors.attribution._AT_ONCE", 1)
    torch.testing.assert_close(occlusion(score, x, torch.zeros(2, 17, 20)), found)


def test_the_typical_input_is_a_median_over_a_sample() -> None:
    from robustgen.data.rows import as_rows

    x = torch.arange(3001.0)[:, None].repeat(1, 2)
    assert (typical(as_rows(x)) - 1500).abs().max() < 150  # four standard errors of a median of 1,000
    torch.testing.assert_close(typical(as_rows(x[:101])), x[50])


@pytest.mark.parametrize("name", ["pca", "k-means", "autoencoder"])
def test_the_column_that_is_out_has_the_largest_share(name: str) -> None:
    x = normal((10,))
    detector = make(name, QUICK[name]).fit(x)
    odd = x[:10].clone()
    odd[torch.arange(10), torch.arange(10)] += 5
    found = detector.explain(odd)
    assert torch.equal(found.argmax(1), torch.arange(10))


def test_a_patch_that_is_out_of_place_is_found_in_the_map() -> None:
    """Of errors and of codes; windows of 7 x 7 would cover most of an image of 16 x 16."""
    x = normal((1, 16, 16))
    detector = make("autoencoder", {"epochs": 20, "scores": "l2+knn"}).fit(x)
    odd = x[:8].clone()
    odd[:, :, 5:9, 9:13] = torch.rand(8, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    found = detector.explain(odd)[:, 0]
    inside = found[:, 5:9, 9:13].flatten(1).mean(1)
    assert (inside > 2 * found.flatten(1).mean(1)).all()


def test_unfit_use_is_refused() -> None:
    with pytest.raises(RobustgenError, match="not fitted"):
        make("pca", {}).explain(torch.rand(2, 4))
    with pytest.raises(UsageError, match="shape"):
        make("pca", {}).fit(normal((4,))).explain(torch.rand(2, 5))
    assert make("pca", {}).fit(normal((4,))).explain(torch.rand(0, 4)).shape == (0, 4)
