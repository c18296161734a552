"""From one input to another by way of their codes: paths and four-corner grids, and numbers for how they go.

The straight line between the pixels of the inputs themselves is the control: it is even by construction, and its
middle is a double exposure. What is decoded is blurred, and many a judge finds blurred inputs more normal than real
ones, so each way is also held against the straight line between its own decoded ends.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from robustgen.data.source import DataSpec
from robustgen.detectors.calibrated import CalibratedDetector
from robustgen.detectors.codes import as_codec
from robustgen.errors import UsageError
from robustgen.metrics import Array
from robustgen.registry import suggestion

Along = Literal["line", "arc"]
"""Through the codes in a straight line, or along a great circle (Shoemake 1985; for codes with a Gaussian prior, whose
lengths hardly differ: White 2016)."""

CONTROL = "pixel average"


def between(a: Tensor, b: Tensor, t: Tensor, along: Along = "line") -> Tensor:
    """The points at `t` (s,) in [0, 1] of the ways from `a` to `b` (m, k): (m, s, k), exactly `a` at 0 and `b` at 1.

    Along an arc, codes that point the same way or opposite ways are joined by the line.
    """
    if along not in get_args(Along):
        raise UsageError(suggestion(along, get_args(Along), "way between codes"))
    a, b, t = a[:, None], b[:, None], t.to(a)[None, :, None]
    line = (1 - t) * a + t * b
    if along == "line":
        return line
    cosine = torch.nn.functional.cosine_similarity(a, b, dim=-1).clamp(-1, 1)[..., None]
    angle = torch.arccos(cosine)
    sine = torch.sin(angle)
    arc = (torch.sin((1 - t) * angle) * a + torch.sin(t * angle) * b) / sine
    return torch.where((sine > 1e-3) & (t > 0) & (t < 1), arc, line)


def over_grid(corners: Float[Tensor, "4 k"], side: int, along: Along = "line") -> Float[Tensor, "side side k"]:
    """Bilinear: `corners` are top left, top right, bottom left, bottom right; rows go down, columns to the right."""
    t = torch.linspace(0, 1, side)
    edges = between(corners[:2], corners[2:], t, along)
    return between(edges[0], edges[1], t, along)


@dataclass(frozen=True)
class Course:
    """m ways of s inputs each, all made by `name`, and how they go.

    `x`: (m, s, *shape), images cut off at their legal range. `steps`: (m, s - 1) Euclidean distances from each input to
    the next. `direct`: (m,) those from the first to the last. `cycle`: (m, s) distances from each code to the code of
    what it decodes to, in units of the distance between the end codes; None for the control. `p_values` and `flagged`:
    (m, s) for each judge. `straight`: the p-values of the straight line between the decoded ends, which is as blurred
    as they are; None for the control.
    """

    name: str
    x: Tensor
    steps: Array
    direct: Array
    cycle: Array | None
    p_values: dict[str, Array]
    flagged: dict[str, Array]
    straight: dict[str, Array] | None = None

    @property
    def unevenness(self) -> Array:
        """(m,) the largest step by the mean step: 1 = even, s - 1 = one jump."""
        return np.asarray(self.steps.max(1) / np.maximum(self.steps.mean(1), 1e-12), np.float64)

    @property
    def detour(self) -> Array:
        """(m,) the length of the way by the distance between its ends: 1 = straight."""
        return np.asarray(self.steps.sum(1) / np.maximum(self.direct, 1e-12), np.float64)

    def summary(self) -> dict[str, Any]:
        """Means over the ways; p-values and flags of what lies between the ends."""
        return {
            "name": self.name,
            "n": len(self.steps),
            "unevenness": float(self.unevenness.mean()),
            "detour": float(self.detour.mean()),
            "cycle": None if self.cycle is None else float(self.cycle.mean()),
            "judges": {
                judge: {
                    "median_p_value": float(np.median(values[:, 1:-1])),
                    "smallest_p_value": float(values[:, 1:-1].min()),
                    "flagged": float(self.flagged[judge][:, 1:-1].mean()),
                    "flagged_ends": float(self.flagged[judge][:, [0, -1]].mean()),
                    "median_p_value_straight": None
                    if self.straight is None
                    else float(np.median(self.straight[judge][:, 1:-1])),
                }
                for judge, values in self.p_values.items()
            },
        }


Detectors = Mapping[str, CalibratedDetector]


def course(
    name: str,
    detector: CalibratedDetector,
    code: Float[Tensor, "m s k"],
    judges: Detectors,
    batch_size: int = 500,
) -> Course:
    """How the inputs that `code` decodes to go, under each of the `judges`, by name."""
    codec = as_codec(detector.codes().detector, detector.name)
    flat, parts, cycles = code.flatten(0, 1).to(detector.device), [], []
    with torch.no_grad():
        for some in flat.split(batch_size):
            parts.append(codec.decode(some))
            cycles.append((codec.encode(parts[-1]) - some).square().sum(1).sqrt())
    whole = (code[:, -1] - code[:, 0]).square().sum(1).sqrt().clamp(min=1e-12)
    cycle = torch.cat(cycles).cpu().unflatten(0, code.shape[:2]) / whole.cpu()[:, None]
    x = _legal(torch.cat(parts).cpu().unflatten(0, code.shape[:2]), detector.spec)
    straight = control(x[:, 0], x[:, -1], x.shape[1], judges, batch_size).p_values
    return replace(_judged(name, x, cycle.double().numpy(), judges, batch_size), straight=straight)


def control(
    a: Float[Tensor, "m *shape"], b: Float[Tensor, "m *shape"], steps: int, judges: Detectors, batch_size: int = 500
) -> Course:
    """The straight lines between the inputs' own values."""
    line = between(a.flatten(1), b.flatten(1), torch.linspace(0, 1, steps))
    return _judged(CONTROL, line.unflatten(2, a.shape[1:]).cpu(), None, judges, batch_size)


