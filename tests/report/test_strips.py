"""Strips show the pixels they were given, and say which predictions are wrong."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm, to_hex
from matplotlib.figure import Figure
from numpy.typing import NDArray

from robustgen.errors import DataError, UsageError
from robustgen.report import adversarial_strip, reconstruction_maps
from robustgen.report.canvas import INK, WRONG, svg

Array = NDArray[np.float64]


def said(axes: Axes) -> list[str]:
    return [text.get_text() for text in axes.texts]


def cell(figure: Figure, row: int, column: int) -> Axes:
    (found,) = [axes for axes in figure.axes if axes.get_label() == f"{row}-{column}"]
    return found


def shown(axes: Axes) -> Array:
    (image,) = axes.images
    assert image.get_interpolation() == "nearest"
    return np.asarray(image.get_array(), dtype=float)


def test_a_grey_strip_centres_the_difference_and_marks_what_is_wrong() -> None:
    clean = torch.full((2, 1, 4, 4), 0.5)
    adversarial = clean.clone()
    adversarial[0, 0, 0, 0] += 0.1
    adversarial[1, 0, 0, 1] -= 0.05
    confidences = (torch.tensor([0.9, 0.8]), torch.tensor([0.999, 1.0]))
    labels = torch.tensor([3, 7])
    figure = adversarial_strip(clean, adversarial, labels, labels, torch.tensor([8, 7]), confidences)
    (image,) = cell(figure, 2, 0).images
    assert image.get_clim() == (-1, 1)
    assert shown(cell(figure, 2, 0))[0, 0] == pytest.approx(1.0)
    assert shown(cell(figure, 2, 0))[3, 3] == 0
    assert shown(cell(figure, 2, 1))[0, 1] == pytest.approx(-0.5)
    assert any(text.get_text() == "difference × 10" for text in figure.texts)  # noqa: RUF001
    np.testing.assert_allclose(shown(cell(figure, 1, 0)), adversarial[0, 0])
    assert said(cell(figure, 0, 0)) == ["3", "✓ 3\n90 %"]
    assert said(cell(figure, 1, 0)) == ["✗ 8\n> 99 %"]
    assert said(cell(figure, 1, 1)) == ["✓ 7\n100 %"]
    assert to_hex(cell(figure, 1, 0).texts[0].get_color()) == WRONG
    assert to_hex(cell(figure, 1, 1).texts[0].get_color()) == INK


def test_a_colour_strip_shows_no_change_as_mid_grey() -> None:
    clean = np.random.default_rng(0).uniform(0.3, 0.7, (3, 3, 5, 4))
    adversarial = clean.copy()
    adversarial[1, 2, 0, 0] += 0.2
    figure = adversarial_strip(
        clean, adversarial, [0, 1, 2], [0, 1, 2], [1, 1, 1], names=["cat", "dog", "bird"], gain=4
    )
    np.testing.assert_allclose(shown(cell(figure, 0, 2)), clean[2].transpose(1, 2, 0))
    np.testing.assert_allclose(shown(cell(figure, 2, 0)), 0.5)
    assert shown(cell(figure, 2, 1))[0, 0, 2] == 1.0, "0.5 + 4 * 0.2 is clipped"
    assert said(cell(figure, 1, 0)) == ["✗ dog"]
    assert any(text.get_text() == "difference × 4" for text in figure.texts)  # noqa: RUF001


@pytest.mark.parametrize("k", [1, 14])
@pytest.mark.parametrize("c", [1, 3])
def test_strips_of_any_length_fit_the_page(k: int, c: int) -> None:
    clean = np.zeros((k, c, 6, 9))
    classes = np.arange(k)
    names = ["a class with quite a long name 猫 🐈 $x_{ \\frac"] * k
    figure = adversarial_strip(clean, clean, classes, classes, classes[::-1], names=names)
    assert figure.get_size_inches()[0] <= 9.41
    assert any(text.get_text().endswith(" 1000") for text in figure.texts), "no difference: the largest gain"
    assert svg(figure)


def test_strips_that_do_not_fit_together_are_refused() -> None:
    one, two = np.zeros((2, 1, 3, 3)), np.zeros((2, 2, 3, 3))
    with pytest.raises(DataError, match="one shape"):
        adversarial_strip(one, one[:1], [0, 0], [0, 0], [0, 0])
    with pytest.raises(DataError, match="c = 1 or 3"):
        adversarial_strip(two, two, [0, 0], [0, 0], [0, 0])
    with pytest.raises(DataError, match="at least one input"):
        adversarial_strip(one[:0], one[:0], [], [], [])
    with pytest.raises(UsageError, match="labels must have one entry for each of 2"):
        adversarial_strip(one, one, [0], [0, 0], [0, 0])
    with pytest.raises(UsageError, match="class 4 has no name"):
        adversarial_strip(one, one, [0, 4], [0, 0], [0, 0], names=["a", "b"])
    with pytest.raises(UsageError, match="confidences"):
        adversarial_strip(one, one, [0, 0], [0, 0], [0, 0], confidences=([0.5], [0.5, 0.5]))
    with pytest.raises(DataError, match="error_maps"):
        reconstruction_maps(one, one, np.zeros((2, 3, 4)), ["a", "b"])
    with pytest.raises(UsageError, match="titles"):
        reconstruction_maps(one, one, np.zeros((2, 3, 3)), ["a"])


def test_reconstruction_maps_share_one_scale_and_group_their_columns() -> None:
    inputs = torch.rand((5, 1, 8, 8), generator=torch.Generator().manual_seed(0))
    errors = (inputs[:, 0] - 0.5) ** 2
    titles = ["clean", "clean", "adversarial", "foreign", "foreign"]
    figure = reconstruction_maps(inputs, inputs * 0 + 0.5, errors, titles, notes=["1", "2", "3", "4", "▲ 5"])
    norms = [cell(figure, 2, column).images[0].norm for column in range(5)]
    assert all(norm is norms[0] for norm in norms)
    assert isinstance(norms[0], PowerNorm)
    assert norms[0].vmax == pytest.approx(float(errors.max()))
    headings = [text.get_text() for text in figure.texts if text.get_text() in set(titles)]
    assert headings == ["clean", "adversarial", "foreign"]
    lefts = np.array([cell(figure, 0, column).get_position().x0 for column in range(5)])
    steps = np.diff(lefts)
    assert steps[1] > steps[0]
    assert steps[2] > steps[0]
    assert steps[3] == pytest.approx(steps[0])
    assert said(cell(figure, 2, 4)) == ["▲ 5"]
    assert "colour-bar" in {axes.get_label() for axes in figure.axes}


def test_maps_without_any_error_are_drawn() -> None:
    grey = np.zeros((1, 3, 4, 4))
    assert svg(reconstruction_maps(grey, grey, np.zeros((1, 4, 4)), ["clean"]))
