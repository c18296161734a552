"""One block of inputs under attack: what became of each of them, as arrays."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from robustgen.attacks.base import Attack, Progress
from robustgen.attacks.passes import Passes, evaluated
from robustgen.data.source import Source
from robustgen.errors import DataError
from robustgen.evaluation.curve import in_one_run
from robustgen.evaluation.handed_in import going_on
from robustgen.evaluation.quantise import settled
from robustgen.objectives import Misclassify, Model, Towards, margin
from robustgen.threat import ThreatModel

Target = Callable[[Tensor, Tensor], Tensor]
"""(labels (n,), clean logits (n, classes)) -> the class that a targeted attack aims at, per input."""


@dataclass(frozen=True)
class Plan:
    """How inputs are attacked: by `attack` at each eps of `grid`, ascending; `rounded`: to 256 levels at the end."""

    attack: Attack
    grid: tuple[float, ...]
    target: Target | None = None
    rounded: bool = False

    def stages(self) -> list[Attack]:
        """The attack at each size that is run: the largest alone where one run gives them all, and never at 0."""
        if in_one_run(self.attack):
            return [self.attack]
        return [self.at(eps) for eps in self.grid if eps > 0]

    def at(self, eps: float) -> Attack:
        """The attack with another eps."""
        return replace(self.attack, threat=replace(self.attack.threat, eps=eps))


def attack_rows(
    plan: Plan,
    model: Model,
    source: Source,
    rows: npt.NDArray[np.int64],
    device: torch.device,
    progress: Progress | None = None,
) -> dict[str, npt.NDArray[Any]]:
    """The arrays of `Robustness.samples` for some rows of `source`, and their adversarial inputs `x_adv`, float32."""
    batch = source.read(rows).to(device)
    if batch.y is None:
        raise DataError(f"{source.spec.name!r} has no labels: an attack needs labelled inputs")
    block = _Block(plan, model, batch.x, batch.y, progress or (lambda _: None))
    stages = plan.stages()
    for number, stage in enumerate(stages):
        block.run(stage, number, len(stages))
    if not stages:
        block.progress(len(block.held))
    found = {"index": batch.index, "y": batch.y} | block.arrays()
    return {key: value.cpu().numpy() for key, value in found.items()}


def predict(model: Model, x: Tensor, batch_size: int, eot: int = 1) -> Tensor:
    """Logits (n, classes) of all rows without gradients, in batches of at most `batch_size` that fit into memory; the
    mean of `eot` draws.
    """
    passes = Passes(model, Misclassify(), len(x), x.device, rows_at_once=batch_size, channels_last=False, eot=eot)
    rows = torch.arange(len(x), device=x.device)
    parts, start = [], 0
    with evaluated(model):
        while start < len(x):
            end = start + passes.rows_at_once
            parts.append(passes.logits(rows[start:end], x[start:end]))
            start = end
    return torch.cat(parts) if parts else torch.zeros(0, 1, device=x.device)


class _Block:
    """n inputs, and what is known of each of them so far; `held` (m,) are the places of those not fooled yet."""

    def __init__(self, plan: Plan, model: Model, x: Tensor, y: Tensor, progress: Progress) -> None:
        self.plan, self.model, self.x, self.y, self.progress = plan, model, x, y, progress
        number = torch.zeros(len(x), dtype=torch.int64, device=x.device)
        self.forward, self.backward, self.steps = number.clone(), number.clone(), number.clone()
        self.first_success, self.restart, self.member = number - 1, number - 1, number - 1
        self.success, self.zero_gradient, self.unrounded = number.bool(), number.bool(), number.bool()
        self.eps = torch.full((len(x),), -1.0, dtype=torch.float64)  # on the CPU: not every device has float64
        self.x_adv = x.clone()
        logits = self.logits(torch.arange(len(x), device=x.device), x)
        self.clean_prediction, self.margin = logits.argmax(1), margin(logits, y) if len(x) else y.float()
        self.prediction = self.clean_prediction.clone()
        self.aim = y if plan.target is None else plan.target(y, logits)
        self.attacked = self.clean_prediction == y
        if plan.target is not None:
            self.attacked &= self.aim != y
        self.held = self.everything = self.attacked.nonzero()[:, 0]
        progress(len(x) - len(self.held))

    def logits(self, row: Tensor, x: Tensor) -> Tensor:
        """(m, classes) for the inputs `x` at the places `row`."""
        eot = self.plan.attack.eot
        self.forward[row] += eot
        return predict(self.model, x, self.plan.attack.rows_at_once(x), eot)

    def achieved(self, row: Tensor, x: Tensor, prediction: Tensor) -> Tensor:
        """(m,) whether the attack has what it wanted at `x`, where the model says `prediction`."""
        objective = self.plan.attack.objective
        if isinstance(objective, Misclassify | Towards):
            return prediction == self.aim[row] if self.plan.target is not None else prediction != self.y[row]
        parts = torch.arange(len(row), device=x.device).split(self.plan.attack.rows_at_once(x))
        with evaluated(self.model), torch.no_grad():
            verdicts = [objective(self.model, x[part], self.aim[row[part]])[1] for part in parts]
        self.forward[row] += 1
        return torch.cat(verdicts) if verdicts else prediction.bool()

    def run(self, stage: Attack, number: int, of: int) -> None:
        """Attack the inputs that hold; with one change for all of them, find it on all and look at those that hold."""
        whole = stage.whole
        row = self.everything if whole else self.held
        result = stage.run(self.model, self.x[row], self.aim[row], lambda done: self.progress(done / of), verify=False)
        self.forward[row] += result.forward
        self.backward[row] += result.backward
        if not number:
            self.zero_gradient[row] = result.zero_gradient
        holds = ~self.success[row]
        place, x_adv = row[holds], result.x_adv[holds].to(self.x.dtype)
        if self.plan.rounded:
            x_adv = self.quantised(stage, place, x_adv)
        logits = self.logits(place, x_adv)  # the verdict is on what will be saved
        won = self.achieved(place, x_adv, logits.argmax(1))
        self.x_adv[place], self.prediction[place] = x_adv, logits.argmax(1)
        self.margin[place] = margin(logits, self.y[place]).to(self.margin.dtype) if len(place) else self.margin[:0]
        self.success[place] = won
        for name in ("steps", "restart", "member"):
            getattr(self, name)[place] = getattr(result, name)[holds]
        first = result.first_success[holds]
        first = torch.where(first < 0, result.steps[holds], first)  # an attack that did not look itself
        self.first_success[place] = torch.where(won, first, -1)
        self.eps[place[won].cpu()] = self.needed(stage, x_adv[won], self.x[place[won]])
        self.held = place[~won]
        if not whole:
            self.progress(int(won.sum()) * (of - 1 - number) / of)

    def quantised(self, stage: Attack, place: Tensor, x_adv: Tensor) -> Tensor:
        """Rounded to the nearest levels; where that undoes a success, to the levels away from the clean input; where
        even that does and the attack stopped at its first success, once more from an attack that goes on.
        """
        fooled = self.achieved(place, x_adv, self.logits(place, x_adv).argmax(1))
        self.unrounded[place] |= fooled
        rounded, undone = self.rounded(stage.threat, place, x_adv, fooled)
        further = going_on(stage)
        if further is not None and undone.any():
            row = place[undone]
            result = further.run(self.model, self.x[row], self.aim[row], verify=False)
            self.forward[row] += result.forward
            self.backward[row] += result.backward
            rounded[undone] = self.rounded(stage.threat, row, result.x_adv.to(self.x.dtype), undone[undone])[0]
        return rounded

    def rounded(self, threat: ThreatModel, place: Tensor, x_adv: Tensor, fooled: Tensor) -> tuple[Tensor, Tensor]:
        """`x_adv` on levels, and where (m,) that undid that it `fooled`."""

        def works(row: Tensor, points: Tensor) -> Tensor:
            return self.achieved(place[row], points, self.logits(place[row], points).argmax(1))

        return settled(threat, x_adv, self.x[place], works, fooled)

    def needed(self, stage: Attack, x_adv: Tensor, x: Tensor) -> Tensor:
        """(m,) how large a change is that fooled: itself in one run for all sizes, else the least of the grid."""
        if in_one_run(stage):
            return stage.threat.distance(x_adv.cpu().double(), x.cpu().double())
        needed = torch.full_like(self.eps[: len(x)], stage.threat.eps)
        for eps in sorted({eps for eps in self.plan.grid if 0 < eps < stage.threat.eps}, reverse=True):
            needed[replace(stage.threat, eps=eps).allows(x_adv, x).cpu()] = eps
        return needed

    def arrays(self) -> dict[str, Tensor]:
        threat = self.plan.attack.threat
        names = (
            "clean_prediction", "prediction", "attacked", "success", "steps", "first_success", "restart", "member",
            "margin", "eps", "forward", "backward", "zero_gradient",
        )  # fmt: skip
        return {
            **{name: getattr(self, name) for name in names},
            **{
                f"norm_{norm}": ThreatModel(norm, 0.0, threat.low, threat.high).distance(self.x_adv, self.x)
                for norm in ("linf", "l2", "l1", "l0")
            },
            **({} if self.plan.target is None else {"target": self.aim}),
            **({"success_unrounded": self.unrounded} if self.plan.rounded else {}),
            "x_adv": self.x_adv.float(),
        }
