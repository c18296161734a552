"""Charts of counts: what each class loses, what each member adds, where values fall, which class is taken for which.

They draw what they are given; nothing is counted here but what falls into a bin.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator, PercentFormatter

from robustgen.errors import DataError
from robustgen.report.canvas import (
    FRAME,
    GRID,
    INK,
    MUTED,
    PAPER,
    SERIES,
    Values,
    array,
    chart,
    drawable,
    drawing,
    percent,
    place_legend,
    same_length,
    settle,
)
from robustgen.report.curves import say_above

_WIDTH = 7.6
_BINS = 40
_LETTERS = 24  # of a class name beside its bar
_DEEPEST = 0.5  # of the colour behind a number, so that the number can be read in either theme


def class_bars(
    names: Sequence[str],
    clean: Values,
    robust: Values,
    intervals: tuple[Values, Values] | None = None,
    title: str | None = None,
) -> Figure:
    """A pair of bars a class, one inside the other: accuracy on clean inputs, and what the attack left of it.

    `clean`, `robust`: (m,) in [0, 1], in the order of `names`, which is drawn from the top. `intervals`: (low, high) of
    `robust`, each (m,), drawn as whiskers.
    """
    before, after = array(clean, "clean", "m"), array(robust, "robust", "m")
    same_length(len(names), clean=before, robust=after)
    with drawing():
        figure, axes = chart(_WIDTH, 1.25 + 0.29 * len(names), title, "share classified correctly", "")
        place = np.arange(len(names))
        axes.barh(place, before, 0.72, color=SERIES[5], alpha=0.35, linewidth=0, label="clean inputs", gid="clean")
        axes.barh(place, after, 0.42, color=SERIES[0], linewidth=0, label="under attack", gid="robust")
        if intervals is not None:
            low, high = (array(bound, "interval", "m") for bound in intervals)
            same_length(len(names), low=low, high=high)
            axes.hlines(place, low, high, color=PAPER, linewidth=3.4)  # keeps the line apart from the bar under it
            axes.hlines(place, low, high, color=INK, linewidth=1.3, label="95 % interval", gid="interval")
        for row, (light, solid) in enumerate(zip(before, after, strict=True)):
            end = max(light, solid, 0.0 if intervals is None else high[row])
            axes.text(end + 0.012, row, percent(float(solid), 0), va="center", fontsize=8.5, color=INK)
        axes.set_yticks(place, [drawable(name, _LETTERS) for name in names], color=INK)
        axes.set(xlim=(0, 1.1), ylim=(len(names) - 0.4, -0.6), xticks=np.linspace(0, 1, 6))
        axes.xaxis.set_major_formatter(PercentFormatter(xmax=1, decimals=0, symbol=" %"))
        axes.grid(False, axis="y")
        place_legend(figure, axes)
        return settle(figure)


def count_bars(names: Sequence[str], counts: Values, xlabel: str = "inputs", title: str | None = None) -> Figure:
    """One bar a name, from the top, with its count beside it. `counts`: (m,), not negative."""
    values = array(counts, "counts", "m")
    same_length(len(names), counts=values)
    with drawing():
        figure, axes = chart(_WIDTH, 0.95 + 0.32 * len(names), title, drawable(xlabel, 80), "")
        place = np.arange(len(names))
        axes.barh(place, values, 0.62, color=SERIES[0], linewidth=0)
        top = max(float(values.max(initial=0.0)), 1.0)
        for row, value in enumerate(values):
            axes.text(value + 0.01 * top, row, f"{value:g}", va="center", fontsize=8.5, color=INK)
        axes.set_yticks(place, [drawable(name, _LETTERS) for name in names], color=INK)
        axes.set(xlim=(0, 1.1 * top), ylim=(len(names) - 0.4, -0.6))
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
        axes.grid(False, axis="y")
        return settle(figure)


def count_histogram(
    values: Values, xlabel: str, title: str | None = None, mark: tuple[float, str] | None = None, whole: bool = False
) -> Figure:
    """How many inputs have which value. `values`: (n,); infinities are counted in the outermost bins.

    `whole`: the values are whole numbers, and no bin cuts one. `mark`: a value, and what is written at it.
    """
    data = array(values, "values", "n")
    finite = data[np.isfinite(data)]
    low, high = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 1.0)
    if whole:
        width = max(1, int(np.ceil((high - low + 1) / (1.5 * _BINS))))
        edges = low - 0.5 + width * np.arange(int(np.ceil((high - low + 1) / width)) + 1)
    else:
        room = max(0.01 * (high - low), 1e-3 * max(abs(low), abs(high), 1e-9))  # a single value has no range of its own
        edges = np.linspace(low - room, high + room, _BINS + 1)
    counts, _ = np.histogram(np.clip(data, edges[0], edges[-1]), bins=edges)
    with drawing():
        figure, axes = chart(_WIDTH, 2.9, None, drawable(xlabel, 80), "inputs")
        axes.stairs(counts, edges, fill=True, color=SERIES[0], alpha=0.25, linewidth=0)
        axes.stairs(counts, edges, color=SERIES[0], linewidth=1.4)
        axes.set_xlim(edges[0], edges[-1])
        axes.set_ylim(0, 1.06 * max(1, int(counts.max())))
        axes.yaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
        if whole:
            axes.xaxis.set_major_locator(MaxNLocator(nbins=9, integer=True))
        if title:
            axes.set_title(drawable(title, 90), pad=10 if mark is None else 24)
        if mark is not None:
            value, said = mark
            axes.axvline(value, color=INK, linewidth=1.3, gid="mark")
            say_above(axes, value, said)
        return settle(figure)


def flow_map(counts: Values, names: Sequence[str], title: str | None = None) -> Figure:
    """Which class (row) was taken for which (column), as numbers on shades. `counts`: (m, m), not negative."""
    flows = array(counts, "counts", "m m")
    same_length(len(names), rows=flows, columns=flows.T)
    if not len(names):
        raise DataError("a map of classes needs at least one class")
    top = max(float(flows.max()), 1.0)
    side = min(0.52, 6.0 / len(names))
    with drawing():
        figure, axes = chart(_WIDTH, 1.7 + side * len(names), title, "what the model said", "true class")
        for row, column in zip(*np.nonzero(flows), strict=True):
            count = float(flows[row, column])
            axes.add_patch(
                Rectangle(
                    (column - 0.5, row - 0.5), 1, 1, facecolor=SERIES[0], linewidth=0,
                    alpha=0.06 + (_DEEPEST - 0.06) * count / top,
                )
            )  # fmt: skip
            axes.text(
                float(column), float(row), f"{count:g}", ha="center", va="center", color=INK,
                fontsize=8.5 if side > 0.35 else 7,
            )  # fmt: skip
        for at in range(len(names)):
            axes.add_patch(Rectangle((at - 0.5, at - 0.5), 1, 1, facecolor=GRID, linewidth=0))
        shown = [drawable(name, 16) for name in names]
        slant = max(map(len, shown)) > 3
        axes.set_xticks(
            range(len(names)), shown, rotation=40 if slant else 0, ha="right" if slant else "center",
            rotation_mode="anchor", color=MUTED,
        )  # fmt: skip
        axes.set_yticks(range(len(names)), shown, color=INK)
        axes.set(xlim=(-0.5, len(names) - 0.5), ylim=(len(names) - 0.5, -0.5))
        axes.grid(False)
        axes.spines[:].set(visible=True, color=FRAME)
        return settle(figure)
