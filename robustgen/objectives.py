"""What an attack maximises, and when it has what it wanted.

A loss turns logits and labels into one number per input that grows as the label loses. An objective joins a loss to a
verdict; both come from one forward pass, so that an attack can stop a row as soon as it is settled.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
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
    """The margin over (largest - third largest logit) (Croce, Hein 2020); the plain margin below three
    classes.
    """
    if logits.shape[1] < 3:
        return margin(logits, y)
    top = logits.topk(3, dim=1).values
    return margin(logits, y) / (top[:, 0] - top[:, 2] + 1e-12)


def dlr_towards(
    logits: Float[Tensor, "n classes"], y: Int64[Tensor, " n"], target: Int64[Tensor, " n"]
) -> Float[Tensor, " n"]:
    """The target's logit minus the label's, over (largest - mean of third and fourth largest) (Croce, Hein
    2020); the plain difference below four classes.
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


def with_reject_class(logits: Float[Tensor, "n classes"], excess: Float[Tensor, " n"]) -> Float[Tensor, "n more"]:
    """(n, classes + 1): a classifier and its detector as one network, whose last class is "rejected" (Carlini, Wagner
    2017, "Adversarial examples are not easily detected: bypassing ten detection methods").

    `excess`: how far the score lies above its threshold, in any unit. The logits are raised until a row's least is 1;
    the last is the largest of them times 1 + excess, the largest of all exactly where `excess` is above 0,
    or no number.
    """
    raised = logits - logits.amin(1, keepdim=True) + 1
    top = raised.amax(1)
    last = top * (1 + torch.nan_to_num(excess.to(top.dtype), nan=1e30, posinf=1e30, neginf=-1e30))
    above = torch.maximum(last, torch.nextafter(top, torch.full_like(top, torch.inf)))
    exact = torch.where(excess <= 0, torch.minimum(last, top), above)
    return torch.cat([raised, (last + (exact - last).detach())[:, None]], 1)


def divergence(reference: Float[Tensor, "n classes"], logits: Float[Tensor, "n classes"]) -> Float[Tensor, " n"]:
    """KL(p || q) in nats, of the class probabilities p and q that two rows of logits stand for; 0 where they agree."""
    log_p, log_q = reference.log_softmax(1), logits.log_softmax(1)
    return (log_p.exp() * (log_p - log_q)).sum(1)


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


@dataclass(frozen=True, eq=False)
class Diverge:
    """Make the model say something else than `reference`, logits (m, classes): the divergence from them, whatever the
    label is (the inner maximum of TRADES, Zhang et al. 2019). `y` (n,) are the inputs' places among its rows. Its
    gradient at an input whose reference is what the model says there is zero: begin elsewhere.
    """

    reference: Float[Tensor, "m classes"]

    def __call__(
        self, model: Model, x: Float[Tensor, "n *shape"], y: Int64[Tensor, " n"]
    ) -> tuple[Float[Tensor, " n"], Bool[Tensor, " n"]]:
        logits, reference = model(x), self.reference[y]
        return divergence(reference, logits), logits.argmax(1) != reference.argmax(1)


Score = Callable[[Tensor, Tensor], Tensor]
"""(inputs (n, *shape), the labels (n,) they are judged against) -> anomaly scores (n,), differentiable in the
inputs.
"""

Way = Literal["selective", "orthogonal", "lagrangian", "reject-class"]


