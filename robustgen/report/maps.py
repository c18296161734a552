"""A map of codes: where classes lie in the code, and where the score is high."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.patheffects
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from robustgen.report.canvas import (
    FRAME,
    INK,
    MUTED,
    PAPER,
    SERIES,
    WRONG,
    Values,
    array,
    drawable,
    drawing,
    same_length,
    settle,
)

_MARKERS = {"o": "●", "^": "▲", "s": "■", "D": "◆"}
_MOST_CLASSES = len(SERIES) * len(_MARKERS)


def latent_map(
    points: Values,
    scores: Values,
    threshold: float,
    labels: Values | None = None,
    names: Sequence[str] | None = None,
    axes_names: tuple[str, str] = ("", ""),
    title: str = "",
) -> Figure:
    """Two maps of the same points: by class (where there are labels) and by anomaly score, flagged ones ringed.

    `points`: (n, 2). `scores`: (n,), higher = more anomalous; colours go by rank, so that a few far ones do not hide
    the others. `labels`: (n,) class numbers, with their `names`; each class has a colour and a marker, and its name
    stands at the median of its points. Beyond 24 classes the rarest share a grey.
    """
    places, values = array(points, "points", "n 2"), array(scores, "scores", "n")
    classes = None if labels is None else array(labels, "labels", "n").astype(int)
    same_length(len(places), scores=values, labels=classes)
    size = float(np.clip(2500 / max(len(places), 1), 4, 22))
    with drawing():
        wide = 9.4 if classes is not None else 5.4
        figure = Figure(figsize=(wide, 4.6), layout="constrained")
        panels = figure.subplots(1, 1 if classes is None else 2, squeeze=False)[0]
        for axes, name in zip(panels, ["by score"] if classes is None else ["by class", "by score"], strict=True):
            axes.set(xticks=[], yticks=[], xlabel=axes_names[0])
            axes.spines[:].set(visible=True, color=FRAME)
            axes.set_title(name, pad=8)
        panels[0].set_ylabel(axes_names[1])
        if classes is not None:
            _by_class(panels[0], places, classes, names, size)
        _by_score(figure, panels[-1], places, values, threshold, size)
        if title:
            figure.suptitle(drawable(title, 110), x=0.012, ha="left", fontsize=8.8, color=MUTED)
        return settle(figure)


def _by_class(
    axes: Axes, points: NDArray[np.float64], classes: NDArray[np.int64], names: Sequence[str] | None, size: float
) -> None:
    found, counts = np.unique(classes, return_counts=True)
    shown = np.sort(found[np.argsort(-counts, kind="stable")][:_MOST_CLASSES])
    rest = ~np.isin(classes, shown)
    if rest.any():
        axes.scatter(points[rest, 0], points[rest, 1], s=size, color=FRAME, linewidths=0, rasterized=True)
    order = np.random.default_rng(0).permutation(len(points))  # no class lies on top of all others
    for turn, part in enumerate(np.array_split(order, 8)):
        for place, number in enumerate(shown):
            here = points[part[classes[part] == number]]
            colour, marker = SERIES[place % len(SERIES)], list(_MARKERS)[place // len(SERIES)]
            axes.scatter(
                here[:, 0],
                here[:, 1],
                s=size,
                color=colour,
                marker=marker,
                linewidths=0,
                alpha=0.75,
                rasterized=True,
                zorder=2 + turn,
            )
    for place, number in enumerate(shown):
        x, y = np.median(points[classes == number], axis=0)
        name = str(number) if names is None or not 0 <= number < len(names) else names[number]
        sign = list(_MARKERS.values())[place // len(SERIES)]
        text = axes.text(
            x, y, f"{sign} {drawable(name, 18)}", ha="center", va="center", fontsize=8.4, fontweight="bold", zorder=20,
            color=SERIES[place % len(SERIES)],
        )  # fmt: skip
        text.set_path_effects([matplotlib.patheffects.withStroke(linewidth=2.6, foreground=PAPER)])


def _by_score(
    figure: Figure,
    axes: Axes,
    points: NDArray[np.float64],
    scores: NDArray[np.float64],
    threshold: float,
    size: float,
) -> None:
    below = np.searchsorted(np.sort(scores), scores, side="right") / max(len(scores), 1)
    order = np.argsort(scores, kind="stable")  # the highest on top
    drawn = axes.scatter(
        points[order, 0],
        points[order, 1],
        c=below[order],
        cmap="cividis_r",
        vmin=0,
        vmax=1,
        s=size,
        linewidths=0,
        rasterized=True,
    )
    flagged = scores > threshold
    axes.scatter(
        points[flagged, 0], points[flagged, 1], s=size * 2.2, facecolors="none", edgecolors=WRONG, linewidths=0.7,
        rasterized=True, label=f"flagged: {int(flagged.sum())} of {len(scores)}",
    )  # fmt: skip
    axes.legend(loc="upper left", bbox_to_anchor=(0.0, -0.06), handletextpad=0.4, borderpad=0, labelcolor=INK)
    bar = figure.colorbar(drawn, ax=axes, shrink=0.75, aspect=24, pad=0.02)
    if bar.solids is not None:
        bar.solids.set(rasterized=True, edgecolor="face")
    bar.outline.set(edgecolor=FRAME, linewidth=0.7)
    ticks = (0.0, 0.5, 0.9, 1.0)
    bar.set_ticks(ticks, labels=[f"{np.quantile(scores, tick):.3g}" for tick in ticks])
    bar.ax.tick_params(length=0, pad=3, labelsize=7.6)
    bar.set_label("anomaly score (colour by rank)", fontsize=8.4)
