"""How the training of a detector went, kept with it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol, final, runtime_checkable

import torch
from torch import Tensor, nn

from robustgen.errors import RobustgenError
from robustgen.training import monitor
from robustgen.training.two_players import Round

_JUDGED = "anomalies it was judged by, AUROC"


@final
class Record(nn.Module):
    """The facts named `names` of each round of a game, and how the judge found it; NaN where there was none. Records of
    detectors that were fitted before the last of the names were kept lack these.
    """

    rounds: Tensor

    def __init__(self, *names: str) -> None:
        super().__init__()
        self.names = names
        self.register_buffer("rounds", torch.empty(0, len(names) + 1))

    @property
    def _kept(self) -> tuple[str, ...]:
        return self.names[: self.rounds.shape[1] - 1]

    def keep(self, history: Sequence[Round]) -> None:
        """Take a game's rounds."""
        rows = [
            [r.facts.get(name, math.nan) for name in self.names] + [math.nan if r.judged is None else r.judged]
            for r in history
        ]
        self.rounds = torch.tensor(rows, device=self.rounds.device)

    def history(self) -> list[Round]:
        """The rounds again. Raises `RobustgenError` before there are any."""
        if not len(self.rounds):
            raise RobustgenError("this detector is not fitted: call fit(data) first")
        return [
            Round(
                {name: value for name, value in zip(self._kept, row[:-1], strict=True) if not math.isnan(value)},
                None if math.isnan(row[-1]) else row[-1],
            )
            for row in self.rounds.tolist()
        ]

    def verdict(self) -> str:
        """How the game went, in a line."""
        return monitor.verdict(self.history())

    def warnings(self) -> list[str]:
        """What was wrong with the game, and what to try."""
        return monitor.warnings(self.history())

    def course(self) -> dict[str, list[float]]:
        """What each round showed, by name."""
        named = zip((*self._kept, _JUDGED), self.rounds.T.tolist(), strict=True)
        return {name: values for name, values in named if not any(map(math.isnan, values))}


@runtime_checkable
class Recorded(Protocol):
    """A detector that keeps how its training went."""

    record: Record
