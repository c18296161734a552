"""How long to train, where the user does not say: by the size of the data, and by how much time there is."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, final

from robustgen.errors import UsageError
from robustgen.registry import suggestion
from robustgen.training.descent import Recipe

Preset = Literal["fast", "default", "best"]


@final
@dataclass(frozen=True)
class Plan:
    """`steps` of gradient descent, but no fewer epochs than `fewest` and no more than `most`; the rest as in
    `Recipe`.
    """

    steps: int
    fewest: int
    most: int
    average: float
    patience: int


PLANS: dict[str, Plan] = {
    "fast": Plan(300, 2, 60, 0.0, 10),
    "default": Plan(1000, 5, 200, 0.0, 20),
    "best": Plan(5000, 20, 1000, 0.999, 50),
}
"""`fast` for a first look; `best` five times the default's steps, and averaged weights."""


def recipe(
    preset: str,
    n: int,
    *,
    epochs: int | None,
    batch_size: int,
    learning_rate: float,
    seed: int,
    weight_decay: float = 0.0,
) -> Recipe:
    """What `preset` means for `n` inputs; `epochs`, if given, replaces its number of epochs.

    Raises `UsageError` for a preset that does not exist, or for numbers out of range.
    """
    if preset not in PLANS:
        raise UsageError(suggestion(preset, PLANS, "preset"))
    plan = PLANS[preset]
    if epochs is None:
        epochs = min(plan.most, max(plan.fewest, math.ceil(plan.steps * batch_size / n)))
    return Recipe(
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        seed=seed,
        average=plan.average,
        patience=plan.patience,
    )
