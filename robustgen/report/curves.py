"""Charts of numbers: where scores fall, what a threshold trades, how accuracy gives way as the attacker gains reach.

They draw what they are given. Statistics (ROC points, AUROC, intervals) come from `robustgen.metrics`; the one thing
counted here is the share of a group above the threshold.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, PercentFormatter
from numpy.typing import NDArray

from robustgen.errors import UsageError
from robustgen.report.canvas import (
    FRAME,
    INK,
    MUTED,
    PAPER,
    Values,
    array,
    chart,
    drawable,
    drawing,
    legend_label,
    percent,
    place_legend,
    same_length,
    series,
    settle,
)

_BINS = 48
_TAIL = 0.005  # the share of a group, at either end, that may lie beyond the axis
_LOG_SPREAD = 100.0  # two decades
_POINTS = 24


def score_histograms(
    scores: Mapping[str, Values], threshold: float, title: str | None = None, fpr: float | None = None
) -> Figure:
    """Anomaly scores of several groups over shared bins, with the threshold and the share of each group above it.

    `scores`: group name -> (n,) scores, higher = more anomalous; groups may differ in size, be empty, hold infinities.
    Bars are shares of their own group. `fpr`, in [0, 1], is the false-alarm rate that the threshold was calibrated for.
    Few far outliers do not stretch the axis: they are counted in the outermost bins, and the axis says so. The axis is
    logarithmic when all scores and the threshold are positive and their bulk spans more than two decades.
    """
    if not np.isfinite(threshold):
        raise UsageError(f"threshold must be a finite number, not {threshold}")
    groups = {name: array(values, f"scores of {name!r}", "n") for name, values in scores.items()}
    edges, log, cut = _shared_bins(list(groups.values()), threshold)
    with drawing():
        label = "anomaly score (log scale)" if log else "anomaly score"
        if cut:
            label += "; the outermost bins hold everything beyond"
        figure, axes = chart(7.6, 3.6, None, label, "share of the group")
        for index, (name, values) in enumerate(groups.items()):
            _one_histogram(axes, index, name, values, edges, threshold)
        axes.axvline(threshold, color=INK, linewidth=1.4, gid="threshold")
        axes.set_xlim(edges[0], edges[-1])
        if log:
            _plain_log_axis(axes)
        axes.set_ylim(bottom=0)
        axes.yaxis.set_major_formatter(PercentFormatter(xmax=1, decimals=None, symbol=" %"))
        said = f"threshold {threshold:.4g}" + ("" if fpr is None else f", set for {100 * fpr:g} % false alarms")
        say_above(axes, threshold, said)
        if title:
            axes.set_title(drawable(title, 90), pad=24)
        place_legend(figure, axes)
        return settle(figure)


def _one_histogram(
    axes: Axes, index: int, name: str, values: NDArray[np.float64], edges: NDArray[np.float64], threshold: float
) -> None:
    colour, dashes = series(index)
    if not values.size:
        axes.plot([], [], color=colour, linestyle=dashes, label=legend_label(name, "no inputs"))
        return
    counts, _ = np.histogram(np.clip(values, edges[0], edges[-1]), bins=edges)
    shares = counts / values.size
    said = f"{percent(float((values > threshold).mean()))} above"
    axes.stairs(shares, edges, fill=True, color=colour, alpha=0.2, linewidth=0)
    axes.stairs(shares, edges, color=colour, linestyle=dashes, linewidth=1.5, label=legend_label(name, said))


def _shared_bins(groups: list[NDArray[np.float64]], threshold: float) -> tuple[NDArray[np.float64], bool, bool]:
    """Bin edges for all groups, whether they are logarithmic, and whether some scores lie beyond them."""
    finite = [kept for kept in (values[np.isfinite(values)] for values in groups) if kept.size]
    everything = np.concatenate([*finite, [threshold]])
    low, high = float(everything.min()), float(everything.max())
    bulk = [np.quantile(values, [_TAIL, 1 - _TAIL]) for values in finite]
    inner_low = float(min([threshold, *(pair[0] for pair in bulk)]))
    inner_high = float(max([threshold, *(pair[1] for pair in bulk)]))
    log = low > 0 and inner_high / inner_low > _LOG_SPREAD
    if log:
        low, high, inner_low, inner_high = (float(np.log10(value)) for value in (low, high, inner_low, inner_high))
    if high - low > 1.5 * (inner_high - inner_low) > 0:  # otherwise the tails cost little room: show them whole
        low, high = inner_low, inner_high
    room = 0.02 * (high - low) or max(0.5 * abs(low), 0.5)
    edges = np.linspace(low - room, high + room, _BINS + 1)
    if log:
        edges = 10.0**edges
    beyond = any(((values < edges[0]) | (values > edges[-1])).any() for values in groups)
    return edges, log, beyond


def _plain_log_axis(axes: Axes) -> None:
    axes.set_xscale("log")
    low, high = axes.get_xlim()
    few = high / low < 10**2.5
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if few else (1.0,), numticks=12))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.tick_params(which="minor", length=0)


def say_above(axes: Axes, place: float, said: str) -> None:
    """A label above the frame, so that no bar can hide it, aligned so that it stays over the axes."""
    left, right = axes.get_xlim()
    at, low, high = np.log10([place, left, right]) if axes.get_xscale() == "log" else (place, left, right)
    share = (at - low) / (high - low)
    align = "left" if share < 0.3 else "right" if share > 0.7 else "center"
    axes.annotate(
        said, (place, 1.0), xycoords=axes.get_xaxis_transform(), xytext=(0, 4), textcoords="offset points",
        ha=align, va="bottom", fontsize=8.8, color=INK,
    )  # fmt: skip


def roc_curves(
    curves: Mapping[str, tuple[Values, Values, float]], title: str | None = None, mark_fpr: float | None = None
) -> Figure:
    """ROC curves with their AUROC in the legend, chance as a diagonal, and the chosen false-alarm rate marked.

    `curves`: name -> (fpr, tpr, auroc), where `fpr` and `tpr` are (m,) in [0, 1] and `fpr` never falls. With
    `mark_fpr`, in [0, 1], each curve carries a point at that false-alarm rate.
    """
    if mark_fpr is not None and not 0 <= mark_fpr <= 1:
        raise UsageError(f"mark_fpr must lie in [0, 1], not {mark_fpr}")
    with drawing():
        figure, axes = chart(7.6, 4.4, title, "false alarms (share of normal inputs flagged)", "caught (share flagged)")
        axes.plot([0, 1], [0, 1], color=FRAME, linewidth=1.2, gid="chance")
        axes.text(
            0.74, 0.72, "chance", ha="center", va="top", color=MUTED, fontsize=8.5,
            rotation=45, transform_rotates_text=True, rotation_mode="anchor",
        )  # fmt: skip
        for index, (name, (fpr, tpr, auroc)) in enumerate(curves.items()):
            x, y = array(fpr, f"fpr of {name!r}", "m"), array(tpr, f"tpr of {name!r}", "m")
            same_length(len(x), tpr=y)
            if not len(x) or min(x.min(), y.min()) < 0 or max(x.max(), y.max()) > 1 or (np.diff(x) < 0).any():
                raise UsageError(f"the ROC curve {name!r} needs rates in [0, 1] in rising order of fpr")
            colour, dashes = series(index)
            label = legend_label(drawable(name, 28), f"AUROC {auroc:.3f}")
            axes.plot(x, y, color=colour, linestyle=dashes, linewidth=1.9, label=label, zorder=3)
            if mark_fpr is not None:
                dot: dict[str, Any] = {"color": colour, "markeredgecolor": PAPER, "clip_on": False, "zorder": 4}
                axes.plot([mark_fpr], [_height(x, y, mark_fpr)], "o", markersize=6.5, gid=f"mark-{index}", **dot)
        if mark_fpr is not None:
            axes.axvline(mark_fpr, color=INK, linewidth=1, gid="mark")
            axes.annotate(
                f"{100 * mark_fpr:g} % false alarms", (mark_fpr, 0.0), xytext=(5, 5), textcoords="offset points",
                fontsize=8.8, color=INK, ha="left" if mark_fpr < 0.7 else "right", va="bottom",
            )  # fmt: skip
        axes.set(xlim=(-0.01, 1.01), ylim=(0, 1.02))
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(PercentFormatter(xmax=1, decimals=0, symbol=" %"))
        if curves:
            figure.legend(loc="outside right center", handlelength=2.6)
        return settle(figure)


def _height(x: NDArray[np.float64], y: NDArray[np.float64], at: float) -> float:
    """The drawn curve's highest point at `at`; a vertical step has many, `np.interp` promises none of them."""
    left = int(np.searchsorted(x, at + 1e-7, side="right")) - 1  # rates may come as float32
    if left < 0 or left + 1 >= len(x):
        return float(y[max(left, 0)])
    weight = max(at - x[left], 0.0) / (x[left + 1] - x[left])
    return float(y[left] + weight * (y[left + 1] - y[left]))


