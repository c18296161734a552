"""How little suspicious a guard can be made to find an input that changes by so much: a proof, not an attack."""

from __future__ import annotations

from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor

from robustgen.bounds import Box, Method
from robustgen.detectors.bounded import Bounded
from robustgen.detectors.evidence import Evidence
from robustgen.errors import UsageError
from robustgen.guard.channel import Channel, Member
from robustgen.guard.guard import Guard

_ROUNDING = 1e-5  # relative to 1 + a value: more than float32 errs in any step from scores to p-values


def least_score(guard: Guard, x: Box, method: Method = "interval") -> Float[Tensor, "n classes"]:
    """What the guard's score is at least at any point of n boxes at which a class is predicted, for each class.

    From the members' least scores on: p-values, and what combines them, increase with every score. A member of which no
    bound is known may find any input as normal as can be, -inf; that leaves nothing of a sum (Fisher), and takes
    nothing away from the largest, nor from "or". Raises `UsageError` if there are bounds of no member.
    """
    if not any(bounded(member) for channel in guard.parts.values() for member in channel.everyone):
        raise UsageError(
            f"no bounds are known of the scores of {guard.name}: nothing can be proven with it; a guard with "
            "certified-gat or gat as a member has some"
        )
    classes = _classes(guard)
    parts = [_members(channel, x, classes, method) for channel in guard.parts.values()]
    if guard.single:
        return parts[0][0]
    together = [_together(channel, part.flatten(1)) for channel, part in zip(guard.parts.values(), parts, strict=True)]
    return _lowered(guard.across(torch.stack(together))).reshape(parts[0].shape[1:])


def bounded(member: Member) -> bool:
    """Whether it judges the inputs themselves by a score of which bounds are known."""
    return isinstance(member.detector, Bounded) and member.features is None


def _classes(guard: Guard) -> int:
    found = {
        cast(int, getattr(member.detector, "classes"))  # noqa: B009
        for channel in guard.parts.values()
        for member in channel.everyone
        if bounded(member)
    }
    return found.pop()


def _members(channel: Channel, x: Box, classes: int, method: Method) -> Tensor:
    """(members, n, classes)"""
    nothing = x.centre.new_full((len(x.centre), classes), -torch.inf)
    return torch.stack(
        [cast(Bounded, member.detector).least(x, method) if bounded(member) else nothing for member in channel.everyone]
    )


def _together(channel: Channel, scores: Tensor) -> Tensor:
    """What `Channel.together` makes of scores, less what rounding can take away at each step."""
    known = cast(list[Evidence], list(channel.evidence))
    apart = torch.stack([_lowered(evidence(score)) for evidence, score in zip(known, scores, strict=True)])
    return _lowered(channel.own(_lowered(channel.combine(apart))))


def _lowered(value: Tensor) -> Tensor:
    value = torch.where(value.isnan(), -torch.inf, value)  # 0 times -inf
    return value - _ROUNDING * (1 + value.abs())
