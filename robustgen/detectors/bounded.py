"""Detectors of which is known how low their score can fall when an input changes a little."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from robustgen.bounds import Box, Method


@runtime_checkable
class Bounded(Protocol):
    """What can say how low its score is at most to be brought in a box, judged against each label."""

    def least(self, x: Box, method: Method = "interval") -> Float[Tensor, "n classes"]:
        """What the score with each label is at least, at any point of n boxes."""