def security_curve(
    eps: Values,
    robust_accuracy: Mapping[str, Values],
    intervals: Mapping[str, tuple[Values, Values]] | None = None,
    title: str | None = None,
    eps_label: str = "eps (size of the perturbation allowed)",
    chance: float | None = None,
    mark: tuple[float, str] | None = None,
) -> Figure:
    """Robust accuracy as the attacker's reach grows, one line per series, with interval bands where they are given.

    `eps`: (m,) rising, in input units. `robust_accuracy`: series name -> (m,) in [0, 1]. `intervals`: series name ->
    (low, high), each (m,); a series may lack one. `chance`, in [0, 1], is what guessing would reach. `mark`: an eps,
    and what is written at it. Points are drawn as such while there are few enough to be told apart.
    """
    x = array(eps, "eps", "m")
    intervals = intervals or {}
    if unknown := sorted(set(intervals) - set(robust_accuracy)):
        raise UsageError(f"intervals for unknown series {unknown}; known: {', '.join(robust_accuracy)}")
    with drawing():
        figure, axes = chart(7.6, 3.6, title, drawable(eps_label, 80), "robust accuracy")
        for index, (name, values) in enumerate(robust_accuracy.items()):
            colour, dashes = series(index)
            y = array(values, f"robust accuracy of {name!r}", "m")
            same_length(len(x), robust_accuracy=y)
            if name in intervals:
                low, high = (array(bound, f"interval of {name!r}", "m") for bound in intervals[name])
                same_length(len(x), low=low, high=high)
                axes.fill_between(x, low, high, color=colour, alpha=0.16, linewidth=0, gid=f"band-{index}")
            axes.plot(
                x, y, color=colour, linestyle=dashes, linewidth=1.9, marker="o" if len(x) <= _POINTS else "",
                markersize=4.5, label=legend_label(name),
            )  # fmt: skip
        if chance is not None:
            axes.axhline(chance, color=MUTED, linewidth=1, linestyle=(0, (2, 2)), label="chance", gid="chance")
        axes.set_ylim(0, 1.02)
        axes.yaxis.set_major_formatter(PercentFormatter(xmax=1, decimals=0, symbol=" %"))
        if mark is not None:
            axes.axvline(mark[0], color=INK, linewidth=1.2, gid="mark")
            say_above(axes, *mark)
            if title:
                axes.set_title(drawable(title, 90), pad=24)
        place_legend(figure, axes)
        return settle(figure)
