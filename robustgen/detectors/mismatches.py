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
    detector: Detector,
    score: Score,
    classify: Callable[[Tensor], Tensor] | None,
    x: Float[Tensor, "n *shape"],
    seed: int = 0,
) -> dict[str, Scored]:
    """How `detector`, which scores as `score`, rates normal inputs under labels other than those that `classify`
    (inputs -> logits) gives them ("wrong label": random ones; "runner-up": the next likeliest), or, if its inputs are
    pairs, halves of different pairs. Empty for a detector that judges inputs by themselves, or without a classifier.

    `x`: the normal inputs. Labels are of those that they get: of others the detector may know nothing.
    """
    if isinstance(detector, Paired):
        pairs = detector.mismatched

        def paired(kind: str) -> Scored:
            return lambda x: score(pairs(x)[kind], None)

        return {kind: paired(kind) for kind in pairs(x)}
    if not detector.conditional or classify is None:
        return {}
    network = classify
    with torch.no_grad():
        known = network(x).argmax(1).unique()
    if len(known) < 2:
        return {}

    def labelled(label_of: Callable[[Tensor, Tensor, int], Tensor]) -> Scored:
        return lambda x: score(x, label_of(network(x), known, seed))

    return {"wrong label": labelled(_wrong), "runner-up": labelled(_runner_up)}


def _runner_up(logits: Float[Tensor, "n classes"], known: Int64[Tensor, " k"], seed: int) -> Int64[Tensor, " n"]:
    others = logits.scatter(1, logits.argmax(1, keepdim=True), -torch.inf)
    return known[others[:, known].argmax(1)]


def _wrong(logits: Float[Tensor, "n classes"], known: Int64[Tensor, " k"], seed: int) -> Int64[Tensor, " n"]:
    random, place = torch.Generator().manual_seed(seed), torch.searchsorted(known, logits.argmax(1))
    steps = torch.randint(1, len(known), (len(logits),), generator=random).to(logits.device)
    return known[(place + steps) % len(known)]
