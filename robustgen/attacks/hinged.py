"""Carlini and Wagner's search: Adam on distance plus hinges, in coordinates without walls, and new weights after it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from robustgen.attacks.ascend import Play
from robustgen.attacks.minimal import adam, each
from robustgen.attacks.passes import Seen
from robustgen.threat import ThreatModel

_NEVER = 1e9
"""A constant beyond which the search has found no success yet."""
_INSIDE = {"l2": 1 - 1e-6, "linf": 0.9}
"""How far towards a wall, which no w reaches, a search may begin: in Linf most values begin in the middle."""
_CLOSER = 0.05  # share of the nearest success by which the next must be nearer, in Linf


@dataclass(frozen=True, eq=False)
class Hinged:
    """Adam on |x' - x|^2 + c * hinge with x' = (1 + tanh w) / 2, all in box widths; a new c every `steps` steps.

    The hinge is the objective's shortfall, which counts only where it is not achieved. In Linf there is no distance to
    weigh: the walls are those of the ball, of `threat.eps` at first, from each success on of one that leaves it out.

    `balance` (n,): the objective is a sum of two hinges, its value above 0 where the first is 0 (the label is wrong),
    and the second counts `balance` times, by the row's place among n inputs. A search that never had the first at 0
    ends with a larger c, one that had it but was rejected with a larger c * balance, one that succeeded with smaller
    ones: ten times as much, or halfway to what is known to suffice or to fail.
    """

    threat: ThreatModel
    steps: int
    searches: int
    step_size: float
    constant: float
    balance: Float[Tensor, " n"] | None = None

    def begin(self, clean: Tensor, label: Tensor, restart: int) -> tuple[Tensor, dict[str, Tensor]]:
        zero, one = torch.zeros_like(clean), torch.ones_like(clean.flatten(1)[:, 0])
        state = {"mean": zero, "square": zero.clone(), "succeeded": one > 2, "fooled": one > 2}
        for name in ("first", "second"):
            state |= {name: one * self.constant, f"{name} low": one * 0, f"{name} high": one * 10 * _NEVER}
        if self.threat.norm == "linf":
            rounding = 1.2e-7 * max(abs(self.threat.low), abs(self.threat.high), 1.0)
            state |= {"radius": one * max(0.0, self.threat.eps - rounding), "nearest": one * torch.inf}
        return clean, state | {"w": self._free(clean, clean, state)}

    def move(self, play: Play, seen: Seen) -> Tensor:
        state = play.state
        state["succeeded"] = state["succeeded"] | seen.achieved
        state["fooled"] = state["fooled"] | (seen.achieved if self.balance is None else seen.value > 0)
        if self.threat.norm == "linf" and seen.achieved.any():
            self._draw_in(play, seen.achieved)
        _, width = self._walls(play.clean, state)
        hinge = torch.where(each(seen.achieved, play.point), 0, seen.gradient * width)
        away = 2 * (play.point - play.clean) / width if self.threat.norm == "l2" else torch.zeros_like(hinge)
        descent = away - each(state["first"], hinge) * hinge
        descent = descent * (1 - torch.tanh(state["w"]).square()) / 2
        inner = play.step % self.steps
        state["w"] = state["w"] - self.step_size * adam(descent, state, inner)
        ended = (inner == self.steps - 1) & (play.step < self.steps * self.searches - 1)
        if ended.any():
            self._search(play, ended)
        low, width = self._walls(play.clean, state)
        point = low + width * (torch.tanh(state["w"]) + 1) / 2
        return torch.where(each(ended, point), play.clean, point)

    def _search(self, play: Play, ended: Tensor) -> None:
        """The next constants of rows whose steps with the last have `ended`, and another start at the clean input."""
        state, found = play.state, play.state["succeeded"]
        _weigh(state, "first", ended & ~state["fooled"], ended & found)
        _weigh(state, "second", ended & state["fooled"] & ~found, ended & found)
        if self.balance is not None:
            self.balance[play.row] = (state["second"] / state["first"]).to(self.balance.dtype)
        if self.threat.norm == "linf":
            between = (state["radius"] + state["nearest"]) / 2
            state["radius"] = torch.where(ended & ~found & between.isfinite(), between, state["radius"])
        state["succeeded"], state["fooled"] = found & ~ended, state["fooled"] & ~ended
        reset = each(ended, play.clean)
        state["w"] = torch.where(reset, self._free(play.clean, play.clean, state), state["w"])
        state["mean"], state["square"] = (torch.where(reset, 0, state[name]) for name in ("mean", "square"))

    def _draw_in(self, play: Play, achieved: Tensor) -> None:
        """Walls that leave the success at `play.point` out, and w of the nearest point within them."""
        state = play.state
        distance = torch.where(achieved, self.threat.distance(play.point, play.clean), torch.inf)
        state["nearest"] = torch.minimum(state["nearest"], distance)
        radius = torch.minimum(state["radius"], (1 - _CLOSER) * state["nearest"])
        state["radius"] = torch.where(achieved, radius, state["radius"])
        near = self._free(play.point, play.clean, state)
        state["w"] = torch.where(each(achieved, near), near, state["w"])

    def _walls(self, clean: Tensor, state: dict[str, Tensor]) -> tuple[Tensor | float, Tensor | float]:
        """The least value, and how far it is to the largest: of the box, or of the ball's part in it."""
        if self.threat.norm == "l2":
            return self.threat.low, self.threat.high - self.threat.low
        radius = each(state["radius"], clean)
        low = (clean - radius).clamp(min=self.threat.low)
        return low, ((clean + radius).clamp(max=self.threat.high) - low).clamp(min=0)

    def _free(self, point: Tensor, clean: Tensor, state: dict[str, Tensor]) -> Tensor:
        """w of a point; the walls, which no w reaches, are taken for what lies just inside."""
        low, width = self._walls(clean, state)
        safe = width if isinstance(width, float) else width.clamp(min=1e-12)
        centred: Tensor = 2 * (point - low) / safe - 1
        return torch.atanh(centred.clamp(-1, 1) * _INSIDE[self.threat.norm])


def _weigh(state: dict[str, Tensor], name: str, failed: Tensor, sufficed: Tensor) -> None:
    """The next value of a constant of rows that it `failed`, or for which it `sufficed`: halfway, or ten times it."""
    constant, low, high = state[name], state[f"{name} low"], state[f"{name} high"]
    low = torch.where(failed, torch.maximum(low, constant), low)
    high = torch.where(sufficed, torch.minimum(high, constant), high)
    following = torch.where(high < _NEVER, (low + high) / 2, 10 * constant)
    state[name] = torch.where(failed | sufficed, following, constant)
    state[f"{name} low"], state[f"{name} high"] = low, high
