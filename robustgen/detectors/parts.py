"""What can be read off an autoencoder: how badly it gives an input back, and how far the code is from known codes.

A `Part` turns a `View` into one number per input, higher = more anomalous, differentiable in the input.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from math import prod
from typing import ClassVar, NamedTuple, final

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate, one_hot

from robustgen.detectors.image_differences import dissimilarity, edges, gradient_dissimilarity, half, spread_over
from robustgen.detectors.neighbours import nearest

_MOST_CODES = 20_000  # that a nearest-neighbour part keeps


class View(NamedTuple):
    """n inputs (n, *shape), what the model gives back (n, *shape), and their codes (n, k).

    Of a GAN the code is the discriminator's features, `again` those of what is given back (n, k), and `number` what the
    discriminator says (n,).
    """

    x: Tensor
    back: Tensor
    code: Tensor
    again: Tensor | None = None
    number: Tensor | None = None


Views = Callable[[], Iterator[View]]
"""Goes through the training inputs once, without gradients."""


class Part(nn.Module, ABC):
    """One way to score a view."""

    images: ClassVar[bool] = False
    """Whether it needs inputs (c, h, w)."""

    def prepare(self, views: Views, seed: int) -> None:
        """Learn what normal views look like."""

    @abstractmethod
    def forward(self, view: View) -> Tensor:
        """(n,) scores."""

    def map(self, view: View) -> Tensor | None:
        """(n, *shape) what each value adds to the score, of which it is the sum; None for what depends on the code
        alone.
        """
        return None


@final
class AbsoluteError(Part):
    """Mean |x - x'|."""

    def forward(self, view: View) -> Tensor:
        return (view.x - view.back).abs().flatten(1).mean(1)

    def map(self, view: View) -> Tensor:
        return (view.x - view.back).abs() / prod(view.x.shape[1:])


@final
class SquaredError(Part):
    """Mean (x - x')^2."""

    def forward(self, view: View) -> Tensor:
        return (view.x - view.back).square().flatten(1).mean(1)

    def map(self, view: View) -> Tensor:
        return (view.x - view.back).square() / prod(view.x.shape[1:])


@final
class WeightedError(Part):
    """Mean (x - x')^2 / (s^2 + c), with s^2 each value's mean squared error on training inputs and c a tenth of their
    mean: an error counts by how rare it is at its place.
    """

    variance: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("variance", torch.empty(0))

    def prepare(self, views: Views, seed: int) -> None:
        total, n = torch.zeros(()), 0
        for view in views():
            total, n = total.to(view.x.device) + (view.x - view.back).square().sum(0), n + len(view.x)
        variance = total / max(1, n)
        self.variance = variance + 0.1 * variance.mean() + 1e-12

    def forward(self, view: View) -> Tensor:
        return ((view.x - view.back).square() / self.variance.to(view.x.dtype)).flatten(1).mean(1)

    def map(self, view: View) -> Tensor:
        return (view.x - view.back).square() / self.variance.to(view.x.dtype) / prod(view.x.shape[1:])


@final
class Dissimilarity(Part):
    """1 - the mean structural similarity of input and reconstruction, over windows of 7 x 7 (Wang et al. 2004, with
    uniform windows).
    """

    images = True

    def forward(self, view: View) -> Tensor:
        return dissimilarity(view.x, view.back).flatten(1).mean(1)

    def map(self, view: View) -> Tensor:
        """The mean dissimilarity of the windows that a value is in, as its share of the score."""
        windows = dissimilarity(view.x, view.back)
        height, width = view.x.shape[2:]
        spread = spread_over(windows, height, width) / spread_over(torch.ones_like(windows[:1, :1]), height, width)
        total = spread.flatten(1).sum(1).clamp(min=torch.finfo(spread.dtype).tiny)
        return spread * (windows.flatten(1).mean(1) / total).reshape(-1, 1, 1, 1)


@final
class GradientDissimilarity(Part):
    """1 - gradient magnitude similarity of input and reconstruction (Xue et al. 2014) at half the resolution, each
    place measured against what is usual there on training inputs, averaged.

    Compared are the lengths of the gradients, so that edges which the reconstruction lost or made up count, shades do
    not (Zavrtanik, Kristan, Skocaj 2021, use it so for anomalies).
    """

    images = True
    usual: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("usual", torch.empty(0))

    def prepare(self, views: Views, seed: int) -> None:
        total, n = torch.zeros(()), 0
        for view in views():
            total, n = total.to(view.x.device) + self._places(view).sum(0), n + len(view.x)
        usual = total / max(1, n)
        self.usual = usual + 0.1 * usual.mean() + 1e-12

    def _places(self, view: View) -> Tensor:
        return gradient_dissimilarity(half(view.x), half(view.back))

    def forward(self, view: View) -> Tensor:
        return (self._places(view) / self.usual.to(view.x.dtype)).flatten(1).mean(1)

    def map(self, view: View) -> Tensor:
        """What each place adds, over the values that were averaged to it."""
        places = self._places(view) / self.usual.to(view.x.dtype)
        height, width = view.x.shape[2:]
        spread = interpolate(places, scale_factor=2.0, mode="nearest")[..., :height, :width]
        total = spread.flatten(1).sum(1).clamp(min=torch.finfo(spread.dtype).tiny)
        return spread * (places.flatten(1).mean(1) / total).reshape(-1, 1, 1, 1)


