"""The parts of an autoencoder's score: known answers, gradients, and what makes them comparable."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from robustgen.detectors.combination import Combination
from robustgen.detectors.image_differences import dissimilarity, gradient_dissimilarity
from robustgen.detectors.parts import PARTS, View
from robustgen.errors import UsageError


def views(generator: torch.Generator, n: int = 60, shape: tuple[int, ...] = (2, 9, 11), code: int = 4) -> View:
    x = torch.rand(n, *shape, generator=generator, dtype=torch.float64)
    back = (x + 0.1 * torch.randn(n, *shape, generator=generator, dtype=torch.float64)).clamp(0, 1)
    return View(x, back, torch.randn(n, code, generator=generator, dtype=torch.float64))


def rows(view: View, places: Tensor | slice) -> View:
    return View(view.x[places], view.back[places], view.code[places])


@pytest.mark.parametrize("name", PARTS)
def test_a_part_is_differentiable_and_judges_each_row_alone(name: str, generator: torch.Generator) -> None:
    view = views(generator)
    part = PARTS[name]()
    part.prepare(lambda: iter([rows(view, slice(0, 25)), rows(view, slice(25, 50))]), 0)
    new = rows(view, slice(50, 60))
    scores = part(new)
    assert scores.shape == (10,)
    assert torch.isfinite(scores).all()
    torch.testing.assert_close(part(rows(new, slice(3, 4))), scores[3:4])

    def score(x: Tensor, code: Tensor) -> Tensor:
        found: Tensor = part(View(x, new.back[:2], code))
        return found

    assert torch.autograd.gradcheck(score, (new.x[:2].clone().requires_grad_(), new.code[:2].clone().requires_grad_()))


def test_errors_are_the_means_they_say(generator: torch.Generator) -> None:
    view = views(generator)
    error = (view.x - view.back).flatten(1)
    torch.testing.assert_close(PARTS["l1"]()(view), error.abs().mean(1))
    torch.testing.assert_close(PARTS["l2"]()(view), error.square().mean(1))
    x = torch.zeros(1, 1, 12, 12)
    x[0, 0, 4:7, 5:8] = 1
    assert PARTS["region"]()(View(x, torch.zeros_like(x), x.flatten(1))).item() == 1
    assert PARTS["l2"]()(View(x, torch.zeros_like(x), x.flatten(1))).item() == pytest.approx(9 / 144)


def test_a_weighted_error_counts_most_where_errors_are_rare() -> None:
    part = PARTS["weighted"]()
    training = torch.zeros(100, 4)
    training[:, 0] = torch.linspace(-1, 1, 100)  # the autoencoder is often wrong here
    part.prepare(lambda: iter([View(training, torch.zeros(100, 4), training)]), 0)
    often, seldom = torch.zeros(1, 4), torch.zeros(1, 4)
    often[0, 0], seldom[0, 3] = 0.5, 0.5
    none = torch.zeros(1, 4)
    assert part(View(seldom, none, none)) > 10 * part(View(often, none, none))


def test_dissimilarity_is_scikit_images_formula(generator: torch.Generator) -> None:
    """Its definition, window by window, with the plain (biased) variances; 0 for equal images, at most 2."""
    view = views(generator, n=2, shape=(1, 9, 10))
    found = dissimilarity(view.x, view.back)
    assert found.shape == (2, 1, 3, 4)
    a, b = view.x[1, 0, 1:8, 2:9], view.back[1, 0, 1:8, 2:9]
    covariance = ((a - a.mean()) * (b - b.mean())).mean()
    brightness = (2 * a.mean() * b.mean() + 0.01**2) / (a.mean() ** 2 + b.mean() ** 2 + 0.01**2)
    structure = (2 * covariance + 0.03**2) / (a.var(correction=0) + b.var(correction=0) + 0.03**2)
    torch.testing.assert_close(found[1, 0, 1, 2], 1 - brightness * structure)
    torch.testing.assert_close(dissimilarity(view.x, view.x), torch.zeros_like(found))


def test_gradient_similarity_is_the_authors_formula(generator: torch.Generator) -> None:
    """Xue et al. 2014 by SciPy's Prewitt filters; 0 for equal images and for images that differ in brightness alone."""
    from scipy.ndimage import prewitt

    x, back = torch.rand(2, 1, 9, 8, generator=generator), torch.rand(2, 1, 9, 8, generator=generator)

    def slope(image: np.ndarray) -> np.ndarray:
        return np.hypot(*(prewitt(image, axis, mode="nearest") / 3 for axis in (0, 1)))

    a, b = slope(x[1, 0].double().numpy()), slope(back[1, 0].double().numpy())
    expected = 1 - (2 * a * b + 0.0026) / (a**2 + b**2 + 0.0026)
    np.testing.assert_allclose(gradient_dissimilarity(x, back)[1, 0].numpy(), expected, atol=1e-5)
    torch.testing.assert_close(gradient_dissimilarity(x, x), torch.zeros_like(x))
    torch.testing.assert_close(gradient_dissimilarity(x / 2, x / 2 + 0.3), torch.zeros_like(x), atol=1e-4, rtol=0)


