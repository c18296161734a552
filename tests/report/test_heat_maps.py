"""Heat-maps show the pixels and the parts they were given, on one scale."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from robustgen.errors import DataError, UsageError
from robustgen.report.canvas import svg
from robustgen.report.heat_maps import end_of_scale, heat_map, heat_map_sheet


def labelled(figure: Figure, label: str) -> Axes:
    (found,) = [axes for axes in figure.axes if axes.get_label() == label]
    return found


def test_a_heat_map_has_three_panels_and_its_scale() -> None:
    image = torch.rand(1, 6, 9, generator=torch.Generator().manual_seed(0))
    parts = np.zeros((6, 9))
    parts[2, 3], parts[0, 0] = 2.0, -5.0
    figure = heat_map(image, parts, "a.png", "score 3", top=4.0)
    shown = labelled(figure, "input").images[0].get_array()
    np.testing.assert_allclose(shown, image[0].numpy()[..., None].repeat(3, 2), atol=1e-6)
    heat = labelled(figure, "adds to the score").images[0]
    assert heat.get_clim() == (0, 4)
    np.testing.assert_allclose(heat.get_array(), parts.clip(min=0))
    both = np.asarray(labelled(figure, "both").images[0].get_array())
    np.testing.assert_allclose(both[5, 5], 0.75 * image[0, 5, 5].repeat(3), atol=1e-6)
    assert np.ptp(both[2, 3]) > 0.1
    ticks = [text.get_text() for text in labelled(figure, "scale").get_yticklabels()]
    assert ticks == ["0", "1", "2", "3", "\N{GREATER-THAN OR EQUAL TO} 4"]
    assert [text.get_text() for text in figure.texts] == ["a.png", "score 3"]


@pytest.mark.parametrize(("k", "c"), [(1, 1), (8, 3), (11, 2)])
def test_sheets_of_any_length_fit_the_page(k: int, c: int) -> None:
    generator = np.random.default_rng(0)
    figure = heat_map_sheet(generator.random((k, c, 5, 7)), generator.random((k, 5, 7)), [f"{i}" for i in range(k)])
    assert figure.get_size_inches()[0] <= 9.81
    assert len([axes for axes in figure.axes if axes.images]) == 2 * k
    assert labelled(figure, f"heat-{k - 1}").texts[0].get_text() == str(k - 1)
    assert svg(figure) == svg(figure)


def test_the_scale_ends_where_nearly_all_pixels_lie_below() -> None:
    parts = np.ones((1, 100, 100))
    parts[0, 0, 0] = 1e6
    assert end_of_scale(parts) == 1.0
    lonely = np.zeros((1, 100, 100))
    lonely[0, 0, 0] = 7.0
    assert end_of_scale(lonely) == 7.0
    assert end_of_scale(-lonely) == end_of_scale(np.zeros((0, 4, 4))) == 1.0


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(DataError, match="one height and width"):
        heat_map(np.zeros((1, 4, 4)), np.zeros((4, 5)), "", "")
    with pytest.raises(DataError, match="must agree"):
        heat_map_sheet(np.zeros((2, 1, 4, 4)), np.zeros((3, 4, 4)), ["", ""])
    with pytest.raises(UsageError, match="notes"):
        heat_map_sheet(np.zeros((2, 1, 4, 4)), np.zeros((2, 4, 4)), [""])
