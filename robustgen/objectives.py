"""What an attack maximises, and when it has what it wanted.

A loss turns logits and labels into one number per input that grows as the label loses. An objective joins a loss to a
verdict; both come from one forward pass, so that an attack can stop a row as soon as it is settled.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from robustgen.registry import Entry

Model = Callable[[Tensor], Tensor]
"""(n, *shape) in [low, high] -> logits (n, classes); it normalises inside."""

Loss = Callable[[Tensor, Tensor], Tensor]
"""(logits (n, classes), y (n,)) -> (n,), larger where `y` is less likely to be predicted."""

LOSSES = {
    "cross-entropy": Entry("robustgen.objectives:cross_entropy", "minus the log-probability of the label"),
    "margin": Entry("robustgen.objectives:margin", "best other logit minus the label's (Carlini, Wagner 2017)"),
    "dlr": Entry("robustgen.objectives:dlr", "difference of logits ratio, blind to scale (Croce, Hein 2020)"),
}


def cross_entropy(logits: Float[Tensor, "n classes"], y: Int64[Tensor, " n"]) -> Float[Tensor, " n"]:
    """-log softmax(logits)[y], per input: summing instead of averaging keeps gradients free of the batch size."""
    return torch.nn.functional.cross_entropy(logits, y, reduction="none")


def margin(logits: Float[Tensor, "n classes"], y: Int64[Tensor, " n"]) -> Float[Tensor, " n"]:
    """max over k != y of logits[k], minus logits[y]: positive exactly when y is not predicted (Carlini, Wagner 2017,
    f6).
    """
    own = logits.gather(1, y[:, None])
    others = logits.scatter(1, y[:, None], -torch.inf)
    return (others.amax(1, keepdim=True) - own)[:, 0]


def dlr(logits: Float[Tensor, "n classes"], y: Int64[Tensor, " n"]) -> Float[Tensor, " n"]:
    """The margin over (largest - third largest logit) (Croce, Hein 2020, eq. 6); the plain margin below three
    classes.
    """
    if logits.shape[1] < 3:
        return margin(logits, y)
    top = logits.topk(3, dim=1).values
    return margin(logits, y) / (top[:, 0] - top[:, 2] + 1e-12)


def dlr_towards(
    logits: Float[Tensor, "n classes"], y: Int64[Tensor, " n"], target: Int64[Tensor, " n"]
) -> Float[Tensor, " n"]:
    """The target's logit minus the label's, over (largest - mean of third and fourth largest) (Croce, Hein 2020,
    eq. 7); the plain difference below four classes.
    """
    if logits.shape[1] < 4:
        return difference(logits, y, target)
    top = logits.topk(4, dim=1).values
    return difference(logits, y, target) / (top[:, 0] - (top[:, 2] + top[:, 3]) / 2 + 1e-12)


def difference(
    logits: Float[Tensor, "n classes"], y: Int64[Tensor, " n"], target: Int64[Tensor, " n"]
) -> Float[Tensor, " n"]:
    """The target's logit minus the label's: zero on the boundary between the two."""
    return (logits.gather(1, target[:, None]) - logits.gather(1, y[:, None]))[:, 0]


@runtime_checkable
class Objective(Protocol):
    """What is to be maximised: `value` (n,), differentiable in `x`, and `achieved` (n,), the attacker's verdict."""

    def __call__(
        self, model: Model, x: Float[Tensor, "n *shape"], y: Int64[Tensor, "n *label"]
    ) -> tuple[Float[Tensor, " n"], Bool[Tensor, " n"]]: ...


@dataclass(frozen=True)
class Misclassify:
    """Make the model predict anything but `y`; with `targeted`, make it predict exactly `y`.

    The targeted `dlr` is `dlr_towards` the target, away from the best other class.
    """

    loss: Loss = cross_entropy
    targeted: bool = False

    def __call__(
        self, model: Model, x: Float[Tensor, "n *shape"], y: Int64[Tensor, " n"]
    ) -> tuple[Float[Tensor, " n"], Bool[Tensor, " n"]]:
        logits = model(x)
        predicted = logits.argmax(1)
        if not self.targeted:
            return self.loss(logits, y), predicted != y
        if self.loss is dlr:
            rival = logits.detach().scatter(1, y[:, None], -torch.inf).argmax(1)
            return dlr_towards(logits, rival, y), predicted == y
        return -self.loss(logits, y), predicted == y


@dataclass(frozen=True)
class Towards:
    """Make the model predict anything but the label by moving towards one chosen class; `y` (n, 2) is label, target."""

    loss: Callable[[Tensor, Tensor, Tensor], Tensor] = dlr_towards

    def __call__(
        self, model: Model, x: Float[Tensor, "n *shape"], y: Int64[Tensor, "n 2"]
    ) -> tuple[Float[Tensor, " n"], Bool[Tensor, " n"]]:
        logits = model(x)
        label, target = y.unbind(1)
        return self.loss(logits, label, target), logits.argmax(1) != label
