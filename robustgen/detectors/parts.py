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
from torch.nn.functional import avg_pool2d, one_hot, pad

from robustgen.detectors.attribution import attribute
from robustgen.errors import UsageError

_MOST_CODES = 20_000  # that a nearest-neighbour part keeps


class View(NamedTuple):
    """n inputs (n, *shape), what the autoencoder gives back (n, *shape), and their codes (n, k)."""

    x: Tensor
    back: Tensor
    code: Tensor


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
        spread = _spread(windows, height, width) / _spread(torch.ones_like(windows[:1, :1]), height, width)
        total = spread.flatten(1).sum(1).clamp(min=torch.finfo(spread.dtype).tiny)
        return spread * (windows.flatten(1).mean(1) / total).reshape(-1, 1, 1, 1)


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
        return error * _spread(first, *error.shape[2:]) / (error.shape[1] * side * side)


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
        bank = self.bank.to(view.code.dtype)
        with torch.no_grad():  # which are nearest by the cheap expansion, their distances then without cancellation
            expanded = bank.square().sum(1) - 2 * view.code @ bank.T
            nearest = expanded.topk(min(self.neighbours, len(bank)), dim=1, largest=False).indices
        squares = (view.code[:, None] - bank[nearest]).square().sum(2)
        return (squares + 1e-12).sqrt().mean(1)


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
    "region": LargestRegion,
    "knn": NearestCodes,
    "mahalanobis": MahalanobisCode,
    "k-means": NearestCentroid,
}


def dissimilarity(x: Tensor, back: Tensor) -> Tensor:
    """(n, c, h', w'): 1 - SSIM of each window of 7 x 7 (or what the image holds), for values in [0, 1]."""
    side = min(7, *x.shape[2:])
    mean_x, mean_back = avg_pool2d(x, side, 1), avg_pool2d(back, side, 1)
    variance_x = avg_pool2d(x * x, side, 1) - mean_x * mean_x
    variance_back = avg_pool2d(back * back, side, 1) - mean_back * mean_back
    covariance = avg_pool2d(x * back, side, 1) - mean_x * mean_back
    brightness = (2 * mean_x * mean_back + 1e-4) / (mean_x * mean_x + mean_back * mean_back + 1e-4)
    structure = (2 * covariance + 9e-4) / (variance_x + variance_back + 9e-4)
    return 1 - brightness * structure


class Combination(nn.Module):
    """The sum of several parts, each measured in robust deviations from its median on held-out normal inputs.

    One part alone keeps its own unit. `names`: parts joined by "+", such as "ssim+knn". Raises `UsageError` for parts
    that do not exist or do not fit inputs of `shape`.
    """

    centre: Tensor
    scale: Tensor

    def __init__(self, names: str, shape: tuple[int, ...]) -> None:
        super().__init__()
        chosen = names.split("+")
        for name in chosen:
            if name not in PARTS:
                raise UsageError(
                    f"a score is made of {', '.join(PARTS)}, joined by +, but {name!r} came: for example ssim+knn"
                )
            if PARTS[name].images and len(shape) != 3:
                raise UsageError(f"the score {name!r} needs images, but inputs have shape {shape}: use l2 or knn")
        if len(set(chosen)) < len(chosen):
            raise UsageError(f"each part of a score counts once, but {names!r} came")
        self.parts = nn.ModuleDict({name: PARTS[name]() for name in chosen})
        self.register_buffer("centre", torch.zeros(len(chosen)))
        self.register_buffer("scale", torch.ones(len(chosen)))

    def prepare(self, training: Views, held_out: Views, seed: int) -> None:
        """Fit the parts to `training` views, and their units to `held_out` ones."""
        for part in self._all():
            part.prepare(training, seed)
        if len(self.parts) > 1:
            seen = torch.cat([self.apart(view) for view in held_out()], 1)
            self.centre = seen.median(1).values
            deviation = 1.4826 * (seen - self.centre[:, None]).abs().median(1).values
            # more than half of the inputs alike: then the spread of all, and where all are alike any unit does
            deviation = torch.where(deviation > 0, deviation, seen.std(1, unbiased=False))
            self.scale = torch.where(deviation > 0, deviation, 1)

    def _all(self) -> list[Part]:
        return [part for part in self.parts.values() if isinstance(part, Part)]

    def apart(self, view: View) -> Tensor:
        """(parts, n) each part's own number."""
        return torch.stack([part(view) for part in self._all()])

    def forward(self, view: View) -> Tensor:
        apart = self.apart(view)
        if len(apart) == 1:
            return apart[0]
        deviations = (apart - self.centre.to(apart.dtype)[:, None]) / self.scale.to(apart.dtype)[:, None]
        return deviations.sum(0)

    def explain(self, view: View, encode: Callable[[Tensor], Tensor]) -> Tensor:
        """(n, *shape) what each value adds to the score: the parts' own maps, and for parts that depend on the code
        alone, what `attribute` makes of the way from the reconstruction to the input.
        """
        maps = [part.map(view) for part in self._all()]
        units = self.scale.to(view.x.dtype)
        total = sum((found / unit for found, unit in zip(maps, units, strict=True) if found is not None), view.x * 0)
        rest = [(part, unit) for part, found, unit in zip(self._all(), maps, units, strict=True) if found is None]
        if not rest:
            return total

        def score(x: Tensor) -> Tensor:
            seen = View(x, x, encode(x))
            return torch.stack([part(seen) / unit for part, unit in rest]).sum(0)

        return total + attribute(score, view.x, view.back)


def _spread(windows: Tensor, height: int, width: int) -> Tensor:
    """(n, c, height, width): for each pixel, the sum over the windows (n, c, h', w') that hold it."""
    side_h, side_w = height - windows.shape[2] + 1, width - windows.shape[3] + 1
    padded = pad(windows, (side_w - 1, side_w - 1, side_h - 1, side_h - 1))
    return avg_pool2d(padded, (side_h, side_w), 1) * (side_h * side_w)


def _codes(views: Views, seed: int) -> Tensor:
    """The codes of at most `_MOST_CODES` training inputs, drawn by `seed` where there are more."""
    codes = torch.cat([view.code for view in views()])
    if len(codes) <= _MOST_CODES:
        return codes
    chosen = torch.randperm(len(codes), generator=torch.Generator().manual_seed(seed))[:_MOST_CODES]
    return codes[chosen.to(codes.device)]