@dataclass(frozen=True)
class Rejection:
    """How a detector judges an input beside a label: it rejects what scores above `threshold`.

    `scale`: the unit in which an excess over the threshold is measured, such as the spread of clean scores. `draws`: of
    a score that draws random numbers; then the score is their mean, whose gradient is the mean gradient, and an input
    is accepted when at least half of the draws are (expectation over transformation, Athalye et al. 2018). `sharing`:
    entered for each look at a point, so that model and score may share what they both compute.
    """

    score: Score
    threshold: float
    scale: float = 1.0
    draws: int = 1
    sharing: Callable[[], AbstractContextManager[None]] = nullcontext

    def __call__(
        self, x: Float[Tensor, "n *shape"], label: Int64[Tensor, " n"]
    ) -> tuple[Float[Tensor, " n"], Bool[Tensor, " n"]]:
        """(scores (n,), differentiable in `x`; accepted (n,)). A score that is no number is a rejection."""
        if self.draws == 1:
            score = self.score(x, label)
            return score, score.detach().double() <= self.threshold
        scores = torch.stack([self.score(x, label) for _ in range(self.draws)])
        return scores.mean(0), (scores.detach().double() <= self.threshold).double().mean(0) >= 0.5

    def where(
        self, needed: Bool[Tensor, " n"], x: Float[Tensor, "n *shape"], label: Int64[Tensor, " n"]
    ) -> tuple[Float[Tensor, " n"], Bool[Tensor, " n"]]:
        """The same of the rows `needed` alone, whatever the others are; those get 0, and are not accepted."""
        if bool(needed.all()):
            return self(x, label)
        row = needed.nonzero()[:, 0]
        score, accepted = x.new_zeros(len(x)), torch.zeros_like(needed)
        if len(row):
            found, accepts = self(x[row], label[row])
            score = score.to(found.dtype).index_put((row,), found)
            accepted[row] = accepts
        return score, accepted

    def excess(self, score: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
        """How far scores lie above the threshold, in units of `scale`; no gradient."""
        return torch.nan_to_num((score.detach() - self.threshold) / self.scale, nan=1e30, posinf=1e30, neginf=-1e30)


def ranked(wrong: Bool[Tensor, " n"], lead: Float[Tensor, " n"], excess: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    """Any point with a `wrong` label above any without, among them by the score: (0, 2) there, by how little `excess`
    is left, and (-2, 0) elsewhere, by how far the wrong label is from its `lead`. No gradient.
    """
    over = excess.clamp(min=0)
    passing = 1 / (1 + over) + excess.clamp(max=0).neg() / (1 + excess.abs())  # not 1 - over / (1 + over): no digits
    return torch.where(wrong, passing, softsign(lead.detach().clamp(max=0)) - 1)


def steered(
    rank: Float[Tensor, " n"], direction: Float[Tensor, "n *shape"], x: Float[Tensor, "n *shape"]
) -> Float[Tensor, " n"]:
    """`rank`, with `direction` for its gradient."""
    return rank + (direction * (x - x.detach())).flatten(1).sum(1)


@dataclass(frozen=True)
class Evade:
    """Make the model predict anything but the label, and a detector accept the input.

    `y` holds labels (n,), or (n, 2) a label and a class to move towards; any accepted wrong label is a success. The
    detector judges an input against the class predicted (on the way to a class, against that class).

    The steps follow one of four ways. "selective": towards a wrong label while the margin is below `slack` logits,
    from there on towards a lower score (Bryniarski et al. 2021, "Evading adversarial example detection defenses with
    orthogonal projected gradient descent"). "orthogonal": likewise, each step without its component along the other
    gradient (same source; its equation 6 prints the two projections swapped). "lagrangian": both at once, gradients of
    unit length, the score's times `weight`; one whose aim is reached no longer pulls. "reject-class": up the margin of
    the class moved towards, or of the best wrong one, in a network that has "rejected" as one more class
    (`with_reject_class`). `value` ranks points (`ranked`).
    """

    rejection: Rejection
    way: Way = "selective"
    slack: float = 0.05
    weight: float = 1.0

    def __call__(
        self, model: Model, x: Float[Tensor, "n *shape"], y: Int64[Tensor, "n *aim"]
    ) -> tuple[Float[Tensor, " n"], Bool[Tensor, " n"]]:
        label, target = (y, None) if y.dim() == 1 else y.unbind(1)
        with self.rejection.sharing():
            logits = model(x)
            predicted = logits.argmax(1)
            wrong = predicted != label
            lead = margin(logits, label) if target is None else -margin(logits, target)
            beside = predicted if target is None else torch.where(wrong, predicted, target)
            needed = wrong | (lead.detach() > self.slack)  # elsewhere a score plays no part, but for ways that mix
            whole = x.requires_grad and self.way != "selective"
            score, accepted = self.rejection.where(needed | whole, x, beside)
        rank = ranked(wrong, lead, self.rejection.excess(score))
        if x.requires_grad:
            joint = self._joint(logits, score, label, target) if self.way == "reject-class" else None
            rank = steered(rank, self._direction(lead, score, x) if joint is None else slope(joint, x), x)
        return rank, wrong & accepted

    def _joint(self, logits: Tensor, score: Tensor, label: Tensor, target: Tensor | None) -> Tensor:
        """By how much a class that counts as success leads in the network with one more class."""
        every = with_reject_class(logits, (score - self.rejection.threshold) / self.rejection.scale)
        if target is not None:
            return -margin(every, target)
        wrong = every[:, :-1].scatter(1, label[:, None], -torch.inf).amax(1)
        return wrong - torch.maximum(every.gather(1, label[:, None])[:, 0], every[:, -1])

    def _direction(self, lead: Tensor, score: Tensor, x: Tensor) -> Tensor:
        """Where to go from each point: what the value has for its gradient. A gradient that no row needs is spared."""
        fooled, detected = lead.detach() > self.slack, score.detach() > self.rejection.threshold
        both = self.way == "orthogonal"
        to_fool = slope(lead, x) if both or not fooled.all() else torch.zeros_like(x)
        to_pass = -slope(score, x) if both or (detected if self.way == "lagrangian" else fooled).any() else to_fool
        fooled = fooled.reshape(-1, *[1] * (x.dim() - 1))
        if self.way == "lagrangian":
            return ~fooled * _unit(to_fool) + self.weight * detected.reshape(fooled.shape) * _unit(to_pass)
        if both:
            to_fool, to_pass = _without(to_fool, to_pass), _without(to_pass, to_fool)
        return torch.where(fooled, to_pass, to_fool)


@dataclass(frozen=True)
class Accept:
    """Make a detector accept the input, whatever the label is: what an attack on the detector alone maximises."""

    rejection: Rejection

    def __call__(
        self, model: Model, x: Float[Tensor, "n *shape"], y: Int64[Tensor, " n"]
    ) -> tuple[Float[Tensor, " n"], Bool[Tensor, " n"]]:
        with torch.no_grad():
            predicted = model(x).argmax(1)
        score, accepted = self.rejection(x, predicted)
        return -score, accepted


@dataclass(frozen=True)
class VerdictOnly:
    """Get a wrong label accepted, told no more than what a user of the guard sees: the label, and accepted or not.

    `value`: 2 for a wrong label that is accepted, 1 for one that is not, 0 for the right one; no gradient.
    """

    rejection: Rejection

    def __call__(
        self, model: Model, x: Float[Tensor, "n *shape"], y: Int64[Tensor, " n"]
    ) -> tuple[Float[Tensor, " n"], Bool[Tensor, " n"]]:
        with torch.no_grad(), self.rejection.sharing():
            predicted = model(x).argmax(1)
            wrong = predicted != y
            accepted = self.rejection.where(wrong, x, predicted)[1]
        return wrong.to(x.dtype) + (wrong & accepted), wrong & accepted


def slope(value: Tensor, x: Tensor) -> Tensor:
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