def test_edges_are_compared_with_those_of_training_images(generator: torch.Generator) -> None:
    """A known image has the distance 0 but for its four other neighbours; brightness tells nothing; an edge does."""
    x = torch.rand(30, 2, 20, 20, generator=generator)
    part = PARTS["edges"]()
    part.prepare(lambda: iter([View(x[:20], x[:20], x[:20]), View(x[20:], x[20:], x[20:])]), 0)
    assert part.bank.shape == (30, 100)
    alike = torch.full((3, 2, 20, 20), 0.5)
    alike[1] = 0.9
    alike[2, :, :, 10:] = 0.9
    flat = PARTS["edges"]()
    flat.prepare(lambda: iter([View(alike[:1].expand(6, -1, -1, -1), alike, alike)]), 0)
    known, brighter, edge = flat(View(alike, alike, alike)).tolist()
    assert known == pytest.approx(0, abs=1e-5)
    assert brighter == pytest.approx(0, abs=1e-5)
    assert edge > 0.1


def test_distances_in_the_code_are_scikit_learns(generator: torch.Generator) -> None:
    from sklearn.neighbors import NearestNeighbors

    view = views(generator)
    bank, new = rows(view, slice(0, 50)), rows(view, slice(50, 60))
    part = PARTS["knn"]()
    part.prepare(lambda: iter([bank]), 0)
    distances, _ = NearestNeighbors(n_neighbors=5).fit(bank.code.numpy()).kneighbors(new.code.numpy())
    torch.testing.assert_close(part(new), torch.from_numpy(distances).mean(1))
    far = PARTS["mahalanobis"]()
    stretched = bank._replace(code=torch.randn(5000, 2, generator=generator).double() * torch.tensor([3.0, 0.3]))
    far.prepare(lambda: iter([stretched]), 0)
    points = torch.tensor([[3.0, 0.0], [0.0, 0.3], [0.0, 9.0]], dtype=torch.float64)
    found = far(View(points, points, points))
    assert found[0] == pytest.approx(found[1].item(), rel=0.1)
    assert found[2] > 20 * found[0]


def test_a_bank_of_codes_has_a_limit(monkeypatch: pytest.MonkeyPatch, generator: torch.Generator) -> None:
    monkeypatch.setattr("robustgen.detectors.parts._MOST_CODES", 20)
    view, part = views(generator), PARTS["knn"]()
    part.prepare(lambda: iter([view]), 0)
    assert part.get_buffer("bank").shape == (20, 4)


def test_parts_are_added_in_robust_deviations(generator: torch.Generator) -> None:
    """Another unit of a part changes nothing, and one wild held-out row hardly anything."""
    view = views(generator, n=400, shape=(6,))
    training, held, new = rows(view, slice(0, 200)), rows(view, slice(200, 390)), rows(view, slice(390, 400))
    both = Combination("l2+knn", (6,))
    both.prepare(lambda: iter([training]), lambda: iter([held]), 0)
    seen = both.apart(held)
    torch.testing.assert_close(both.units.centre, seen.median(1).values)
    parts = both.apart(new)
    expected = sum((parts[i] - both.units.centre[i]) / both.units.scale[i] for i in range(2))
    torch.testing.assert_close(both(new), expected)
    torch.testing.assert_close(Combination("l2", (6,))(new), parts[0])
    wild = held._replace(back=torch.where(torch.arange(190)[:, None] == 7, 1e6, held.back))
    other = Combination("l2+knn", (6,))
    other.prepare(lambda: iter([training]), lambda: iter([wild]), 0)
    torch.testing.assert_close(other(new), both(new), rtol=0.2, atol=0.2)


def test_alike_held_out_rows_give_finite_scores() -> None:
    x = torch.full((30, 6), 0.5)
    both = Combination("l2+knn", (6,))
    both.prepare(lambda: iter([View(x, x, x)]), lambda: iter([View(x, x, x)]), 0)
    assert torch.isfinite(both(View(x + 0.1, x, x + 0.1))).all()


@pytest.mark.parametrize(
    ("names", "shape", "says"),
    [
        ("ssim+nothing", (1, 9, 9), "'nothing' came"),
        ("ssim", (5,), "needs images"),
        ("l2+l2", (5,), "counts once"),
        ("", (5,), "a score is made of l1"),
    ],
)
def test_impossible_combinations_are_refused(names: str, shape: tuple[int, ...], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        Combination(names, shape)