def paths(
    detectors: Detectors,
    a: Float[Tensor, "m *shape"],
    b: Float[Tensor, "m *shape"],
    steps: int = 9,
    along: Along = "line",
    judges: Detectors | None = None,
    batch_size: int = 500,
) -> list[Course]:
    """The ways from each of `a` to its partner in `b`, in `steps` inputs with the ends: the control, then one course
    for each detector. `judges`: by default the detectors themselves. Raises `UsageError` for a detector without a code.
    """
    if steps < 3:
        raise UsageError(f"a path has at least 3 steps, its ends among them, but {steps} came")
    judges = detectors if judges is None else judges
    found = [control(a, b, steps, judges, batch_size)]
    for name, detector in detectors.items():
        code = _encoded(detector, torch.cat([a, b]), batch_size)
        ways = between(code[: len(a)], code[len(a) :], torch.linspace(0, 1, steps), along)
        found.append(course(name, detector, ways, judges, batch_size))
    return found


def grids(
    detectors: Detectors,
    corners: Float[Tensor, "4 *shape"],
    side: int = 7,
    along: Along = "line",
    judges: Detectors | None = None,
    batch_size: int = 500,
) -> list[Course]:
    """The four-corner grids, each as its `side` rows from left to right, downwards: the control, then each detector."""
    if side < 3:
        raise UsageError(f"a grid has at least 3 x 3 cells, but {side} x {side} came")
    judges = detectors if judges is None else judges
    pixels = over_grid(corners.flatten(1), side).unflatten(2, corners.shape[1:])
    found = [_judged(CONTROL, pixels.cpu(), None, judges, batch_size)]
    for name, detector in detectors.items():
        code = over_grid(_encoded(detector, corners, batch_size), side, along)
        found.append(course(name, detector, code, judges, batch_size))
    return found


def _encoded(detector: CalibratedDetector, x: Tensor, batch_size: int) -> Tensor:
    codes = detector.codes()
    with torch.no_grad():
        return torch.cat([codes(part.to(detector.device)) for part in x.split(batch_size)]).cpu()


def _legal(x: Tensor, spec: DataSpec) -> Tensor:
    return x.clamp(spec.low, spec.high) if spec.kind == "image" else x


def _judged(name: str, x: Tensor, cycle: Array | None, judges: Detectors, batch_size: int) -> Course:
    flat = x.flatten(2).double()
    steps = (flat[:, 1:] - flat[:, :-1]).square().sum(2).sqrt().numpy()
    direct = (flat[:, -1] - flat[:, 0]).square().sum(1).sqrt().numpy()
    p_values, flagged = dict[str, Array](), dict[str, Array]()
    for judge, detector in judges.items():
        verdicts = [detector.judge(part) for part in x.flatten(0, 1).split(batch_size)]
        p_values[judge] = np.concatenate([found.p_value for found in verdicts]).reshape(x.shape[:2])
        flagged[judge] = np.concatenate([found.flagged for found in verdicts]).reshape(x.shape[:2])
    return Course(name, x, steps, direct, cycle, p_values, flagged)
