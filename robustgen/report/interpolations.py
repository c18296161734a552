"""Pictures of the ways between inputs: paths row under row, four-corner grids side by side."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from robustgen.data.source import DataSpec
from robustgen.errors import DataError
from robustgen.evaluation.compression import unit
from robustgen.evaluation.interpolation import Course
from robustgen.report.canvas import FRAME, INK, MUTED, PAPER, SERIES, WRONG, drawable, drawing, percent
from robustgen.report.strips import _Grid, _images, _show, _under

_WIDEST, _PANEL, _GAP, _MARGIN = 9.4, 3.0, 0.3, 0.12  # inches


def path_strip(courses: Sequence[Course], spec: DataSpec, title: str, way: int = 0) -> Figure:
    """The `way`-th path of each course as a row, with the p-value of each input by the first judge under it; flagged
    inputs have another colour.
    """
    judge = next(iter(courses[0].p_values))
    with drawing():
        first = _pixels(courses[0], spec, way)
        grid = _Grid.of(first, [0.0] * (len(first) - 1), (0.26,) * len(courses), head=0.36)
        grid.headings([f"{title}; under each its p-value by {drawable(judge)}"] * len(first))
        for row, course in enumerate(courses):
            for column, image in enumerate(_pixels(course, spec, way)):
                axes = grid.axes(row, column)
                _show(axes, image)
                flagged = bool(course.flagged[judge][way, column])
                p_value = course.p_values[judge][way, column]
                _under(axes, f"{p_value:.2g}", WRONG if flagged else INK, bold=flagged)
            grid.row_label(row, drawable(course.name, 18), _words(course, way))
        return grid.figure


def _words(course: Course, way: int) -> str:
    lines = [f"unevenness {course.unevenness[way]:.2f}", f"detour {course.detour[way]:.2f}"]
    return "\n".join(lines + ([] if course.cycle is None else [f"cycle {course.cycle[way].mean():.2f}"]))


def corner_grids(courses: Sequence[Course], spec: DataSpec, title: str) -> Figure:
    """The grid of each course as one panel, its four corners framed; under it the means over the grid's rows."""
    judge = next(iter(courses[0].p_values))
    with drawing():
        panel = min(_PANEL, (_WIDEST - 2 * _MARGIN - _GAP * (len(courses) - 1)) / len(courses))
        rows, columns = courses[0].x.shape[:2]
        height, width = spec.shape[1:]
        tall = panel * min(max(rows * height / (columns * width), 0.4), 2.5)
        under, head = 0.8, 0.62
        figure = Figure(figsize=(2 * _MARGIN + panel * len(courses) + _GAP * (len(courses) - 1), head + tall + under))
        wide, high = figure.get_size_inches()
        figure.text(_MARGIN / wide, 1 - 0.1 / high, drawable(title, 110), va="top", fontsize=8.5, color=MUTED)
        for number, course in enumerate(courses):
            left = _MARGIN + number * (panel + _GAP)
            axes = figure.add_axes((left / wide, under / high, panel / wide, tall / high), label=course.name)
            _show(axes, _montage(np.stack([_pixels(course, spec, row) for row in range(rows)])))
            axes.hlines(np.arange(1, rows) * height - 0.5, -0.5, columns * width - 0.5, color=PAPER, linewidth=1.3)
            axes.vlines(np.arange(1, columns) * width - 0.5, -0.5, rows * height - 0.5, color=PAPER, linewidth=1.3)
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set(visible=True, color=FRAME, linewidth=0.7)
            for x in (0, columns - 1):
                for y in (0, rows - 1):
                    place = (x * width - 0.5, y * height - 0.5)
                    axes.add_patch(
                        Rectangle(place, width, height, fill=False, edgecolor=SERIES[1], linewidth=1.6, zorder=3)
                    )
            axes.set_title(drawable(course.name, 30), pad=6)
            said = course.summary()
            cycle = "" if said["cycle"] is None else f", cycle {said['cycle']:.2f}"
            flagged = percent(said["judges"][judge]["flagged"], 0)
            text = f"unevenness {said['unevenness']:.2f}, detour {said['detour']:.2f}{cycle}\n"
            text += f"median p-value {said['judges'][judge]['median_p_value']:.2g}, flagged {flagged}\n"
            _under(axes, text + f"by {drawable(judge, 30)}", INK)
        return figure


def _pixels(course: Course, spec: DataSpec, way: int) -> NDArray[np.float64]:
    """(s, c, h, w) in [0, 1]. Raises `DataError` for inputs that cannot be shown."""
    if spec.kind != "image":
        raise DataError(f"{spec.name!r} holds no images, so there is nothing to draw: leave out --out")
    return _images(unit(course.x[way], spec), course.name)


def _montage(images: NDArray[np.float64]) -> NDArray[np.float64]:
    """(rows, columns, c, h, w) as one image (c, rows h, columns w)."""
    rows, columns, c, h, w = images.shape
    return images.transpose(2, 0, 3, 1, 4).reshape(c, rows * h, columns * w)
