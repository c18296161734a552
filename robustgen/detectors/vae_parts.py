"""What can be read off a variational autoencoder, one number per input, higher = more anomalous."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar, final

import torch
from torch import Tensor, nn

from robustgen.detectors.inferred import Inferences, Inferred, first
from robustgen.detectors.parts import Dissimilarity, NearestCodes, Part, SquaredError, View
from robustgen.models.complexity import code_length, compressed_bits
from robustgen.models.vae import Posterior

_MOST_STATISTICS = 5000  # training inputs whose statistics the density keeps
_MOST_CODES = 20_000  # that a nearest-neighbour part keeps
_DRAWS_OF_REGRET = 4


class Reading(nn.Module, ABC):
    """One way to score what was inferred."""

    images: bool = False
    """Whether it needs inputs (c, h, w)."""

    labels: bool = False
    """Whether it needs a label for each input."""

    costly: bool = False
    """Whether preparing it takes so long that it is done only where it is asked for."""

    def prepare(self, training: Inferences, held_out: Inferences, seed: int) -> None:
        """Learn what normal inputs give, from shuffled training inputs or held-out ones."""

    @abstractmethod
    def forward(self, seen: Inferred) -> Tensor:
        """(n,) scores."""


@final
class LowerBound(Reading):
    """-ELBO: the raw likelihood that a variational autoencoder is trained on.

    It follows the complexity of an input more than its kind: simple foreign images can be likelier than those it was
    trained on (Nalisnick et al. 2019).
    """

    def forward(self, seen: Inferred) -> Tensor:
        return -seen.bound


@final
class ImportanceWeighted(Reading):
    """-log p(x), estimated by importance weighting: a tighter bound than the ELBO, with the same failure."""

    def forward(self, seen: Inferred) -> Tensor:
        return -seen.evidence


@final
class ReconstructionError(Reading):
    """-log p(x | z) at the posterior's mean."""

    def forward(self, seen: Inferred) -> Tensor:
        return seen.error


@final
class Divergence(Reading):
    """KL(q(z | x) || prior): low or inverted on many foreign inputs, here to be seen beside the others."""

    def forward(self, seen: Inferred) -> Tensor:
        return seen.divergence


@final
class Regret(Reading):
    """By how much the bound rises when q(z | x) is fitted to the one input (Xiao, Yan, Amit 2020).

    The posterior's mean and log variance are optimised, not the encoder's weights: 15 steps of Adam from the encoder's
    answer, the best step kept. Its gradient is that at the posterior found (the envelope theorem), which is exact where
    that is the optimum.
    """

    steps: ClassVar[int] = 15
    rate: ClassVar[float] = 0.1

    def forward(self, seen: Inferred) -> Tensor:
        noise = seen.noise[:_DRAWS_OF_REGRET]

        def bound(posterior: Posterior) -> Tensor:
            return seen.log_likelihoods(posterior, noise).mean(0) - posterior.divergence()

        best = self._fitted(bound, seen.posterior)
        return bound(best) - bound(seen.posterior)

    def _fitted(self, bound: Callable[[Posterior], Tensor], start: Posterior) -> Posterior:
        point = torch.stack([value.detach() for value in start])  # (2, n, k)
        best, most = point.clone(), torch.full_like(point[0, :, 0], -math.inf)
        first, second = torch.zeros_like(point), torch.zeros_like(point)
        for step in range(self.steps + 1):
            with torch.enable_grad():
                point = point.detach().requires_grad_(True)
                reached = bound(Posterior(point[0], point[1]))
                (slope,) = torch.autograd.grad(reached.sum(), point)
            better = reached.detach() > most
            best = torch.where(better[:, None], point.detach(), best)
            most = torch.where(better, reached.detach(), most)
            first = 0.9 * first + 0.1 * slope
            second = 0.999 * second + 0.001 * slope.square()
            unbiased = first / (1 - 0.9 ** (step + 1))
            point = point.detach() + self.rate * unbiased / ((second / (1 - 0.999 ** (step + 1))).sqrt() + 1e-8)
        return Posterior(best[0], best[1])


