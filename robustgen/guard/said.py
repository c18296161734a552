"""What a guard says of inputs."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor

from robustgen.metrics import Array


class GuardOutput(NamedTuple):
    """For n inputs: the classifier's logits (n, classes), scores (n,), and which inputs are accepted (n,)."""

    logits: Tensor
    score: Tensor
    accepted: Tensor


class GuardVerdicts(NamedTuple):
    """For n inputs, each (n,): the predicted class, the score, its p-value among normal inputs, whether it is rejected,
    the verdict ("normal", or the channels that reject it, joined by "+"), and -log p by channel.
    """

    label: Any
    score: Array
    p_value: Array
    flagged: Any
    verdict: list[str]
    channels: dict[str, Array]
