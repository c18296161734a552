"""Pictures of pixels: inputs beside what an attack or a reconstruction made of them.

All inputs are (k, c, h, w) in [0, 1] with c = 1 (grey) or c = 3 (RGB). A pixel of the input is a square of the picture:
nothing is smoothed. Cells are placed by hand, in inches, so that rows and columns line up exactly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from robustgen.errors import DataError, UsageError
from robustgen.report.canvas import FRAME, INK, MUTED, WRONG, Values, array, drawable, drawing, percent, same_length

Pixels = NDArray[np.float64]

_WIDEST = 9.4  # inches, the page's text width
_MARGIN, _GAP, _LABELS = 0.08, 0.1, 1.3
_LETTERS_PER_INCH = 14.0  # of the small text at a cell


def adversarial_strip(
    clean: Values,
    adversarial: Values,
    labels: Values,
    clean_predictions: Values,
    adversarial_predictions: Values,
    confidences: tuple[Values, Values] | None = None,
    names: Sequence[str] | None = None,
    gain: float | None = None,
    notes: Sequence[str] | None = None,
) -> Figure:
    """Three rows for k inputs: clean, adversarial, and what was added, magnified; what the model said under each.

    `clean`, `adversarial`: (k, c, h, w) in [0, 1]. `labels` and both predictions: (k,) class numbers. `confidences`:
    (k,) in [0, 1] for the clean and for the adversarial predictions. `names`: the name of each class. Wrong predictions
    have another colour and a cross. `gain` magnifies the difference; by default it is the largest of 1, 2, 5, 10, ...
    at which nothing is cut off. Grey: blue is darker, red is brighter; RGB: 0.5 + gain times the difference, so that
    grey is no change. `notes`: a line under each difference, such as its size. About ten columns fit.
    """
    before, after = _images(clean, "clean"), _images(adversarial, "adversarial")
    if before.shape != after.shape:
        raise DataError(f"clean and adversarial must have one shape, but have {before.shape} and {after.shape}")
    truth, first, second = (
        array(values, name, "k").astype(int)
        for name, values in (
            ("labels", labels),
            ("clean_predictions", clean_predictions),
            ("adversarial_predictions", adversarial_predictions),
        )
    )
    same_length(len(before), labels=truth, clean_predictions=first, adversarial_predictions=second, notes=notes)
    sure = [None, None] if confidences is None else [array(values, "confidences", "k") for values in confidences]
    for confidence in sure:
        same_length(len(before), confidences=confidence)
    delta = after - before
    full = 1.0 if before.shape[1] == 1 else 0.5
    gain = _round_gain(full / max(float(np.abs(delta).max(initial=0.0)), 1e-9)) if gain is None else gain
    with drawing():
        text = 0.26 if confidences is None else 0.4
        grid = _Grid.of(before, [0.0] * (len(before) - 1), (text, text, _GAP if notes is None else 0.26), head=0.24)
        rows = ((before, first, sure[0]), (after, second, sure[1]))
        for column in range(len(before)):
            _under_title(grid.axes(0, column), _class_name(truth[column], names, grid.letters))
            for row, (images, predictions, confidence) in enumerate(rows):
                axes = grid.axes(row, column)
                _show(axes, images[column])
                right = predictions[column] == truth[column]
                said = _class_name(predictions[column], names, grid.letters - 3)
                if confidence is not None:
                    said += f"\n{percent(float(confidence[column]), 0)}"
                _under(axes, f"{'✓' if right else '✗'} {said}", INK if right else WRONG, bold=not right)
            _show_delta(grid.axes(2, column), delta[column], gain)
            if notes is not None:
                _under(grid.axes(2, column), drawable(notes[column], grid.letters), MUTED)
        grid.row_label(0, "clean", "true class above,\npredicted below")
        grid.row_label(1, "adversarial", "✗ wrong\n✓ right")
        colours = "blue darker,\nred brighter" if before.shape[1] == 1 else "mid-grey:\nno change"
        grid.row_label(2, f"difference \N{MULTIPLICATION SIGN} {gain:g}", colours)
    return grid.figure


def reconstruction_maps(
    inputs: Values,
    reconstructions: Values,
    error_maps: Values,
    titles: Sequence[str],
    notes: Sequence[str] | None = None,
) -> Figure:
    """Rows input, reconstruction, error heat-map; columns grouped under headings; one colour scale for all errors.

    `inputs`, `reconstructions`: (k, c, h, w) in [0, 1]. `error_maps`: (k, h, w), not negative. `titles`: the heading of
    each column; neighbours of one heading form a group. `notes`: a line under each column, such as its score.
    """
    before, after = _images(inputs, "inputs"), _images(reconstructions, "reconstructions")
    errors = array(error_maps, "error_maps", "k h w")
    if before.shape != after.shape or errors.shape != (len(before), *before.shape[2:]):
        shapes = f"{before.shape}, {after.shape}, {errors.shape}"
        raise DataError(f"inputs and reconstructions need one shape (k, c, h, w), error_maps (k, h, w), not {shapes}")
    same_length(len(before), titles=titles, notes=notes)
    top = float(errors[np.isfinite(errors)].max(initial=0.0)) or 1.0
    scale = PowerNorm(0.5, vmin=0, vmax=top)  # a linear scale turns all but the largest errors black
    with drawing():
        gaps = [0.0 if left == right else 0.22 for left, right in pairwise(titles)]
        grid = _Grid.of(before, gaps, (_GAP, _GAP, _GAP if notes is None else 0.26), head=0.36, right=0.62)
        for column in range(len(before)):
            _show(grid.axes(0, column), before[column])
            _show(grid.axes(1, column), after[column])
            axes = grid.axes(2, column)
            heat = axes.imshow(errors[column], cmap="magma", norm=scale, interpolation="nearest")
            if notes is not None:
                _under(axes, drawable(notes[column], grid.letters), INK)
        grid.headings(titles)
        for row, name in enumerate(("input", "reconstruction", "error")):
            grid.row_label(row, name, "")
        grid.colour_bar(2, heat)
    return grid.figure


@dataclass(frozen=True)
class _Grid:
    """Cells of `cell` by `tall` inches in three rows; `lefts` and `bottoms` are their corners in inches."""

    figure: Figure
    cell: float
    tall: float
    lefts: tuple[float, ...]
    bottoms: tuple[float, ...]

    @classmethod
    def of(
        cls, images: Pixels, gaps: Sequence[float], under: tuple[float, ...], head: float, right: float = 0.0
    ) -> _Grid:
        """Room for `images`: `gaps` between columns beyond the usual, what is `under` each row, a head line."""
        k, _, h, w = images.shape
        room = _WIDEST - _LABELS - right - 2 * _MARGIN - sum(gaps) - _GAP * (k - 1)
        cell = min(1.05, room / k)
        tall = cell * min(max(h / w, 0.4), 2.5)
        lefts = [_LABELS + _MARGIN]
        for gap in gaps:
            lefts.append(lefts[-1] + cell + _GAP + gap)
        height = head + sum(under) + tall * len(under) + _MARGIN
        bottoms, y = [], height - head
        for space in under:
            bottoms.append(y - tall)
            y -= tall + space
        figure = Figure(figsize=(lefts[-1] + cell + right + _MARGIN, height))
        return cls(figure, cell, tall, tuple(lefts), tuple(bottoms))

    @property
    def letters(self) -> int:
        """How many letters of small text fit at a cell."""
        return int((self.cell + 0.8 * _GAP) * _LETTERS_PER_INCH)

    def _box(self, left: float, bottom: float, width: float, height: float) -> tuple[float, float, float, float]:
        """Inches to shares of the figure."""
        wide, high = self.figure.get_size_inches()
        return left / wide, bottom / high, width / wide, height / high

    def axes(self, row: int, column: int) -> Axes:
        """The cell at `row`, `column`: made on first use, found again afterwards."""
        label = f"{row}-{column}"
        for axes in self.figure.axes:
            if axes.get_label() == label:
                return axes
        box = self._box(self.lefts[column], self.bottoms[row], self.cell, self.tall)
        axes = self.figure.add_axes(box, label=label)
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set(visible=True, color=FRAME, linewidth=0.7)
        return axes

    def row_label(self, row: int, name: str, detail: str) -> None:
        x, y, _, _ = self._box(self.lefts[0] - 0.14, self.bottoms[row] + self.tall / 2, 0, 0)
        self.figure.text(x, y, name, ha="right", va="bottom" if detail else "center", fontsize=9, fontweight="bold")
        self.figure.text(x, y - 0.006, detail, ha="right", va="top", fontsize=7.6, color=MUTED, linespacing=1.3)

    def headings(self, titles: Sequence[str]) -> None:
        """One heading and one rule over each run of equal titles."""
        for title, run in groupby(range(len(titles)), key=lambda column: titles[column]):
            columns = list(run)
            left, right = self.lefts[columns[0]], self.lefts[columns[-1]] + self.cell
            x, y, width, lift = self._box(left, self.bottoms[0] + self.tall + 0.07, right - left, 0.06)
            self.figure.add_artist(Line2D([x, x + width], [y, y], color=FRAME, linewidth=1.2))
            text = drawable(title, max(3, int((right - left) * 11)))
            self.figure.text(x + width / 2, y + lift, text, ha="center", va="bottom", fontsize=9, fontweight="bold")

    def colour_bar(self, row: int, image: AxesImage) -> None:
        box = self._box(self.lefts[-1] + self.cell + 0.1, self.bottoms[row], 0.1, self.tall)
        bar = self.figure.colorbar(image, cax=self.figure.add_axes(box, label="colour-bar"))
        if bar.solids is not None:
            bar.solids.set(rasterized=True, edgecolor="face")  # 256 hair-thin shapes otherwise
        bar.outline.set(edgecolor=FRAME, linewidth=0.7)
        bar.ax.tick_params(length=0, pad=3, labelsize=7.6)
        bar.ax.locator_params(nbins=3)


def _images(values: Values, name: str) -> Pixels:
    images = array(values, name, "k c h w")
    if images.shape[1] not in (1, 3) or 0 in images.shape:
        raise DataError(f"{name} must be (k, c, h, w) with c = 1 or 3 and at least one input, not {images.shape}")
    return np.clip(images, 0.0, 1.0)


def _show(axes: Axes, image: Pixels) -> None:
    """Draw (c, h, w) in [0, 1]."""
    shown: dict[str, Any] = {"cmap": "gray", "vmin": 0, "vmax": 1, "interpolation": "nearest"}
    axes.imshow(image[0] if len(image) == 1 else image.transpose(1, 2, 0), **shown)


def _show_delta(axes: Axes, delta: Pixels, gain: float) -> None:
    """Draw a difference, (c, h, w) in [-1, 1]: no change is the middle of the scale."""
    if len(delta) == 1:
        axes.imshow(delta[0] * gain, cmap="RdBu_r", vmin=-1, vmax=1, interpolation="nearest")
    else:
        _show(axes, np.clip(0.5 + gain * delta, 0.0, 1.0))


def _round_gain(limit: float) -> float:
    """The largest of 1, 2, 5, 10, 20, ... up to 1000 that does not exceed `limit`; at least 1."""
    steps = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0)
    return max((step for step in steps if step <= limit * (1 + 1e-6)), default=1.0)


def _class_name(index: int, names: Sequence[str] | None, letters: int) -> str:
    if names is None:
        return str(index)
    if not 0 <= index < len(names):
        raise UsageError(f"class {index} has no name: names holds those of classes 0 to {len(names) - 1}")
    return drawable(names[index], max(letters, 3))


def _under(axes: Axes, text: str, colour: str, bold: bool = False) -> None:
    axes.text(
        0.5, -0.06, text, transform=axes.transAxes, ha="center", va="top", fontsize=8, color=colour,
        fontweight="bold" if bold else "normal", linespacing=1.25,
    )  # fmt: skip


def _under_title(axes: Axes, text: str) -> None:
    axes.text(0.5, 1.06, text, transform=axes.transAxes, ha="center", va="bottom", fontsize=8, color=MUTED)
