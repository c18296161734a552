"""What an attack maximises, and when it has what it wanted.

A loss turns logits and labels into one number per input that grows as the label loses. An objective joins a loss to a
verdict; both come from one forward pass, so that an attack can stop a row as soon as it is settled.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn.functional import softsign

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


Score = Callable[[Tensor, Tensor], Tensor]
"""(inputs (n, *shape), the labels (n,) they are judged against) -> anomaly scores (n,), differentiable in the
inputs.
"""

Way = Literal["selective", "orthogonal", "lagrangian"]


@dataclass(frozen=True)
class Evade:
    """Make the model predict anything but `y`, and a detector accept the input; with `targeted`, make it predict
    exactly `y`.

    `score`: the detector's, of inputs judged against labels (those predicted, or the target); accepted is what scores
    at most `threshold`. The steps follow one of three ways. "selective": towards a wrong label while the margin is
    below `slack` logits, from there on towards a lower score (Bryniarski et al. 2021, "Evading adversarial example
    detection defenses with orthogonal projected gradient descent"). "orthogonal": likewise, each step without its
    component along the other gradient (same source). "lagrangian": both at once, gradients of unit length, the score's
    times `weight`; one whose aim is reached no longer pulls. `value` ranks points: any with a wrong label above any
    without, among them by the score.
    """

    score: Score
    threshold: float
    way: Way = "selective"
    targeted: bool = False
    slack: float = 0.05
    weight: float = 1.0

    def __call__(
        self, model: Model, x: Float[Tensor, "n *shape"], y: Int64[Tensor, " n"]
    ) -> tuple[Float[Tensor, " n"], Bool[Tensor, " n"]]:
        logits = model(x)
        predicted = logits.argmax(1)
        reached = predicted == y if self.targeted else predicted != y
        lead = -margin(logits, y) if self.targeted else margin(logits, y)
        score = self.score(x, y if self.targeted else predicted)
        achieved = reached & (score <= self.threshold)
        excess = (score - self.threshold).detach()
        # both halves squashed into ranges of their own: (0, 2) where the label is wrong, (-2, 0) where it is not
        rank = torch.where(reached, 1 - softsign(excess), softsign(lead.detach().clamp(max=0)) - 1)
        if not x.requires_grad:
            return rank, achieved
        direction = self._direction(lead, score, x)
        return rank + (direction * (x - x.detach())).flatten(1).sum(1), achieved

    def _direction(self, lead: Tensor, score: Tensor, x: Tensor) -> Tensor:
        """Where to go from each point: what the value has for its gradient."""
        to_fool, to_pass = _slope(lead, x), -_slope(score, x)
        fooled = (lead > self.slack).reshape(-1, *[1] * (x.dim() - 1))
        if self.way == "lagrangian":
            detected = (score > self.threshold).reshape(fooled.shape)
            return ~fooled * _unit(to_fool) + self.weight * detected * _unit(to_pass)
        if self.way == "orthogonal":
            to_fool, to_pass = _without(to_fool, to_pass), _without(to_pass, to_fool)
        return torch.where(fooled, to_pass, to_fool)


def _slope(value: Tensor, x: Tensor) -> Tensor:
    """The gradient of each row's value, zero where there is none."""
    if not value.requires_grad:
        return torch.zeros_like(x)
    found = torch.autograd.grad(value.sum(), x, retain_graph=True, allow_unused=True)[0]
    return torch.zeros_like(x) if found is None else torch.nan_to_num(found, nan=0.0, posinf=0.0, neginf=0.0)


def _unit(direction: Tensor) -> Tensor:
    """Each row at length 1, or 0."""
    largest = direction.flatten(1).abs().amax(1).reshape(-1, *[1] * (direction.dim() - 1))
    scaled = direction / torch.where(largest > 0, largest, 1)  # before squaring: small gradients keep their direction
    length = torch.linalg.vector_norm(scaled.flatten(1), dim=1).reshape(largest.shape)
    return scaled / torch.where(length > 0, length, 1)


def _without(direction: Tensor, other: Tensor) -> Tensor:
    """Each row's component orthogonal to the other's."""
    unit = _unit(other)
    along = (direction * unit).flatten(1).sum(1).reshape(-1, *[1] * (direction.dim() - 1))
    return direction - along * unit
