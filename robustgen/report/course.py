"""How a training went, round by round."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from robustgen.report.canvas import chart, drawing, legend_label, place_legend, series, settle


def course(lines: Mapping[str, Sequence[float]], title: str | None = None) -> Figure:
    """A line for each name over the rounds, from 1; values are shares, but may pass 1."""
    with drawing():
        figure, axes = chart(7.6, 3.2, title, "round", "share")
        for index, (name, values) in enumerate(lines.items()):
            colour, dashes = series(index)
            rounds = range(1, len(values) + 1)
            axes.plot(rounds, values, color=colour, linestyle=dashes, linewidth=1.8, label=legend_label(name))
        top = max((value for values in lines.values() for value in values), default=1.0)
        axes.set_ylim(0, max(1.02, 1.05 * top))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        place_legend(figure, axes)
        return settle(figure)
