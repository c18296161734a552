"""Heat-maps: where in an image the score of a detector comes from.

The colours are perceptually even (matplotlib's inferno) on a linear scale from nothing to the value that 99.5 % of the
pixels lie below: to the largest, one bright spot would turn all others black. What lowers a score is drawn as nothing.
"""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colorbar import Colorbar
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from numpy.typing import NDArray

from robustgen.errors import DataError
from robustgen.report.canvas import FRAME, INK, MUTED, Values, array, drawable, drawing, same_length

Pixels = NDArray[np.float64]

COLOURS = "inferno"
_CELL, _LEFT, _GAP, _HEAD, _FOOT, _BAR = 2.3, 0.12, 0.14, 0.62, 0.12, 0.85  # inches
_MOST_COLUMNS, _SMALL = 8, 0.98
_TICKS = (0.0, 0.25, 0.5, 0.75, 1.0)  # along the scale's length


def heat_map(image: Values, parts: Values, title: str, note: str, top: float | None = None) -> Figure:
    """Three panels: the input, the heat-map with its scale, and the heat-map over the input.

    `image`: (c, h, w) in [0, 1]; inputs that are neither grey nor RGB are shown by the mean of their channels. `parts`:
    (h, w), what each pixel adds to the score. `top`: the end of the scale, by default `end_of_scale`.
    """
    shown, heat = _grey_or_rgb(array(image, "image", "c h w")), array(parts, "parts", "h w").clip(min=0)
    if shown.shape[:2] != heat.shape:
        raise DataError(f"image and parts need one height and width, not {shown.shape[:2]} and {heat.shape}")
    norm = _scale(heat[None], top)
    tall = _CELL * min(max(heat.shape[0] / heat.shape[1], 0.4), 2.5)
    wide, high = _LEFT + 3 * _CELL + 2 * _GAP + _BAR, _HEAD + tall + _FOOT
    with drawing():
        figure = Figure(figsize=(wide, high))
        figure.text(_LEFT / wide, 1 - 0.2 / high, drawable(title, 60), fontsize=10, fontweight="bold", va="center")
        figure.text(
            1 - 0.12 / wide, 1 - 0.2 / high, drawable(note, 60), fontsize=8.5, color=MUTED, va="center", ha="right"
        )
        panels = [
            figure.add_axes(((_LEFT + i * (_CELL + _GAP)) / wide, _FOOT / high, _CELL / wide, tall / high), label=name)
            for i, name in enumerate(("input", "adds to the score", "both"))
        ]
        for axes in panels:
            _frame(axes)
            axes.set_title(str(axes.get_label()), fontsize=8.5, fontweight="normal", color=MUTED, pad=4)
        _draw(panels[0], shown)
        mappable = panels[1].imshow(heat, cmap=COLOURS, norm=norm, interpolation="nearest")
        _draw(panels[2], _over(shown, heat, norm))
        left = _LEFT + 3 * _CELL + 2 * _GAP + 0.1
        scale = figure.add_axes((left / wide, _FOOT / high, 0.1 / wide, tall / high), label="scale")
        _bar(figure.colorbar(mappable, cax=scale), norm)
    return figure


