"""A guard as one ordinary classifier, for attacks that know nothing of guards."""

from __future__ import annotations

from typing import final

from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from robustgen.evaluation.adaptive import Guarded, rejection_of
from robustgen.objectives import with_reject_class


@final
class RejectClass(nn.Module):
    """`guard` as a network of one class more than its classifier has: the last one is predicted where it rejects.

    What attacks classifiers, from here or from elsewhere, attacks a guard through it (Carlini, Wagner 2017,
    "Adversarial examples are not easily detected: bypassing ten detection methods"); logits are raised until they are
    positive, and a score's excess is in units of the middle clean scores' half-width. An attack that is satisfied with
    any other class is satisfied with "rejected" too, so aim at a class: a targeted attack towards a wrong one.

    >>> joined = RejectClass(guard)  # doctest: +SKIP
    >>> x_adv = PGD(threat=threat, objective=Misclassify(targeted=True))(joined, x, wrong)  # doctest: +SKIP
    >>> lost = joined.passed(x_adv, y)  # doctest: +SKIP
    """

    def __init__(self, guard: Guarded) -> None:
        super().__init__()
        self.guard = guard
        self.rejection = rejection_of(guard)

    def forward(self, x: Float[Tensor, "n *shape"]) -> Float[Tensor, "n classes"]:
        """(n, classes + 1) logits, differentiable in `x` where the guard's score is."""
        with self.rejection.sharing():
            logits = self.guard.classifier(x)
            score, _ = self.rejection(x, logits.argmax(1))
        return with_reject_class(logits, (score.double() - self.rejection.threshold) / self.rejection.scale)

    def passed(self, x: Float[Tensor, "n *shape"], y: Int64[Tensor, " n"]) -> Bool[Tensor, " n"]:
        """Where the guard accepts inputs with another label than `y`: what counts as success against a guard."""
        logits: Tensor = self(x)
        predicted = logits.argmax(1)
        return (predicted != y) & (predicted < logits.shape[1] - 1)