@final
class ComplexityCorrected(Reading):
    """-log p(x) less the size as a PNG (Serra et al. 2020, eq. 4), in nats. Images only.

    The size has no gradient: the score's is that of the likelihood alone.
    """

    images = True

    def forward(self, seen: Inferred) -> Tensor:
        return -seen.evidence - math.log(2) * compressed_bits(seen.x)


@final
class Typicality(Reading):
    """|-ELBO - its mean over held-out normal inputs|: too likely counts as well (Nalisnick et al. 2019, "Detecting
    out-of-distribution inputs ... using typicality", for one input).
    """

    centre: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("centre", torch.zeros(()))

    def prepare(self, training: Inferences, held_out: Inferences, seed: int) -> None:
        self.centre = torch.cat([seen.bound for seen in held_out()]).mean()

    def forward(self, seen: Inferred) -> Tensor:
        return (seen.bound - self.centre.to(seen.x.dtype)).abs()


@final
class Density(Reading):
    """How far an input's statistics lie from those of training inputs: the mean distance to the 5 nearest of them.

    After density of states (Morningstar et al. 2021) and likelihood paths (Huang et al. 2024): -log p(x | z), KL, the
    norm of the posterior's mean, its summed log variance, the squared error and, of images, 1 - SSIM and a code length
    of the image alone, each in standard deviations of the training inputs. That complexity is among them keeps an
    input that is likely for being simple from passing for normal. Differentiable in all of them.
    """

    costly = True
    bank: Tensor
    centre: Tensor
    spread: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.squared, self.structure, self.nearest = SquaredError(), Dissimilarity(), NearestCodes()
        for name in ("centre", "spread"):
            self.register_buffer(name, torch.zeros(0))

    def statistics(self, seen: Inferred) -> Tensor:
        """(n, 5), of images (n, 7)."""
        mean, log_variance = seen.posterior
        found = [
            seen.error,
            seen.divergence,
            (mean.square().sum(1) + 1e-12).sqrt(),
            log_variance.sum(1),
            self.squared(seen.view),
        ]
        if seen.x.ndim == 4:
            found += [self.structure(seen.view), code_length(seen.x)]
        return torch.stack(found, 1)

    def prepare(self, training: Inferences, held_out: Inferences, seed: int) -> None:
        found = torch.cat([self.statistics(seen) for seen in first(training, _MOST_STATISTICS)])
        self.centre, spread = found.mean(0), found.std(0, unbiased=False)
        self.spread = torch.where(spread > 1e-6 * self.centre.abs() + 1e-12, spread, 1)
        standard = self._standard(found)
        self.nearest.prepare(lambda: iter([View(standard, standard, standard)]), seed)

    def _standard(self, found: Tensor) -> Tensor:
        return (found - self.centre.to(found.dtype)) / self.spread.to(found.dtype)

    def forward(self, seen: Inferred) -> Tensor:
        standard = self._standard(self.statistics(seen))
        distance: Tensor = self.nearest(View(standard, standard, standard))
        return distance


@final
class OfReconstruction(Reading):
    """A part of an autoencoder's score, with the posterior's mean for the code."""

    def __init__(self, part: Part) -> None:
        super().__init__()
        self.part, self.images = part, part.images

    def prepare(self, training: Inferences, held_out: Inferences, seed: int) -> None:
        self.part.prepare(lambda: (seen.view for seen in first(training, _MOST_CODES)), seed)

    def forward(self, seen: Inferred) -> Tensor:
        found: Tensor = self.part(seen.view)
        return found


@final
class Gap(Reading):
    """By how much the best other label explains an input better than the given one: max over c != y of the bound under
    c, minus the bound under y, both with the posterior's mean for the code. Positive where another label fits better.
    """

    labels = True

    def forward(self, seen: Inferred) -> Tensor:
        assert seen.y is not None
        bounds = torch.stack([self._bound(seen, label) for label in range(seen.network.classes)], 1)
        own = nn.functional.one_hot(seen.y, seen.network.classes).bool()
        return bounds.masked_fill(own, -math.inf).amax(1) - bounds.gather(1, seen.y[:, None])[:, 0]

    def _bound(self, seen: Inferred, label: int) -> Tensor:
        assert seen.y is not None
        other = Inferred(seen.network, seen.x, seen.noise, torch.full_like(seen.y, label))
        return -other.error - other.divergence
