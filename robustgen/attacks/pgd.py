"""Projected gradient descent on the model's confidence, that is ascent on its loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from torch import Tensor

from robustgen.attacks.ascend import Keep, ascend
from robustgen.attacks.base import Attack, AttackResult, Progress
from robustgen.errors import UsageError
from robustgen.objectives import Model
from robustgen.randomness import sample_keys


@final
@dataclass(frozen=True, kw_only=True)
class PGD(Attack):
    """`steps` steps of `step_size` along the steepest direction of the norm, projected onto the legal set after each.

    Madry, Makelov, Schmidt, Tsipras, Vladu 2018, "Towards deep learning models resistant to adversarial attacks".
    `step_size` in input units; None = 2.5 * eps / steps, which can cross the ball from any start. `random_start`: begin
    at a random legal point, another one for each restart; without it only one restart makes sense. `keep`: "success"
    stops a row at its first success (evaluation), "best" runs in full and returns the point of highest loss, "last" the
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
    keep: Keep = "success"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.steps, int) or not isinstance(self.restarts, int) or min(self.steps, self.restarts) < 1:
            raise UsageError(
                f"steps and restarts must be whole numbers from 1 up, but {self.steps} and {self.restarts} came"
            )
        if self.step_size is not None and not self.step_size > 0:
            raise UsageError(f"step_size must be above 0, in input units, but {self.step_size:g} came")
        if self.restarts > 1 and (not self.random_start or self.keep == "last"):
            raise UsageError(
                f"{self.restarts} restarts need random starts and keep='success' or 'best': without them each restart "
                f"would repeat or overwrite the first"
            )

    def _run(self, model: Model, x: Tensor, y: Tensor, progress: Progress, verify: bool) -> AttackResult:
        def start(rows: Tensor, restart: int) -> Tensor:
            return self.threat.sample(rows, sample_keys(rows, self.seed), restart) if self.random_start else rows

        size = 2.5 * self.threat.eps / self.steps if self.step_size is None else self.step_size
        return ascend(
            model,
            self.objective,
            self.threat,
            x,
            y,
            start=start,
            steps=self.steps,
            step_size=size,
            restarts=self.restarts,
            keep=self.keep,
            batch_size=self.rows_at_once(x),
            progress=progress,
            verify=verify,
        )
