"""Several p-values as one number: what members of a guard say together. Higher = more suspicious."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, final, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn

from robustgen.errors import UsageError
from robustgen.registry import suggestion

How = Literal["fisher", "smallest", "cauchy", "harmonic", "weighted", "or"]

_FAR = 12.0
"""-log p from where on cot(pi p) is 1 / (pi p) to within 1e-9."""
_LARGEST_P = 0.99
"""Beyond it one member that finds an input very normal would silence all others (truncated Cauchy combination, Fang,
Chang, Park, Tseng 2023, "Heavy-tailed distribution for combining dependent p-values with asymptotic robustness")."""


@final
class Combine(nn.Module):
    """(k, n) -log p of k members for n inputs -> (n,) one number, increasing in each of them and smooth in most.

    "fisher": the sum of -log p (Fisher 1932). "smallest": the largest -log p (Tippett 1931). "cauchy": the mean of
    cot(pi p) (Liu, Xie 2020), on a logarithmic scale. "harmonic": log mean 1 / p (Wilson 2019). "or": log sum w / p, by
    which an input is suspicious as soon as one member finds it so, with the members' `shares` as weights w. "weighted":
    the sum of -log p with weights from normal inputs alone, those of the least variance, so that members that say the
    same share one say; see `prepare`.

    None of these needs the members to be independent here: what they give is calibrated again on further normal inputs.
    `shares`: of "or" alone, what part of the false alarms each member may cause, in any unit; None = all the same (a
    Bonferroni correction with weights: Holm 1979; Genovese, Roeder, Wasserman 2006). Raises `UsageError` for another
    name, or shares that are not numbers above 0, one a member.
    """

    weights: Tensor

    def __init__(self, how: str, members: int, shares: Sequence[float] | None = None) -> None:
        super().__init__()
        if how not in get_args(How):
            raise UsageError(suggestion(how, get_args(How), "way to combine detectors"))
        self.how = how
        weights = torch.ones(members, dtype=torch.float64)
        if shares is not None:
            if how != "or":
                raise UsageError(f"shares say how 'or' divides the false alarms, and the way to combine is {how!r}")
            if len(shares) != members or not all(math.isfinite(share) and share > 0 for share in shares):
                raise UsageError(f"shares are {members} numbers above 0, but {list(shares)} came")
            weights = torch.tensor(shares, dtype=torch.float64)
            weights = weights / weights.mean()
        self.register_buffer("weights", weights)

    def prepare(self, evidence: Float[Tensor, "k m"]) -> None:
        """Learn the weights of "weighted" from normal inputs: the w >= 0 of sum k that make the variance of their sum
        least, by a covariance shrunk towards its diagonal (Ledoit, Wolf 2004).
        """
        if self.how != "weighted" or len(evidence) == 1:
            return
        import numpy as np
        from scipy.optimize import nnls
        from sklearn.covariance import ledoit_wolf

        covariance, _ = ledoit_wolf(evidence.double().T.cpu().numpy())
        k = len(covariance)
        # least |L' w| where the sum of w weighs so much that it is met to rounding
        heavy = 1e4 * float(np.trace(covariance)) ** 0.5
        rows = np.vstack([np.linalg.cholesky(covariance).T, np.full((1, k), heavy)])
        found, _ = nnls(rows, np.r_[np.zeros(k), heavy])
        self.weights = torch.from_numpy(found / found.sum() * k).to(self.weights)

    def forward(self, evidence: Float[Tensor, "k n"]) -> Float[Tensor, " n"]:
        if self.how == "fisher":
            return evidence.sum(0)
        if self.how == "weighted":
            return (self.weights.to(evidence)[:, None] * evidence).sum(0)
        if self.how == "smallest":
            return evidence.amax(0)
        if self.how == "cauchy":
            return _cauchy(evidence)
        return self.each(evidence).logsumexp(0) - (math.log(len(evidence)) if self.how == "harmonic" else 0.0)

    def each(self, evidence: Float[Tensor, "k n"]) -> Float[Tensor, "k n"]:
        """What counts of each member's evidence: of "or", with its share."""
        return evidence + self.weights.log().to(evidence)[:, None] if self.how == "or" else evidence

    def one(self, member: int, evidence: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
        """Of "or", what counts of one member's evidence."""
        return evidence + self.weights[member].log().to(evidence)


def in_order(shares: Mapping[str, float], channels: Iterable[str]) -> list[float]:
    """The shares as the channels come. Raises `UsageError` if they are not those of these channels."""
    names = list(channels)
    if set(shares) != set(names):
        raise UsageError(
            f"shares are given of every channel ({', '.join(names)}), but of {', '.join(shares) or 'none'} came"
        )
    return [shares[name] for name in names]


def _cauchy(evidence: Tensor) -> Tensor:
    """asinh of the mean of cot(pi p): of the same order, without overflow."""
    far = evidence.amax(0) > _FAR
    p = torch.exp(-evidence.clamp(-math.log(_LARGEST_P), _FAR))
    near = torch.asinh((1 / torch.tan(math.pi * p)).mean(0))
    tail = evidence.logsumexp(0) - math.log(len(evidence)) + math.log(2 / math.pi)
    return torch.where(far, tail, near)
