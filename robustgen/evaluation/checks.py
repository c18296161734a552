"""Is this a model an attack can say something about? Checked before every attack, told in plain words."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from robustgen.attacks.base import check_inputs
from robustgen.attacks.passes import evaluated
from robustgen.errors import RobustgenError, UsageError
from robustgen.objectives import Model, cross_entropy
from robustgen.threat import ThreatModel


def check_model(
    model: Model, threat: ThreatModel, x: Float[Tensor, "n *shape"], y: Int64[Tensor, " n"], classes: int | None = None
) -> list[str]:
    """Warnings about `model`, from a few inputs `x` with labels `y`; an empty list is good. `classes`: how many the
    data has.

    Raises `UsageError` where an attack would be meaningless: inputs outside the box, a model that cannot take them,
    outputs that are not (n, classes), fewer outputs than labels, NaN outputs.
    """
    check_inputs(threat, x, y)
    with evaluated(model):
        logits, again, gradient = _probe(model, x, y, classes)
    warnings = []
    if classes is not None and logits.shape[1] > classes:
        warnings.append(
            f"wrong number of classes: the model has {logits.shape[1]} outputs and the data {classes} classes; an "
            "untargeted attack may "
            f"succeed by a class that the data does not have"
        )
    if bool((logits >= 0).all()) and torch.allclose(logits.sum(1), torch.ones_like(logits[:, 0]), atol=1e-3):
        warnings.append(
            "probabilities instead of logits: the outputs are positive and sum to 1; gradients vanish where the model "
            "is sure, so "
            "attacks look weaker than they are: return the values before the softmax"
        )
    spread = logits.std().clamp(min=1e-12)
    if bool(((logits - again).abs() > 1e-4 * spread).any()):
        warnings.append(
            "outputs that change between two calls on the same input: the model is random, and an attack on one draw "
            "overstates robustness: switch the randomness off or average over draws"
        )
    zero = (gradient == 0).flatten(1).all(1).float().mean().item()
    if zero > 0.05:
        warnings.append(
            f"zero gradients: for {zero:.0%} of the inputs the loss has no gradient at all, so gradient attacks "
            "cannot move; "
            "the model may look robust without being so (saturated or rounded outputs, a detached step): try the "
            "margin loss or a "
            f"black-box attack"
        )
    return warnings


def _probe(model: Model, x: Tensor, y: Tensor, classes: int | None) -> tuple[Tensor, Tensor, Tensor]:
    """(logits, logits of a second call, input gradient of the loss), after checking that they are what they should
    be.
    """
    point = x.detach().clone().requires_grad_()
    try:
        with torch.enable_grad():
            logits = model(point)
        with torch.no_grad():
            again = model(x)
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
    gradient = torch.zeros_like(x)
    if logits.requires_grad:
        found = torch.autograd.grad(cross_entropy(logits, y).sum(), point, allow_unused=True)[0]
        gradient = gradient if found is None else found
    return logits.detach(), again.detach(), gradient
