"""Can this robust accuracy be believed? What must hold of every sound evaluation, measured after each run.

The checks follow Athalye, Carlini, Wagner 2018, "Obfuscated gradients give a false sense of security", and Carlini et
al. 2019, "On evaluating adversarial robustness". One costs nothing: it reads the run's own arrays
(`from_samples`). The others attack a few inputs once more (`from_probe`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from robustgen.attacks.base import Attack, AttackResult
from robustgen.attacks.pgd import PGD
from robustgen.attacks.square import Square
from robustgen.data.source import Source
from robustgen.errors import RobustgenError
from robustgen.evaluation.checks import Finding
from robustgen.evaluation.summary import Samples
from robustgen.objectives import Misclassify, Model, Objective, Towards, margin
from robustgen.runtime import fitting_threads
from robustgen.threat import ThreatModel

Told = Callable[[str, float], None]
"""Told the name of the check that begins and the share of the work done so far."""

_MOST, _LEAST = 32, 8  # inputs of a probe
_QUERIES = 200  # of the black box
_STEPS = 40  # of the gradient attack where the run's own is not fit for the check


def from_samples(samples: Samples) -> list[Finding]:
    """What the run itself shows: whether gradients vanish. Nothing of an attack that takes none."""
    attacked = samples["attacked"]
    found = []
    if samples["backward"][attacked].any():
        share = float(samples["zero_gradient"][attacked].mean())
        found.append(
            Finding(
                "zero-gradients",
                share <= 0.01,
                f"zero gradients: for {100 * share:.3g}% of the attacked inputs the first gradient is zero everywhere",
                "gradient attacks cannot move there, and the model may look robust without being so (saturated or "
                "rounded outputs, a detached step)",
                "try --loss margin, which does not saturate, or a black-box attack such as square",
            )
        )
    return found


def from_probe(
    samples: Samples,
    attack: Attack,
    model: Model,
    source: Source,
    device: torch.device,
    steps: int | None = None,
    steady: bool = True,
    told: Told = lambda name, share: None,
) -> list[Finding]:
    """What a few attacked inputs show when they are attacked once more. `steps`: all that an input could take.
    `steady`: the model gives the same answer twice; of one that does not, a black box seems to fool some by luck.

    Checks that make no sense for the attack (a box without ends, one change for all inputs) are left out.
    """
    if not samples["attacked"].any() or attack.whole_box:
        return []
    probe = _Probe(samples, attack, model, source, device)
    checks: dict[str, Callable[[], Finding | None]] = {
        "nothing-at-zero": probe.nothing_at_zero,
        "full-box": probe.full_box,
        "larger-eps": probe.larger_eps,
    }
    if steps is not None and steps >= 8:
        checks["enough-steps"] = partial(probe.enough_steps, steps)
    if steady:
        checks["black-box"] = probe.black_box
    found = []
    for number, (name, check) in enumerate(checks.items()):
        told(name.replace("-", " "), number / len(checks))
        try:
            finding = check()
        except RobustgenError:  # an attack that cannot be run at that size: there is nothing to measure
            finding = None
        found += [] if finding is None else [finding]
    return found


@dataclass
class _Probe:
    """A few of the attacked inputs, spread over all of them, and what the run achieved on these."""

    samples: Samples
    attack: Attack
    model: Model
    source: Source
    device: torch.device
    in_full_box: int | None = None

    def __post_init__(self) -> None:
        self.attacked = np.flatnonzero(self.samples["attacked"])
        self.most = min(_MOST, max(_LEAST, len(self.attacked) // 16))
        self.rows = _spread(self.attacked, self.most)
        # what only rounding to levels has undone, the attack has achieved
        self.success = self.samples.get("success_unrounded", self.samples["success"])
        self.fooled = int(self.success[self.rows].sum())

    def run(self, attack: Attack, rows: npt.NDArray[np.int64]) -> tuple[Tensor, AttackResult]:
        """(inputs, result) of an attack on the samples at `rows`."""
        batch = self.source.read(self.samples["index"][rows]).to(self.device)
        aim = torch.from_numpy(self.samples.get("target", self.samples["y"])[rows]).to(self.device)
        with fitting_threads(self.device, batch.x[0].numel()):
            return batch.x, attack.run(self.model, batch.x, aim)

    def count(self, attack: Attack, rows: npt.NDArray[np.int64]) -> int:
        return int(self.run(attack, rows)[1].success.sum())

    def nothing_at_zero(self) -> Finding:
        rows = self.rows[:: max(1, len(self.rows) // 4)][:4]
        nowhere = replace(self.attack.threat, eps=0.0)
        own = replace(self.attack, threat=nowhere, **_shortened(self.attack, 10, 200))
        x, result = self.run(_reference(self.attack, nowhere) if _ensemble(self.attack) else own, rows)
        changed, fooled = int((result.x_adv != x).flatten(1).any(1).sum()), int(result.success.sum())
        return Finding(
            "nothing-at-zero",
            not changed and not fooled,
            f"with eps = 0, {changed} of {len(rows)} inputs were changed and {fooled} counted as fooled",
            "an attack that may change nothing must change nothing, so that something other than the change is counted",
            "see whether the model answers the same input alike each time, and report the attack if it does",
        )

    def full_box(self) -> Finding | None:
        threat = self.attack.threat
        if not math.isfinite(threat.high - threat.low):
            return None
        attack = _in_full_box(self.attack)
        self.in_full_box = self.count(attack, self.rows)
        return Finding(
            "full-box",
            self.in_full_box == len(self.rows),
            f"with the whole box to move in, {type(attack).__name__} fooled {self.in_full_box} of {len(self.rows)} "
            "inputs",
            "any input can be turned into one of another class there, so that an attack that fails has no gradients "
            "to follow (masked gradients), not a robust model before it",
            "try --loss margin or another attack (apgd-dlr, square), and look for rounding, saturated or detached "
            "steps in the model",
        )

    def larger_eps(self) -> Finding | None:
        """After `full_box`, whose count it compares too."""
        counts, tolerance = [], max(1, len(self.rows) // 10)
        eps = self.attack.threat.eps
        if not self.attack.minimal and not self.attack.whole and not _ensemble(self.attack) and eps > 0:
            counts.append((f"eps = {eps / 2:.4g}", self.count(self._half(), self.rows)))
        counts.append((f"eps = {eps:.4g}", self.fooled))
        if self.in_full_box is not None:
            counts.append(("the whole box", self.in_full_box))
        if len(counts) < 2:
            return None
        return Finding(
            "larger-eps",
            all(smaller[1] <= larger[1] + tolerance for smaller, larger in pairwise(counts)),
            f"of {len(self.rows)} inputs, " + ", ".join(f"{count} were fooled with {size}" for size, count in counts),
            "what fools within a small ball fools within a larger one too, so that an attack that finds less there "
            "is led astray",
            "take smaller steps or more of them, several restarts, or an attack that fits its own step size: apgd-ce",
        )

    def _half(self) -> Attack:
        threat = replace(self.attack.threat, eps=self.attack.threat.eps / 2)
        return replace(self.attack, threat=threat, **_scaled(self.attack, 0.5), **_shortened(self.attack, _STEPS, 500))

    def enough_steps(self, steps: int) -> Finding | None:
        """Where much was found late (in a curve: where the most was allowed), twice the steps tell whether more is
        left.
        """
        held, won = self.attacked[~self.success[self.attacked]], self.samples["success"]
        name = "steps" if hasattr(self.attack, "steps") else "queries"
        if not len(held) or self.attack.whole:
            return None
        last = won & (self.samples["eps"] == self.samples["eps"].max())
        late = int((last & (self.samples["first_success"] > 0.75 * steps)).sum())
        measured = f"{late} of {int(won.sum())} successes came in the last quarter of the {steps} {name}"
        more, rows = 0, _spread(held, self.most)
        if late >= 5 and late > 0.02 * len(self.attacked):
            twice: dict[str, Any] = {name: 2 * getattr(self.attack, name)}
            more = self.count(replace(self.attack, **twice), rows)
            measured += f", and twice the {name} fooled {more} of {len(rows)} inputs that held"
        return Finding(
            "enough-steps",
            more < 2 or more <= 0.05 * len(rows),
            measured,
            "the attack was still finding more when it ended, so that robust accuracy is overstated",
            f"take more {name} or restarts" + (", or apgd-ce, which fits its own step size" if name == "steps" else ""),
        )

    def black_box(self) -> Finding | None:
        held = self.attacked[~self.success[self.attacked]]
        threat = self.attack.threat
        if threat.norm not in Square.norms or not self.samples["backward"].any() or self.attack.whole:
            return None
        if not len(held) or not threat.eps:
            return None
        rows = _spread(held, self.most)
        objective = _seen_by_a_black_box(self.attack)
        square = Square(threat=threat, objective=objective, queries=_QUERIES, **_settings(self.attack))
        beaten = rows[self.run(square, rows)[1].success.cpu().numpy()]
        measured = f"{len(beaten)} of {len(rows)} inputs that held fell to {square.queries} random queries (square)"
        if len(beaten) and not _thorough(self.attack):
            pgd = _reference(self.attack, threat)
            missed = beaten[~self.run(pgd, beaten)[1].success.cpu().numpy()]
            measured += f", {len(beaten) - len(missed)} of them also to PGD with {pgd.steps} steps"
            beaten = missed
        return Finding(
            "black-box",
            len(beaten) < 2 or len(beaten) <= 0.05 * len(rows),
            measured,
            "an attack that sees the gradients must not be beaten by one that does not, so that the gradients lead "
            "nowhere (masked gradients) and robust accuracy is overstated",
            "believe the lower figure: run square or auto-attack, or try --loss margin",
        )


def _spread(rows: npt.NDArray[np.int64], most: int) -> npt.NDArray[np.int64]:
    return rows[np.linspace(0, len(rows) - 1, min(most, len(rows))).round().astype(np.int64)]


def _settings(attack: Attack) -> dict[str, Any]:
    return {"seed": attack.seed, "batch_size": attack.batch_size, "eot": attack.eot}


def _objective(attack: Attack) -> Objective:
    """The attack's own, where it can be maximised with one label an input."""
    return Misclassify() if isinstance(attack.objective, Towards) else attack.objective


