"""What a variational autoencoder's raw likelihood would have said of foreign inputs, beside the score in use."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, final

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate

from robustgen.detectors.variational import VariationalDetector
from robustgen.metrics import auroc

MOST = 200
"""Held-out normal inputs that are enough."""

_LITTLE = 0.1  # nats


@final
@dataclass(frozen=True)
class RawLikelihood:
    """AUROC of each kind of foreign input against `n` held-out normal ones, by -ELBO (`raw`) and by the score in use
    (`score`), and the warnings that the fit gives rise to.
    """

    n: int
    raw: dict[str, float]
    score: dict[str, float]
    warnings: list[str]

    def to_json(self) -> dict[str, Any]:
        """Plain values; `RawLikelihood(**values)` gives it back."""
        return asdict(self)

    @property
    def reason(self) -> str:
        """Why the two differ, in a sentence."""
        inverted = [kind for kind, value in self.raw.items() if value < 0.5]
        what = f" (here: {', '.join(inverted)})" if inverted else ""
        return (
            "the raw likelihood follows how simple an input is, and takes simple foreign ones for more normal than "
            f"normal ones{what} (Nalisnick et al. 2019)"
        )


def beside_raw_likelihood(
    detector: VariationalDetector, x: Tensor, condition: Callable[[Tensor], Tensor | None]
) -> RawLikelihood:
    """Compare on foreign inputs made from held-out normal inputs `x`, (n, *shape) in [0, 1]; `condition` gives the
    labels that inputs are judged against, if any.
    """

    def scores(inputs: Tensor) -> tuple[Any, Any]:
        given = condition(inputs)
        raw, used = detector.panel(inputs, given, ["elbo"])["elbo"], detector.score(inputs, given)
        return raw.double().cpu().numpy(), used.double().cpu().numpy()

    with torch.no_grad():
        normal, others = scores(x), {kind: scores(inputs) for kind, inputs in foreign(x).items()}
    raw = {kind: auroc(normal[0], found[0]).value for kind, found in others.items()}
    score = {kind: auroc(normal[1], found[1]).value for kind, found in others.items()}
    return RawLikelihood(len(x), raw, score, _warnings(detector))


def _warnings(detector: VariationalDetector) -> list[str]:
    information, gain = detector.used.tolist()
    if information > _LITTLE and gain > _LITTLE:
        return []
    return [
        f"the code says next to nothing of the inputs ({information:.2g} nats of information, and the reconstruction "
        f"is {gain:.2g} nats better than without it): scores are those of a model without a code"
    ]


def foreign(x: Tensor) -> dict[str, Tensor]:
    """Inputs simpler than the normal ones `x`, and noise, the same every time."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand(x.shape, generator=generator).to(x)
    middle = x.median(0).values
    if x.ndim == 4:
        side = max(1, min(x.shape[2:]) // 4)
        blurred = interpolate(avg_pool2d(x, side, side), x.shape[2:], mode="bilinear")
        shades = torch.rand(len(x), *[1] * (x.ndim - 1), generator=generator).to(x)
        return {
            "noise": noise,
            "blank": torch.zeros_like(x),
            "one shade": shades.expand_as(x),
            "blurred": blurred,
            "faint": 0.3 * x,
        }
    low, high = x.amin(0), x.amax(0)
    return {
        "noise": low + (high - low) * noise,
        "the median": middle.expand_as(x),
        "near it": middle + 0.2 * (x - middle),
    }