def heat_map_sheet(images: Values, parts: Values, notes: list[str], top: float | None = None) -> Figure:
    """Rows of up to eight inputs with the heat-map over each below it, and a line under it; one scale for all.

    `images`: (k, c, h, w) in [0, 1]. `parts`: (k, h, w). `notes`: (k,) such as score and name.
    """
    shown, heat = array(images, "images", "k c h w"), array(parts, "parts", "k h w").clip(min=0)
    if not len(shown) or (len(shown), *shown.shape[2:]) != heat.shape:
        raise DataError(f"images (k, c, h, w) and parts (k, h, w) must agree, not {shown.shape} and {heat.shape}")
    same_length(len(shown), notes=notes)
    norm = _scale(heat, top)
    columns, step = min(_MOST_COLUMNS, len(shown)), _SMALL + 0.1
    lines = -(-len(shown) // columns)
    tall = _SMALL * min(max(heat.shape[1] / heat.shape[2], 0.4), 2.5)
    block = 2 * tall + 0.04 + 0.36
    wide, high = 2 * _LEFT + columns * step + _BAR, lines * block + _LEFT
    with drawing():
        figure = Figure(figsize=(wide, high))
        for k in range(len(shown)):
            line, column = divmod(k, columns)
            left, upper = _LEFT + column * step, high - _LEFT - line * block - tall
            for row, bottom in (("input", upper), ("heat", upper - tall - 0.04)):
                axes = figure.add_axes((left / wide, bottom / high, _SMALL / wide, tall / high), label=f"{row}-{k}")
                _frame(axes)
                picture = _grey_or_rgb(shown[k])
                _draw(axes, picture if row == "input" else _over(picture, heat[k], norm))
            axes.text(
                0.5, -0.07, drawable(notes[k], 15), transform=axes.transAxes, ha="center", va="top", fontsize=7.4,
                color=INK,
            )  # fmt: skip
        scale = figure.add_axes(
            (
                (_LEFT + columns * step + 0.05) / wide,
                (high - _LEFT - 2 * tall - 0.04) / high,
                0.1 / wide,
                (2 * tall + 0.04) / high,
            ),
            label="scale",
        )
        _bar(figure.colorbar(ScalarMappable(norm, COLOURS), cax=scale), norm)
    return figure


def _bar(bar: Colorbar, norm: Normalize) -> None:
    """A scale with its ticks; beyond its end everything looks alike."""
    top = float(norm.vmax or 1.0)
    if bar.solids is not None:
        bar.solids.set(rasterized=True, edgecolor="face")  # 256 hair-thin shapes otherwise
    bar.set_ticks(
        [share * top for share in _TICKS],
        labels=[*(f"{share * top:.2g}" for share in _TICKS[:-1]), f"\N{GREATER-THAN OR EQUAL TO} {top:.2g}"],
    )
    bar.outline.set(edgecolor=FRAME, linewidth=0.7)
    bar.ax.tick_params(length=0, pad=3, labelsize=7.6)


def end_of_scale(parts: Values) -> float:
    """Where the scale of maps (k, h, w) ends: 99.5 % of their pixels lie below; 1 if nothing raises a score."""
    heat = array(parts, "parts", "k h w").clip(min=0)
    return (float(np.quantile(heat, 0.995)) or float(heat.max(initial=0.0)) if heat.size else 0.0) or 1.0


def _scale(heat: Pixels, top: float | None) -> Normalize:
    return Normalize(0, end_of_scale(heat) if top is None else top, clip=True)


def _grey_or_rgb(image: Pixels) -> Pixels:
    """(h, w, 3) in [0, 1]."""
    if len(image) != 3:
        image = image.mean(0, keepdims=True).repeat(3, 0)
    return image.clip(0, 1).transpose(1, 2, 0)


def _over(image: Pixels, heat: Pixels, norm: Normalize) -> Pixels:
    """The heat-map's colours over the input in grey: the stronger, the less of the input shines through."""
    from matplotlib import colormaps

    strength = np.asarray(norm(heat), dtype=np.float64)[..., None]
    grey = 0.75 * image.mean(2, keepdims=True)  # so that the brightest of it is not taken for the top of the scale
    cover = (1.5 * strength - 0.2).clip(0, 0.85)  # the weakest leave the input to be seen
    colours = np.asarray(colormaps[COLOURS](strength[..., 0])[..., :3], dtype=np.float64)
    mixed: Pixels = (1 - cover) * grey + cover * colours
    return mixed


def _draw(axes: Axes, picture: Pixels) -> None:
    axes.imshow(picture.clip(0, 1), interpolation="nearest")


def _frame(axes: Axes) -> None:
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set(visible=True, color=FRAME, linewidth=0.7)
