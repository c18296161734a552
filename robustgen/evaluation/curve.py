"""Robust accuracy or success against eps: which sizes are tried, and the curve that follows from what was found."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from robustgen.attacks.base import Attack
from robustgen.errors import UsageError
from robustgen.metrics import proportion
from robustgen.threat import ThreatModel

_POINTS = 16  # of the curve of an attack for the smallest change, where no sizes are asked for


def in_one_run(attack: Attack) -> bool:
    """Whether one run gives the whole curve: of an attack for the smallest change that does not stop before it."""
    return attack.minimal and getattr(attack, "mode", None) != "evaluate"


def sizes(attack: Attack, eps: Sequence[float] | None) -> tuple[float, ...]:
    """The sizes of change to report, ascending, each once; none where the results of an attack for the smallest change
    are to choose them. Raises `UsageError` unless the largest is the attack's own.
    """
    if eps is None:
        return () if in_one_run(attack) else (attack.threat.eps,)
    grid = tuple(sorted({float(value) for value in eps}))
    if not grid or grid[0] < 0 or grid[-1] != attack.threat.eps:
        raise UsageError(
            f"the sizes of a curve go up from 0 at the lowest to the attack's own eps, {attack.threat.eps:g}, but "
            f"{', '.join(f'{value:g}' for value in grid) or 'none'} came"
        )
    return grid


def curve(attack: Attack, samples: dict[str, npt.NDArray[Any]], grid: Sequence[float]) -> list[dict[str, Any]]:
    """For each size: the share of inputs that are classified correctly and were fooled by no change up to that size.

    Never rises, by construction: a change that fools is legal at every larger size too.
    """
    correct = samples["clean_prediction"] == samples["y"]
    success, needed = samples["success"], samples["eps"]
    points = []
    for eps in tuple(grid) or _chosen(attack.threat, needed[success]):
        fooled = _within(attack.threat, success, needed, eps)
        held = proportion(int((correct & ~fooled).sum()), len(correct))
        points.append({"eps": eps, "robust_accuracy": held.value, "robust_accuracy_interval": [held.low, held.high]})
    return points


def evasions(
    threat: ThreatModel, lost: npt.NDArray[np.bool_], needed: npt.NDArray[np.floating[Any]]
) -> list[dict[str, Any]]:
    """For each size: the share of inputs that have a wrong label accepted at a change up to that size, which never
    falls. `needed` (n,): the smallest change found, where `lost`.
    """
    points = []
    for eps in _chosen(threat, needed[lost]):
        share = proportion(int(_within(threat, lost, needed, eps).sum()), len(lost))
        points.append({"eps": eps, "success": share.value, "success_interval": [share.low, share.high]})
    return points


def _within(threat: ThreatModel, success: npt.NDArray[Any], needed: npt.NDArray[Any], eps: float) -> npt.NDArray[Any]:
    # the rounding of one float32 addition, as ThreatModel.allows has it
    inside: npt.NDArray[Any] = success & ((needed <= eps * (1 + 1e-6) + 6e-8) | (eps >= threat.eps))
    return inside


def _chosen(threat: ThreatModel, norms: npt.NDArray[np.floating[Any]]) -> tuple[float, ...]:
    """From 0 to where the last input fell, or to the largest size where some hold, that size always included."""
    largest = float(norms.max()) if len(norms) else threat.eps
    grid = np.linspace(0, min(largest, threat.eps), _POINTS)
    if threat.norm == "l0":
        grid = np.ceil(grid)
    return tuple(sorted({*grid.tolist(), threat.eps}))
