"""Projected gradient descent on the model's confidence, that is ascent on its loss."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from robustgen.attacks.ascend import Keep, Play, ascend
from robustgen.attacks.base import Attack, Found, Mode, Progress, check_counts
from robustgen.attacks.minimal import annealed
from robustgen.attacks.passes import Passes, Seen
from robustgen.errors import UsageError
from robustgen.randomness import sample_keys
from robustgen.threat import ThreatModel

KEEP: dict[Mode, Keep] = {"evaluate": "success", "max-loss": "best", "last": "last"}


@dataclass(frozen=True)
class Steepest:
    """Steps of `size` in the norm's steepest direction, projected; from random legal points where there is a `seed`.

    `until`: the number of steps over which the size falls to 0, along half a cosine wave; None = it stays. `decay`: of
    the running sum of gradients, each at mean absolute 1, that the steps follow (momentum: Dong et al. 2018); 0 = they
    follow the gradient of the point where they are.
    """

    threat: ThreatModel
    size: float
    seed: int | None = None
    until: int | None = None
    decay: float = 0.0

    def begin(self, clean: Tensor, label: Tensor, restart: int) -> tuple[Tensor, dict[str, Tensor]]:
        state = {"velocity": torch.zeros_like(clean)} if self.decay else {}
        if self.seed is None:
            return clean, state
        return self.threat.sample(clean, sample_keys(clean, self.seed), restart), state

    def move(self, play: Play, seen: Seen) -> Tensor:
        size = self.size if self.until is None else annealed(play.step, self.until, self.size, 0.0)
        direction = seen.gradient
        if self.decay:
            mean = direction.flatten(1).abs().mean(1).reshape(-1, *[1] * (direction.dim() - 1))
            direction = self.decay * play.state["velocity"] + direction / torch.where(mean > 0, mean, 1)
            play.state["velocity"] = direction
        return self.threat.project(self.threat.step(play.point, direction, size), play.clean)


@final
@dataclass(frozen=True, kw_only=True)
class PGD(Attack):
    """`steps` steps of `step_size` along the steepest direction of the norm, projected onto the legal set after each.

    Madry, Makelov, Schmidt, Tsipras, Vladu 2018, "Towards deep learning models resistant to adversarial attacks".
    `step_size` in input units; None = 2.5 * eps / steps, which can cross the ball from any start. `random_start`: begin
    at a random legal point, another one for each restart; without it only one restart makes sense. `mode`: "evaluate"
    stops a row at its first verified success, "max-loss" runs in full and returns the point of highest loss, "last" the
    last point (training).

    >>> import torch
    >>> model = torch.nn.Linear(2, 2)
    >>> x, y = torch.rand(4, 2), torch.tensor([0, 1, 0, 1])
    >>> attack = PGD(threat=ThreatModel("linf", eps=0.1), steps=5)
    >>> bool(attack.threat.allows(attack(model, x, y), x).all())
    True
    """

    steps: int = 40
    step_size: float | None = None
    random_start: bool = True
    restarts: int = 1
    mode: Mode = "evaluate"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_counts(steps=self.steps, restarts=self.restarts)
        check_size(self.step_size)
        if self.restarts > 1 and (not self.random_start or self.mode == "last"):
            raise UsageError(
                f"{self.restarts} restarts need random starts and mode evaluate or max-loss: without them each "
                "restart would repeat or overwrite the first"
            )

    def _run(self, passes: Passes, x: Tensor, y: Tensor, progress: Progress, verify: bool) -> Found:
        size = 2.5 * self.threat.eps / self.steps if self.step_size is None else self.step_size
        return ascend(
            passes,
            Steepest(self.threat, size, self.seed if self.random_start else None),
            self.threat,
            x,
            y,
            steps=self.steps,
            restarts=self.restarts,
            keep=KEEP[self.mode],
            progress=progress,
            verify=verify,
        )


def check_decay(decay: float) -> None:
    """Raise `UsageError` for a decay that no momentum has."""
    if not (math.isfinite(decay) and decay >= 0):
        raise UsageError(f"decay must be 0 (no momentum) or a finite number above, but {decay:g} came")


def check_size(step_size: float | None) -> None:
    """Raise `UsageError` for a step that goes nowhere."""
    if step_size is not None and not step_size > 0:
        raise UsageError(f"step_size must be above 0, in input units, but {step_size:g} came")
