"""What all figures share: colours for light and dark, text that can be drawn, arrays at the edge, one way to embed.

A figure is drawn once, in the light colours of `COLOURS`, and embedded as SVG in which each of these colours is a CSS
variable with a dark twin. The paper is part of the picture, so paper and ink always change together: a viewer that
does not know dark mode shows a white card, never dark text on a dark page.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from io import StringIO
from typing import TYPE_CHECKING, Any, TypeAlias

import matplotlib
import matplotlib.style
import numpy as np
from matplotlib import font_manager
from matplotlib.figure import Figure
from matplotlib.ft2font import FT2Font
from numpy.typing import NDArray

from robustgen.errors import DataError, UsageError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from torch import Tensor

Values: TypeAlias = "NDArray[Any] | Tensor | Sequence[float]"
"""What a figure takes: a numpy array, a torch tensor on any device, or a sequence of numbers."""

PAPER, INK, MUTED, GRID, FRAME, WRONG = "#fffffe", "#1b2230", "#5a6473", "#e6e9ee", "#c2c9d3", "#c03a0a"
SERIES = ("#0072b2", "#d55e00", "#009e73", "#a8508c", "#b98200", "#66707e")
"""Line and bar colours after Okabe and Ito (2008), darkened for contrast on white; lines differ in dashes too."""
DASHES: tuple[Any, ...] = ("-", (0, (5, 1.6)), (0, (1.2, 1.4)), (0, (5, 1.4, 1.2, 1.4)), (0, (8, 2.5)), (0, (2.5, 1.5)))

COLOURS = {  # light: (name, dark)
    PAPER: ("paper", "#1a1e26"),
    INK: ("ink", "#e8ebf0"),
    MUTED: ("muted", "#a3adbb"),
    GRID: ("grid", "#2b313c"),
    FRAME: ("frame", "#4a5362"),
    WRONG: ("wrong", "#ff9a70"),
    SERIES[0]: ("series-0", "#58b2f0"),
    SERIES[1]: ("series-1", "#ff9050"),
    SERIES[2]: ("series-2", "#3ccb9f"),
    SERIES[3]: ("series-3", "#e39bcb"),
    SERIES[4]: ("series-4", "#eec24e"),
    SERIES[5]: ("series-5", "#b4bdc9"),
}

_FONT = "DejaVu Sans"  # ships with matplotlib: the same letters on every machine
_BOX = "\N{WHITE SQUARE}"
_RASTER_DPI = 192  # of the pixels inside an SVG: twice a CSS pixel

_STYLE: dict[str, Any] = {
    "font.family": [_FONT],
    "font.size": 9.5,
    "text.color": INK,
    "text.parse_math": False,  # a class may be called "$x"
    "figure.facecolor": PAPER,
    "axes.facecolor": "none",
    "axes.edgecolor": FRAME,
    "axes.labelcolor": MUTED,
    "axes.titlecolor": INK,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.unicode_minus": True,
    "axes.formatter.use_mathtext": False,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": FRAME,
    "ytick.color": FRAME,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "svg.fonttype": "path",
    "svg.hashsalt": "robustgen",
    "svg.image_inline": True,
}


@contextmanager
def drawing() -> Iterator[None]:
    """The report's style and nothing of the user's; matplotlib's settings are as they were afterwards."""
    with matplotlib.style.context(["default", _STYLE]):
        yield


