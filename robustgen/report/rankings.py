"""Charts of leaderboards: figures with their intervals, what attackers reach as they may change more, what rejecting
costs and brings.

They draw what they are given; nothing is counted here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.text import Annotation
from matplotlib.ticker import PercentFormatter

from robustgen.report.canvas import (
    FRAME,
    INK,
    MUTED,
    PAPER,
    SERIES,
    Values,
    array,
    chart,
    drawable,
    drawing,
    legend_label,
    place_legend,
    same_length,
    series,
    settle,
)

_WIDTH = 7.6
_LETTERS = 30
_MARKERS = ("o", "s", "^", "D", "v", "P")


def interval_dots(
    names: Sequence[str], values: Values, intervals: tuple[Values, Values] | None, xlabel: str, title: str | None = None
) -> Figure:
    """One dot a name, from the top, with its interval as a line. `values`, `intervals` (low, high): (m,)."""
    y = array(values, "values", "m")
    same_length(len(names), values=y)
    with drawing():
        figure, axes = chart(_WIDTH, 0.95 + 0.28 * len(names), title, drawable(xlabel, 80), "")
        place = np.arange(len(names))
        if intervals is not None:
            low, high = (array(bound, "interval", "m") for bound in intervals)
            same_length(len(names), low=low, high=high)
            axes.hlines(place, low, high, color=SERIES[0], linewidth=1.6, gid="interval")
        axes.plot(y, place, "o", color=SERIES[0], markersize=6, markeredgecolor=PAPER)
        axes.set_yticks(place, [drawable(name, _LETTERS) for name in names], color=INK)
        axes.set_ylim(len(names) - 0.4, -0.6)
        axes.grid(False, axis="y")
        return settle(figure)


@dataclass(frozen=True)
class Reach:
    """What attackers reach, as points (eps, success) at rising eps: those who do not know the detector, and those who
    do, who may have tried other sizes (no points if nobody tried). `shown`: with a colour and a name; else a thin line
    among others.
    """

    name: str
    oblivious: Sequence[tuple[float, float]]
    adaptive: Sequence[tuple[float, float]]
    shown: bool = True


def success_curves(lines: Sequence[Reach], xlabel: str, title: str | None = None) -> Figure:
    """Success against eps: solid with dots for attackers who know the detector, dashed for those who do not."""
    with drawing():
        figure, axes = chart(_WIDTH, 4.0, title, drawable(xlabel, 80), "attacks that succeed")
        named = 0
        for line in lines:
            colour = series(named)[0] if line.shown else FRAME
            marker = _MARKERS[(named // len(SERIES)) % len(_MARKERS)]
            named += line.shown
            width = 1.9 if line.shown else 0.8
            label = legend_label(line.name) if line.shown else None
            if line.oblivious:
                x, y = _points(line.oblivious, line.name)
                alone = None if line.adaptive else label
                axes.plot(x, y, color=colour, linestyle=(0, (4, 2)), linewidth=0.8 * width, label=alone)
            if line.adaptive:
                x, y = _points(line.adaptive, line.name)
                axes.plot(
                    x, y, color=colour, linewidth=width, label=label, zorder=3,
                    marker=marker if line.shown else ".", markersize=5,
                )  # fmt: skip
        axes.set_ylim(0, 1.02)
        axes.set_xlim(left=0)
        axes.yaxis.set_major_formatter(PercentFormatter(xmax=1, decimals=0, symbol=" %"))
        place_legend(figure, axes)
        return settle(figure)


def _points(points: Sequence[tuple[float, float]], name: str) -> tuple[Any, Any]:
    eps, success = zip(*points, strict=True)
    what = f"success against {name!r}"
    return array(eps, f"eps of {what}", "m"), array(success, what, "m")


def frontier(
    groups: Mapping[str, Sequence[tuple[str, float, float]]],
    reference: Sequence[tuple[float, float]],
    said: str,
    title: str | None = None,
) -> Figure:
    """What systems that classify or reject pay on clean inputs, and what they hold under attack.

    `groups`: name -> (name of a system, clean inputs classified rightly and accepted, robust accuracy with rejection).
    `reference`: (useful, robust) of what has to be beaten, which is drawn as a line, and `said` of it.
    """
    with drawing():
        figure, axes = chart(
            _WIDTH, 4.4, title, "clean inputs classified rightly and accepted", "robust accuracy with rejection"
        )
        everything = [(x, y) for points in groups.values() for _, x, y in points] + list(reference)
        if reference:
            line = sorted(reference)
            xs, ys = [x for x, _ in line], [y for _, y in line]
            xs, ys = [0.0, *xs, xs[-1]], [ys[0], *ys, 0.0]  # what lies under it is no better on either axis
            axes.plot(
                xs, ys, color=MUTED, linewidth=1.4, linestyle=(0, (5, 2)), label=legend_label(said), gid="reference"
            )
        named: list[Annotation] = []
        for index, (group, points) in enumerate(groups.items()):
            axes.plot(
                [x for _, x, _ in points], [y for _, _, y in points], _MARKERS[index % len(_MARKERS)],
                color=series(index)[0], markeredgecolor=PAPER, markersize=7, label=legend_label(group), zorder=3,
            )  # fmt: skip
            for name, x, y in points:
                if not any(other != (x, y) and other[0] >= x and other[1] >= y for other in everything):
                    named.append(
                        axes.annotate(
                            drawable(name, 24), (x, y), (0, 0), textcoords="offset points", fontsize=8.5, color=INK
                        )
                    )
        low = min((x for x, _ in everything), default=0.0)
        axes.set_xlim(max(0.0, low - 0.1), 1.0)
        axes.set_ylim(-0.02, min(1.0, max((y for _, y in everything), default=1.0) + 0.12))
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(PercentFormatter(xmax=1, decimals=0, symbol=" %"))
        place_legend(figure, axes)
        _spread(named, everything, settle(figure))
        return figure


def _spread(named: Sequence[Annotation], points: Sequence[tuple[float, float]], figure: Figure) -> None:
    """Put each name where it covers the fewest other names and `points`, as near to its own as can be; on a settled
    figure.
    """
    taken: list[Any] = []
    axes = figure.axes[0]
    dots: Any = axes.transData.transform(points) if points else []
    places = [(aside, up) for up in (6, -13, 18, -25, 30, -37) for aside in (-6, 6)]
    for one in sorted(named, key=lambda label: (-label.xy[1], label.xy[0])):
        costs = []
        for number, place in enumerate(places):
            box = _moved(one, place)
            room = axes.bbox
            inside = room.x0 <= box.x0 and box.x1 <= room.x1 and room.y0 <= box.y0 and box.y1 <= room.y1
            names = sum(map(box.overlaps, taken)) + (not inside)
            costs.append((names, sum(box.padded(5).contains(x, y) for x, y in dots), number))
        taken.append(_moved(one, places[min(costs)[-1]]))


def _moved(label: Annotation, place: tuple[int, int]) -> Any:
    """The box of a name that now lies at `place` beside its point."""
    label.set(position=place, ha="right" if place[0] < 0 else "left")
    return label.get_window_extent().padded(1)
