"""Distance from the classes' means inside a classifier."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from robustgen.data.rows import Rows
from robustgen.detectors.labels import labels_for
from robustgen.detectors.layers import banks
from robustgen.detectors.watching import LayeredDetector
from robustgen.errors import DataError, UsageError
from robustgen.training.descent import TrainingProgress

_RARE = 0.95
_MOST = 20_000  # training inputs; more would not change a covariance by much


@final
class DeepMahalanobisDetector(LayeredDetector):
    """Class-conditional Gaussians with one covariance in each layer of the classifier, averaged over places (Lee, Lee,
    Lee, Shin 2018, "A simple unified framework for detecting out-of-distribution samples and adversarial attacks"): per
    layer (h - m_c)' S^-1 (h - m_c), of the class c that is predicted (the score's condition), or with `among` "nearest"
    of the nearest class, as in the paper.

    `layers`: see `Layers`. A layer's distance is divided by the value that 5 % of training inputs exceed, and `join`
    says whether the "sum" or the "largest" over layers counts; the paper learns weights from attacks, which are not
    known here. `noise`: the step eps of the paper's input pre-processing, x - eps sign(gradient of the distance), taken
    before scores; 0 = none. The gradient of a score takes that step for constant. Eigenvalues of S count at least as a
    ten-thousandth of their mean.
    """

    conditional = True
    wide: Tensor

    def __init__(
        self, layers: str = "auto", among: str = "predicted", join: str = "sum", noise: float = 0.0, seed: int = 0
    ) -> None:
        super().__init__()
        if among not in ("predicted", "nearest") or join not in ("sum", "largest"):
            raise UsageError(
                f"among is predicted or nearest and join is sum or largest, but {among!r} and {join!r} came"
            )
        if not 0 <= noise < float("inf"):
            raise UsageError(f"noise is a step from 0 up, but {noise:g} came")
        self.layers, self.among, self.join, self.noise, self.seed = layers, among, join, noise, seed
        self.surrogate = noise > 0

    def _build(self, shape: tuple[int, ...]) -> None:
        for number in range(len(self._layers.names)):
            self.register_buffer(f"means_{number}", torch.empty(0, 0, device=self._device))
            self.register_buffer(f"whitening_{number}", torch.empty(0, 0, device=self._device))
        self.register_buffer("wide", torch.ones(len(self._layers.names), device=self._device))

    def _fit(self, rows: Rows, progress: TrainingProgress | None) -> None:
        with torch.no_grad():
            classes = self.logits(next(rows.batches(8)).to(self._device)).shape[1]
        found, y = banks(rows, self._layers, _MOST, self.seed, self._device)
        counts = torch.bincount(y, minlength=classes)
        if len(counts) > classes or int(counts.min()) < 2:
            raise DataError(
                f"deep-mahalanobis needs at least 2 training inputs of each of the classifier's {classes} classes, and "
                f"none of others, but there are {counts.tolist()}"
            )
        held = torch.arange(len(y), device=y.device) % 10 == 0
        held = held if int(held.sum()) >= 8 else torch.ones_like(held)
        for number, features in enumerate(found):
            h = features.double()
            means = torch.stack([h[y == c].mean(0) for c in range(classes)])
            centred = h - means[y]
            values, vectors = torch.linalg.eigh(centred.T @ centred / len(h))
            values = values.clamp_min(max(1e-12, 1e-4 * float(values.mean())))
            setattr(self, f"means_{number}", means.float())
            setattr(self, f"whitening_{number}", (vectors * values.rsqrt()).float())
        with torch.no_grad():
            self.wide = torch.ones_like(self.wide)
            apart = torch.cat(
                [self._apart([h[rows_] for h in found], y[rows_]) for rows_ in held.nonzero()[:, 0].split(1000)],
                1,
            )
        self.wide = apart.quantile(_RARE, 1).clamp_min(1e-12)

    def _apart(self, features: list[Tensor], label: Tensor) -> Tensor:
        """(layers, n) each layer's distance."""
        found = []
        for number, h in enumerate(features):
            whitening = self.get_buffer(f"whitening_{number}").to(h.dtype)
            means = self.get_buffer(f"means_{number}").to(h.dtype)
            if self.among == "predicted":
                found.append(((h - means[label]) @ whitening).square().sum(1))
                continue
            white, centres = h @ whitening, means @ whitening
            found.append((white[:, None] - centres).square().sum(2).amin(1))
        return torch.stack(found)

    def _joined(self, x: Tensor, label: Tensor) -> Tensor:
        found = self._apart(self._layers(x), label) / self.wide.to(x.dtype)[:, None]
        return found.sum(0) if self.join == "sum" else found.amax(0)

    def _score(self, x: Tensor, condition: Tensor | None) -> Tensor:
        label = labels_for(x, condition, len(self.get_buffer("means_0")), "deep-mahalanobis")
        if not self.noise:
            return self._joined(x, label)
        with torch.enable_grad():
            point = x.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(self._joined(point, label).sum(), point)
        return self._joined(x - self.noise * gradient.sign(), label)
