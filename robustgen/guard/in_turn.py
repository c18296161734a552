"""Channels that are asked one after another, each about what those before it accept."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from robustgen.guard.channel import Channel
from robustgen.guard.combine import Combine


def in_turn(
    channels: Sequence[Channel],
    across: Combine,
    accepts: Callable[[Tensor], Tensor],
    x: Float[Tensor, "n *shape"],
    label: Int64[Tensor, " n"],
) -> Float[Tensor, " n"]:
    """What `channels` say together under "or", as far as a verdict needs it: `accepts` (scores -> which lead to
    acceptance) is as of all of them.

    The channels of fewer members come first. A row that is rejected already is not shown to the next: what it says can
    only raise the score.
    """
    turns = sorted(enumerate(channels), key=lambda turn: len(turn[1].members))
    left, score = torch.arange(len(x), device=x.device), x.new_zeros(0)
    for place, (number, channel) in enumerate(turns):
        rows = (x, label) if len(left) == len(x) else (x[left], label[left])
        part = across.one(number, channel.together(channel.scores(*rows)))
        score = score.index_put((left,), torch.logaddexp(score[left], part.to(score))) if place else part
        left = left[accepts(score.detach()[left])]
        if not len(left):
            break
    return score
