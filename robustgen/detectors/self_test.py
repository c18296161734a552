"""Is a fitted score worth anything? It is tried on anomalies made from held-out normal inputs, with known answers.

A score that is higher for normal inputs than for noise, or the same for all, is found here and not in use; so is one
that judges an input beside something else, a label or another picture, and does not notice what does not belong to it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Any, Literal, final

import numpy as np
import torch
from torch import Tensor

from robustgen.metrics import Array, auroc

MOST = 200
"""Normal inputs that are enough; as many anomalies are made of each kind."""

_GROSS = ("noise", "far out", "scaled up")  # no score may miss these; a texture shuffled may well be normal
_BLIND, _USELESS, _LEAST = 0.5, 0.6, 10
PLURAL = {
    "noise": "uniform noise",
    "blank": "blank images",
    "constant": "images of one value",
    "shuffled": "images with their patches shuffled",
    "pasted": "images with a patch of another pasted in",
    "contrast": "images of three times the contrast",
    "halves": "images with another's half",
    "permuted": "rows whose columns come from different rows",
    "far out": "rows with one column far out of its range",
    "scaled up": "rows three times as far from the middle",
    "uniform": "rows of uniform values",
    "wrong label": "inputs under random wrong labels",
    "runner-up": "inputs under the likeliest wrong label",
    "other condition": "photos beside the condition of another",
    "moved": "photos two pixels off their condition",
}
"""What each kind of made-up anomaly is, by its name."""


@final
@dataclass(frozen=True)
class SelfTest:
    """AUROC of each kind of made-up anomaly against `n` held-out normal inputs, and what is wrong, in words."""

    n: int
    auroc: dict[str, float]
    warnings: list[str]

    def to_json(self) -> dict[str, Any]:
        """Plain values; `SelfTest(**values)` gives it back."""
        return asdict(self)


def self_test(
    score: Callable[[Tensor], Tensor],
    x: Tensor,
    kind: Literal["image", "table"],
    low: float = 0.0,
    high: float = 1.0,
    seed: int = 0,
    mismatches: Mapping[str, Callable[[Tensor], Tensor]] = MappingProxyType({}),
) -> SelfTest:
    """Try `score` on anomalies made from the normal inputs `x`, (n, *shape), of which `MOST` are used.

    Images, of values in [low, high]: noise, blank, one value, shuffled, pasted (Li et al. 2021), contrast, halves.
    Tables: columns permuted (Breiman 2001), one far out, all scaled up, uniform in the box of the normal rows.
    `mismatches`: how the normal inputs are scored beside what is not theirs, by kind (see `detectors.mismatches`).
    """
    generator = torch.Generator().manual_seed(seed)
    x = x[torch.randperm(len(x), generator=generator)[:MOST]]
    made = anomalies(x, kind, low, high, generator)
    scores = {name: _scored(score, z) for name, z in made.items()}
    scores |= {name: _scored(beside, x) for name, beside in mismatches.items()}
    normal = _scored(score, x)
    found, warnings = dict[str, float](), list[str]()
    for name, values in scores.items():
        if np.isfinite(values).all():
            found[name] = auroc(normal, values).value
        else:
            warnings.append(f"the score of {PLURAL[name]} is NaN or infinite: inputs like these get no verdict")
    if len(normal) >= _LEAST and found:
        warnings += _judged(normal, scores, found, {*_GROSS, *mismatches})
    return SelfTest(len(normal), found, warnings)


def anomalies(
    x: Tensor, kind: Literal["image", "table"], low: float, high: float, generator: torch.Generator
) -> dict[str, Tensor]:
    """As many anomalies of each kind as there are inputs `x`, (n, *shape): see `self_test`."""
    return _images(x, low, high, generator) if kind == "image" else _rows(x, generator)


def _scored(score: Callable[[Tensor], Tensor], x: Tensor) -> Array:
    with torch.no_grad():
        return torch.cat([score(part) for part in x.split(100)]).double().cpu().numpy()


def _judged(normal: Array, scores: dict[str, Array], found: dict[str, float], plain: set[str]) -> list[str]:
    """What is wrong, the worst alone if the score is worth nothing. `plain`: kinds that no score may miss."""
    hint = "check that the training data are normal inputs, train longer, or take another detector or score"
    everything = np.concatenate([normal, *(scores[name] for name in found)])
    _, counts = np.unique(everything, return_counts=True)
    spread, size = np.ptp(everything), np.abs(everything).max()
    if spread <= 1e-5 * size or counts.max() > 0.9 * len(everything):
        return [
            f"the score has collapsed: it is nearly the same ({np.median(everything):.6g}) for normal inputs and for "
            f"every kind of made-up anomaly, and can tell nothing: {hint}"
        ]
    below = [name for name in found if _clearly_below(normal, scores[name])]
    gross = [name for name in found if name in _GROSS]
    worst = min(found, key=lambda name: found[name])
    if 2 * len(below) > len(found) or (gross and set(gross) <= set(below)):
        return [
            f"the score looks inverted: {len(below)} of {len(found)} kinds of made-up anomalies score lower than "
            f"normal inputs (AUROC {found[worst]:.2f} for {PLURAL[worst]}): {hint}"
        ]
    if max(found.values()) < _USELESS:
        best = max(found, key=lambda name: found[name])
        return [
            f"the score tells no kind of made-up anomaly from normal inputs (at best AUROC {found[best]:.2f}, for "
            f"{PLURAL[best]}): {hint}"
        ]
    blind = [name for name in found if name in below or (name in plain and found[name] < _USELESS)]
    return [
        f"the score rates {PLURAL[name]} as more normal than {100 * np.mean(normal > np.median(scores[name])):.0f} % "
        f"of normal inputs (AUROC {found[name]:.2f}): such inputs would pass; another detector or score may catch them"
        for name in blind
    ]


def _clearly_below(normal: Array, anomalous: Array) -> bool:
    return auroc(normal, anomalous).high < _BLIND


def _images(x: Tensor, low: float, high: float, generator: torch.Generator) -> dict[str, Tensor]:
    def uniform(*shape: int) -> Tensor:
        return low + (high - low) * torch.rand(*shape, generator=generator).to(x)

    n, _, height, width = x.shape
    other = x.roll(1, 0)
    pasted, halves = x.clone(), x.clone()
    tall, wide = max(1, height // 3), max(1, width // 3)
    for row in range(n):
        top, left, up, along = (
            int(torch.randint(room + 1, (), generator=generator)) for room in (height - tall, width - wide) * 2
        )
        pasted[row, :, top : top + tall, left : left + wide] = other[row, :, up : up + tall, along : along + wide]
    halves[:, :, : height // 2] = other[:, :, : height // 2]
    mean = x.flatten(1).mean(1).reshape(-1, 1, 1, 1)
    return {
        "noise": uniform(*x.shape),
        "blank": torch.full_like(x, low),
        "constant": uniform(n, 1, 1, 1).expand_as(x).clone(),
        "shuffled": _shuffled(x, generator),
        "pasted": pasted,
        "contrast": (mean + 3 * (x - mean)).clamp(low, high),
        "halves": halves,
    }


def _shuffled(x: Tensor, generator: torch.Generator) -> Tensor:
    """Each image's 4 x 4 patches (of those that fit whole) in another order, its own."""
    height, width = x.shape[2] // 4, x.shape[3] // 4
    if not height or not width:
        order = torch.rand(x[:, 0].shape, generator=generator).flatten(1).argsort(1).to(x.device)
        return x.flatten(2).gather(2, order[:, None].expand(-1, x.shape[1], -1)).reshape(x.shape)
    inner = x[:, :, : 4 * height, : 4 * width].unflatten(2, (4, height)).unflatten(4, (4, width))
    patches = inner.permute(0, 2, 4, 1, 3, 5).flatten(1, 2)  # (n, 16, c, height, width)
    order = torch.rand(len(x), 16, generator=generator).argsort(1).to(x.device)
    moved = torch.stack([row[places] for row, places in zip(patches, order, strict=True)])
    result = x.clone()
    back = moved.unflatten(1, (4, 4)).permute(0, 3, 1, 4, 2, 5)
    result[:, :, : 4 * height, : 4 * width] = back.flatten(4, 5).flatten(2, 3)
    return result


def _rows(x: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
    flat = x.flatten(1)
    n, columns = flat.shape
    low, high = flat.amin(0), flat.amax(0)
    width = torch.where(high > low, high - low, 1)  # columns of tables are scaled to [0, 1]
    orders = torch.rand(n, columns, generator=generator).argsort(0).to(x.device)
    far = flat.clone()
    which = torch.randint(columns, (n,), generator=generator).to(x.device)
    up = torch.rand(n, generator=generator).to(x) < 0.5
    outside = torch.where(up, high[which] + 2 * width[which], low[which] - 2 * width[which])
    far[torch.arange(n, device=x.device), which] = outside
    centre = flat.median(0).values
    made = {
        "permuted": flat.gather(0, orders),
        "far out": far,
        "scaled up": centre + 3 * (flat - centre),
        "uniform": low + (high - low) * torch.rand(n, columns, generator=generator).to(x),
    }
    return {name: rows.reshape(x.shape) for name, rows in made.items()}