def series(index: int) -> tuple[str, Any]:
    """Colour and dash pattern of the `index`-th line of a chart."""
    return SERIES[index % len(SERIES)], DASHES[(index + index // len(SERIES)) % len(DASHES)]


def array(values: Values, name: str, shape: str) -> NDArray[np.float64]:
    """`values` as float64 on the CPU. `shape` names the axes, as in `"k c h w"`; NaN is refused.

    Raises `DataError` when the number of axes differs, or a value is NaN.
    """
    source: Any = values
    if hasattr(source, "detach"):
        source = source.detach().cpu().double().numpy()
    result: NDArray[np.float64] = np.asarray(source, dtype=np.float64)
    if result.ndim != len(shape.split()):
        raise DataError(f"{name} must have the axes ({shape}), but its shape is {result.shape}")
    if np.isnan(result).any():
        raise DataError(f"{name} holds NaN: {int(np.isnan(result).sum())} of {result.size} values; remove them first")
    return result


def same_length(count: int, **named: Sequence[Any] | NDArray[Any] | None) -> None:
    """Raise `UsageError` unless every argument that is given has `count` entries."""
    for name, values in named.items():
        if values is not None and len(values) != count:
            raise UsageError(f"{name} must have one entry for each of {count}, but it has {len(values)}")


@cache
def _font() -> FT2Font:
    return FT2Font(font_manager.findfont(_FONT))


def drawable(text: str, limit: int = 40) -> str:
    """`text` as a figure can show it: one line, at most `limit` characters, a box for what the font does not have."""
    line = " ".join(text.split())
    if len(line) > limit:
        line = line[: limit - 1].rstrip() + "…"
    return "".join(char if _font().get_char_index(ord(char)) else _BOX for char in line)


def percent(share: float, digits: int = 1) -> str:
    """`0.0512` as `"5.1 %"`; what is not quite none or all is never written as `"0.0 %"` or `"100.0 %"`."""
    unit = 10.0**-digits
    if share > 0 and 100 * share < unit / 2:
        return f"< {unit:g} %"
    if share < 1 and 100 * share >= 100 - unit / 2:
        return f"> {100 - unit:g} %"
    return f"{100 * share:.{digits}f} %"


def chart(width: float, height: float, title: str | None, xlabel: str, ylabel: str) -> tuple[Figure, Axes]:
    """A figure of `width` by `height` inches with one pair of axes. Call it inside `drawing()`."""
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    axes.grid(True)
    axes.tick_params(length=0, pad=5)
    if title:
        axes.set_title(drawable(title, 90), pad=10)
    return figure, axes


def settle(figure: Figure) -> Figure:
    """Lay the figure out once and for all: laid out again at each drawing, it would move by hundredths of a pixel."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    return figure


def place_legend(figure: Figure, axes: Axes) -> None:
    """The legend under the axes, in as many columns as its longest label leaves room for."""
    handles, labels = axes.get_legend_handles_labels()
    if labels:
        columns = int(92 // (max(map(len, labels)) + 9))
        columns = max(1, min(len(labels), columns))
        figure.legend(handles, labels, loc="outside lower left", ncols=columns, handlelength=2.5, columnspacing=2.2)


def legend_label(name: str, text: str = "") -> str:
    """`name` and what is said of it; matplotlib drops labels that begin with an underscore, so they are indented."""
    shown = drawable(name) + (f"   {text}" if text else "")
    return f" {shown}" if shown.startswith("_") else shown


def svg(figure: Figure) -> str:
    """The figure as SVG text that follows the reader's light or dark setting; the same figure, the same text."""
    buffer = StringIO()
    with drawing():
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(buffer, format="svg", dpi=_RASTER_DPI, metadata=nothing)
    text = buffer.getvalue()
    text = re.sub(r"<!--.*?-->\n?", "", text[text.index("<svg") :], flags=re.DOTALL)
    for light, (name, _) in COLOURS.items():
        text = text.replace(light, f"var(--{name})")
    light_rule = "".join(f"--{name}:{light};" for light, (name, _) in COLOURS.items())
    dark_rule = "".join(f"--{name}:{dark};" for name, dark in COLOURS.values())
    style = f"<style>:root{{{light_rule}}}@media (prefers-color-scheme:dark){{:root{{{dark_rule}}}}}</style>"
    head, opening, rest = text.partition(">")
    return head + opening + style + rest


def data_uri(figure: Figure) -> str:
    """The figure as a `data:` address for an `img`. Its text is drawn as outlines, its pixels are PNG inside."""
    return "data:image/svg+xml;base64," + base64.b64encode(svg(figure).encode("utf-8")).decode("ascii")
