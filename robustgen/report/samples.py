"""Pictures of drawn inputs."""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib.figure import Figure

from robustgen.errors import DataError
from robustgen.report.canvas import INK, WRONG, Values, array, drawable, drawing, same_length
from robustgen.report.strips import _Grid, _images, _show, _under

_ACROSS = 8


def sample_sheet(
    x: Values, title: str, p_values: Sequence[float], flagged: Sequence[bool], classes: Sequence[str] = ()
) -> Figure:
    """`x` (n, c, h, w) in [0, 1] in rows of at most 8, each with its p-value, and its class where `classes` are given;
    flagged ones have another colour.
    """
    images = _images(x, "samples")
    same_length(len(images), p_values=p_values, flagged=flagged)
    across = min(_ACROSS, len(images))
    if len(images) > 1000:
        raise DataError(f"a picture shows at most 1000 samples, but {len(images)} came: write them to a .npz file")
    with drawing():
        grid = _Grid.of(images[:across], [0.0] * (across - 1), (0.26,) * math.ceil(len(images) / across), head=0.36)
        if len(images) > 3:
            grid.headings([title] * across)
        for number, image in enumerate(images):
            axes = grid.axes(number // across, number % across)
            _show(axes, image)
            text = f"{drawable(classes[number], 11)}, {p_values[number]:.2g}" if classes else f"{p_values[number]:.2g}"
            _under(axes, text, WRONG if flagged[number] else INK, bold=bool(flagged[number]))
        grid.row_label(0, drawable("samples", 18), "class, p-value" if classes else "p-value under each")
        return grid.figure


def mixing_sheet(x: Values) -> Figure:
    """`x` (n, n, c, h, w) in [0, 1], row by row, numbered."""
    grid_of = array(x, "mixed", "n m c h w")
    with drawing():
        grid = _Grid.of(grid_of[0], [0.0] * (len(grid_of) - 1), (0.1,) * len(grid_of), head=0.36)
        grid.headings([f"fine {number + 1}" for number in range(len(grid_of))])
        for number, row in enumerate(grid_of):
            for column, image in enumerate(row):
                _show(grid.axes(number, column), image)
            grid.row_label(number, f"coarse {number + 1}", "")
        return grid.figure
