"""Normal inputs beside what does not belong to them: what a detector of pairs is there to notice."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from robustgen.detectors.base import Detector

Scored = Callable[[Tensor], Tensor]
"""Normal inputs (n, *shape) -> the scores (n,) they get beside what is not theirs."""

Score = Callable[[Tensor, Tensor | None], Tensor]
"""(inputs, labels (n,) or None) -> scores (n,)."""


@runtime_checkable
class Paired(Protocol):
    """A detector whose inputs are pairs."""

    def mismatched(self, x: Tensor) -> dict[str, Tensor]:
        """Pairs that do not fit, made of pairs (n, *shape), by kind."""


def mismatches(
    detector: Detector, score: Score, classify: Callable[[Tensor], Tensor] | None, seed: int = 0
) -> dict[str, Scored]:
    """How `detector`, which scores as `score`, rates normal inputs under labels other than those that `classify`
    (inputs -> logits) gives them ("wrong label": random ones; "runner-up": the next likeliest), or, if its inputs are
    pairs, halves of different pairs. Empty for a detector that judges inputs by themselves, or without a classifier.
    """
    if isinstance(detector, Paired):
        pairs = detector.mismatched

        def paired(kind: str) -> Scored:
            return lambda x: score(pairs(x)[kind], None)

        return {kind: paired(kind) for kind in pairs(detector.typical[None])}
    if not detector.conditional or classify is None:
        return {}
    network = classify

    def labelled(label_of: Callable[[Tensor], Tensor]) -> Scored:
        return lambda x: score(x, label_of(network(x)))

    return {"wrong label": labelled(lambda logits: _wrong(logits, seed)), "runner-up": labelled(_runner_up)}


def _runner_up(logits: Float[Tensor, "n classes"]) -> Int64[Tensor, " n"]:
    return logits.topk(2, dim=1).indices[:, 1]


def _wrong(logits: Float[Tensor, "n classes"], seed: int) -> Int64[Tensor, " n"]:
    random, classes = torch.Generator().manual_seed(seed), logits.shape[1]
    steps = torch.randint(1, classes, (len(logits),), generator=random).to(logits.device)
    return (logits.argmax(1) + steps) % classes