def _seen_by_a_black_box(attack: Attack) -> Objective:
    """With the margin, which tells points apart even where the model is saturated."""
    objective = _objective(attack)
    return replace(objective, loss=margin) if isinstance(objective, Misclassify) else objective


def _reference(attack: Attack, threat: ThreatModel) -> PGD:
    return PGD(threat=threat, objective=_objective(attack), steps=_STEPS, **_settings(attack))


def _thorough(attack: Attack) -> bool:
    """Whether the attack takes enough steps to be held to what others find; an ensemble does."""
    return _ensemble(attack) or bool(getattr(attack, "steps", 1) >= 10)


def _ensemble(attack: Attack) -> bool:
    """Several attacks in a row, which take long for each input that holds."""
    return len(attack.members) > 1


def _shortened(attack: Attack, steps: int, queries: int) -> dict[str, Any]:
    """At most so many steps or queries, as options of the attack: where less is no matter, or only errs on the safe
    side.
    """
    most = {"steps": steps, "queries": queries}
    return {name: min(value, getattr(attack, name)) for name, value in most.items() if hasattr(attack, name)}


def _scaled(attack: Attack, factor: float) -> dict[str, Any]:
    """A fixed step in proportion to eps, and the search stopped at the first success: as options of the attack."""
    names = {field.name for field in fields(attack)}
    size = getattr(attack, "step_size", None) if "step_size" in names else None
    return ({} if size is None else {"step_size": size * factor}) | ({"mode": "evaluate"} if "mode" in names else {})


def _in_full_box(attack: Attack) -> Attack:
    """The attack with all the room there is; PGD where it is not one that follows gradients for many steps in linf."""
    threat = attack.threat
    box = replace(threat, norm="linf", eps=threat.high - threat.low)
    own = hasattr(attack, "steps") and _thorough(attack) and threat.norm == "linf" and threat.eps > 0
    if own and not attack.minimal and not attack.whole:
        return replace(attack, threat=box, **_scaled(attack, box.eps / threat.eps))
    return _reference(attack, box)