@final
class LargestRegion(Part):
    """The largest mean squared error of any square region a quarter as wide as the image."""

    images = True

    def forward(self, view: View) -> Tensor:
        error = (view.x - view.back).square().mean(1, keepdim=True)
        side = max(1, min(error.shape[2:]) // 4)
        return avg_pool2d(error, side, 1).flatten(1).amax(1)

    def map(self, view: View) -> Tensor:
        error = (view.x - view.back).square()
        side = max(1, min(error.shape[2:]) // 4)
        means = avg_pool2d(error.mean(1, keepdim=True), side, 1)
        first = one_hot(means.flatten(1).argmax(1), means[0].numel()).to(means.dtype).reshape(means.shape)
        return error * spread_over(first, *error.shape[2:]) / (error.shape[1] * side * side)


@final
class NearestCodes(Part):
    """Mean distance to the 5 nearest codes of at most 20,000 training inputs (Ramaswamy, Rastogi, Shim 2000)."""

    bank: Tensor
    neighbours: ClassVar[int] = 5

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("bank", torch.empty(0, 0))

    def prepare(self, views: Views, seed: int) -> None:
        self.bank = _codes(views, seed)

    def forward(self, view: View) -> Tensor:
        return mean_distance(view.code, self.bank, self.neighbours)


@final
class NearestEdges(Part):
    """Mean distance to the 5 nearest edge maps of at most 20,000 training inputs. It does not ask the autoencoder.

    The map: the lengths of the gradients of the image, brought by averaging to at most 16 x 16, and the square root of
    them, so that faint edges count beside strong ones, as in histograms of oriented gradients (Dalal, Triggs 2005).
    """

    images = True
    bank: Tensor
    neighbours: ClassVar[int] = 5

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("bank", torch.empty(0, 0))

    def prepare(self, views: Views, seed: int) -> None:
        self.bank = _some((edges(view.x) for view in views()), seed)

    def forward(self, view: View) -> Tensor:
        return mean_distance(edges(view.x), self.bank, self.neighbours)


@final
class NearestCentroid(Part):
    """Distance to the nearest of 50 centroids of the training codes (k-means)."""

    centroids: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("centroids", torch.empty(0, 0))

    def prepare(self, views: Views, seed: int) -> None:
        from sklearn.cluster import KMeans

        codes = _codes(views, seed)
        fitted = KMeans(min(50, len(codes)), n_init=1, random_state=seed).fit(codes.cpu().numpy())
        self.centroids = torch.from_numpy(fitted.cluster_centers_).to(codes)

    def forward(self, view: View) -> Tensor:
        centroids = self.centroids.to(view.code.dtype)
        with torch.no_grad():
            nearest = (centroids.square().sum(1) - 2 * view.code @ centroids.T).argmin(1)
        return ((view.code - centroids[nearest]).square().sum(1) + 1e-12).sqrt()


@final
class MahalanobisCode(Part):
    """Mahalanobis distance of the code, with the covariance shrunk as Ledoit and Wolf (2004) do."""

    centre: Tensor
    whitening: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("centre", torch.empty(0))
        self.register_buffer("whitening", torch.empty(0, 0))

    def prepare(self, views: Views, seed: int) -> None:
        from sklearn.covariance import ledoit_wolf

        codes = _codes(views, seed)
        covariance, _ = ledoit_wolf(codes.double().cpu().numpy())
        values, vectors = torch.linalg.eigh(torch.from_numpy(covariance))
        values = values.clamp(min=max(1e-12, 1e-6 * float(values.max())))
        self.centre, self.whitening = codes.mean(0), (vectors * values.rsqrt()).to(codes)

    def forward(self, view: View) -> Tensor:
        white = (view.code - self.centre.to(view.code.dtype)) @ self.whitening.to(view.code.dtype)
        return (white.square().mean(1) + 1e-12).sqrt()


PARTS: dict[str, type[Part]] = {
    "l1": AbsoluteError,
    "l2": SquaredError,
    "weighted": WeightedError,
    "ssim": Dissimilarity,
    "gms": GradientDissimilarity,
    "region": LargestRegion,
    "knn": NearestCodes,
    "edges": NearestEdges,
    "mahalanobis": MahalanobisCode,
    "k-means": NearestCentroid,
}


def mean_distance(points: Tensor, bank: Tensor, neighbours: int) -> Tensor:
    """(n,) the mean distance of points (n, k) to their nearest rows of `bank` (m, k), differentiable in the points."""
    distances, _ = nearest(points, bank.to(points.dtype), neighbours)
    return distances.mean(1)


def _codes(views: Views, seed: int) -> Tensor:
    """The codes of at most `_MOST_CODES` training inputs, drawn by `seed` where there are more."""
    return _some((view.code for view in views()), seed)


def _some(batches: Iterator[Tensor], seed: int) -> Tensor:
    """All rows of the batches, or `_MOST_CODES` of them drawn by `seed` where there are more."""
    rows = torch.cat(list(batches))
    if len(rows) <= _MOST_CODES:
        return rows
    chosen = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))[:_MOST_CODES]
    return rows[chosen.to(rows.device)]
