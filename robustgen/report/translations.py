"""Pictures of inputs beside what a detector makes of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from robustgen.data.source import DataSpec
from robustgen.errors import DataError
from robustgen.evaluation.compression import unit
from robustgen.evaluation.translation import Translated
from robustgen.report.canvas import Values, drawable, drawing
from robustgen.report.strips import _Grid, _images, _show

_ACROSS = 8


def translation_sheet(rows: Sequence[tuple[str, Values]], title: str) -> Figure:
    """Rows of pictures that belong together, one below the other, `rows` of (name, (n, c, h, w) in [0, 1]); at most 8
    columns, then the rows begin anew.
    """
    named = [(name, _images(values, name)) for name, values in rows]
    n = len(named[0][1])
    if {len(images) for _, images in named} != {n} or not 0 < n <= 200:
        raise DataError(f"rows of 1 to 200 pictures can be drawn, but {[len(images) for _, images in named]} came")
    across = min(_ACROSS, n)
    blocks = [range(start, min(start + across, n)) for start in range(0, n, across)]
    with drawing():
        below = ((0.0,) * (len(named) - 1) + (0.2,)) * len(blocks)
        grid = _Grid.of(np.concatenate([named[0][1][:1]] * across), [0.0] * (across - 1), below, head=0.36)
        if across > 3:
            grid.headings([title] * across)
        for number, block in enumerate(blocks):
            for line, (name, images) in enumerate(named):
                row = number * len(named) + line
                grid.row_label(row, drawable(name, 18), "")
                for column, place in enumerate(block):
                    _show(grid.axes(row, column), images[place])
        return grid.figure


def translated_sheet(found: Translated, spec: DataSpec, most: int) -> Figure:
    """At most `most` of the inputs, evenly chosen, over what was made of them; of pairs the condition first and the
    photo last.
    """
    chosen = np.unique(np.linspace(0, len(found.x) - 1, most).round().astype(int))
    x, made = unit(found.x[chosen], spec), found.made[chosen]
    pair = x.shape[1] - made.shape[1]
    rows = [("input", x), (f"as {found.to}", made)]
    if pair:
        rows = [("condition", x[:, :pair]), ("as a photo", made), ("photo", x[:, pair:])]
    return translation_sheet(rows, f"{spec.name} to {found.to}")
