"""Is this a model an attack can say something about? Checked before every attack, told in plain words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from robustgen.attacks.base import check_inputs
from robustgen.attacks.passes import evaluated
from robustgen.errors import RobustgenError, UsageError
from robustgen.objectives import Model
from robustgen.threat import ThreatModel


@dataclass(frozen=True)
class Finding:
    """One thing that must hold where a robust accuracy is to be believed: what was measured, what it means, what to
    do about it.
    """

    name: str
    holds: bool
    measured: str
    meaning: str
    advice: str

    @property
    def warning(self) -> str:
        """One sentence, for where it does not hold."""
        return f"{self.measured}: {self.meaning}: {self.advice}"


class Checked(NamedTuple):
    """What was seen before the attack: warnings about the model, and whether its outputs are the same each time."""

    warnings: list[str]
    steady: Finding


def check_model(
    model: Model,
    threat: ThreatModel,
    x: Float[Tensor, "n *shape"],
    y: Int64[Tensor, " n"],
    classes: int | None = None,
    eot: int = 1,
) -> Checked:
    """What two passes over a few inputs `x` with labels `y` tell of `model`. `classes`: how many the data has; `eot`:
    how many draws the attack averages.

    Raises `UsageError` where an attack would be meaningless: inputs outside the box, a model that cannot take them,
    outputs that are not (n, classes), fewer outputs than labels, NaN outputs.
    """
    check_inputs(threat, x, y)
    with evaluated(model), torch.no_grad():
        logits, again = _probe(model, x, y, classes)
    warnings = []
    if classes is not None and logits.shape[1] > classes:
        warnings.append(
            f"wrong number of classes: the model has {logits.shape[1]} outputs and the data {classes} classes; an "
            "untargeted attack may succeed by a class that the data does not have"
        )
    if bool((logits >= 0).all()) and torch.allclose(logits.sum(1), torch.ones_like(logits[:, 0]), atol=1e-3):
        warnings.append(
            "probabilities instead of logits: the outputs are positive and sum to 1; gradients vanish where the model "
            "is sure, so attacks look weaker than they are: return the values before the softmax"
        )
    change = (logits - again).abs().max().item() / logits.std().clamp(min=1e-12).item()
    return Checked(warnings, _steady(change, eot))


def _steady(change: float, eot: int) -> Finding:
    same = change <= 1e-4
    measured = "outputs that are the same in two calls on the same input"
    if not same:
        measured = f"outputs that change between two calls on the same input (by up to {change:.2g} of their spread)"
    return Finding(
        "steady-outputs",
        same or eot > 1,
        measured + (f"; every pass averages {eot} draws" if eot > 1 else ""),
        "the model is random, and an attack that sees one draw of it overstates robustness",
        "switch the randomness off, or let the attack average over draws with --eot 20",
    )


def _probe(model: Model, x: Tensor, y: Tensor, classes: int | None) -> tuple[Tensor, Tensor]:
    """(logits, logits of a second call), after checking that they are what they should be."""
    try:
        logits, again = model(x), model(x)
    except RobustgenError:
        raise
    except Exception as error:  # the user's model may raise anything
        reason = str(error).splitlines()[0] if str(error) else ""
        raise UsageError(
            f"the model cannot take {len(x)} inputs of shape {tuple(x.shape[1:])} ({type(error).__name__}: {reason}): "
            "give the data it was made for, or wrap or export it so that it takes any number of such inputs"
        ) from error
    if not isinstance(logits, Tensor) or logits.dim() != 2 or len(logits) != len(x) or logits.shape[1] < 2:
        came = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise UsageError(
            f"a classifier returns logits of shape (n, classes) with at least 2 classes, but {came} came for {len(x)} "
            "inputs"
        )
    if not torch.isfinite(logits).all():
        raise UsageError(
            "the model returns NaN or infinite values on clean inputs: check its weights and its normalisation"
        )
    highest = max([*y.tolist(), (classes or 0) - 1])
    if highest >= logits.shape[1]:
        raise UsageError(
            f"wrong number of classes: the labels go up to {highest}, but the model has {logits.shape[1]} outputs (0 "
            f"to {logits.shape[1] - 1}): give the data it was trained on, or the model for this data"
        )
    return logits, again
