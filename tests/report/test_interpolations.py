from __future__ import annotations

import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from robustgen.data.source import DataSpec
from robustgen.errors import DataError
from robustgen.evaluation.interpolation import CONTROL, Course
from robustgen.report.canvas import INK, WRONG, svg
from robustgen.report.interpolations import corner_grids, path_strip

SPEC = DataSpec("toy", "image", (1, 3, 4), low=-1.0, high=1.0)


def ways(name: str, rows: int, steps: int, seed: int) -> Course:
    rng = np.random.default_rng(seed)
    x = torch.from_numpy(rng.random((rows, steps, 1, 3, 4)) * 2 - 1)
    p = rng.random((rows, steps))
    distances = rng.random((rows, steps - 1)) + 0.5
    cycle = None if name == CONTROL else rng.random((rows, steps))
    return Course(name, x, distances, distances.sum(1) / 2, cycle, {"judge": p}, {"judge": p <= 0.3})


def shown(figure: Figure, label: str) -> np.ndarray:
    (axes,) = [axes for axes in figure.axes if axes.get_label() == label]
    (image,) = axes.images
    return np.asarray(image.get_array(), dtype=float)


def test_a_path_is_shown_step_by_step_and_flagged_inputs_stand_out() -> None:
    courses = [ways(CONTROL, 2, 5, 0), ways("autoencoder", 2, 5, 1), ways("vae", 2, 5, 2)]
    figure = path_strip(courses, SPEC, "inputs 3, 8 of toy", way=1)
    for row, course in enumerate(courses):
        for column in range(5):
            np.testing.assert_allclose(shown(figure, f"{row}-{column}"), (course.x[1, column, 0] + 1) / 2)
            (axes,) = [axes for axes in figure.axes if axes.get_label() == f"{row}-{column}"]
            p_value = course.p_values["judge"][1, column]
            assert axes.texts[0].get_text() == f"{p_value:.2g}"
            assert to_hex(axes.texts[0].get_color()) == (WRONG if p_value <= 0.3 else INK)
    words = [text.get_text() for text in figure.texts]
    assert "inputs 3, 8 of toy; under each its p-value by judge" in words
    assert f"unevenness {courses[1].unevenness[1]:.2f}" in "".join(words)
    assert sum("cycle" in word for word in words) == 2  # not of the control
    assert svg(figure) == svg(path_strip(courses, SPEC, "inputs 3, 8 of toy", way=1))


def test_a_grid_is_shown_whole_with_its_corners_framed() -> None:
    courses = [ways(CONTROL, 3, 5, 0), ways("autoencoder", 3, 5, 1)]
    figure = corner_grids(courses, SPEC, "inputs 0, 1, 2, 3 of toy")
    for course, axes in zip(courses, figure.axes, strict=True):
        whole = shown(figure, course.name)
        assert whole.shape == (9, 20)
        np.testing.assert_allclose(whole[3:6, 8:12], (course.x[1, 2, 0] + 1) / 2)
        frames = sorted(patch.get_xy() for patch in axes.patches)
        assert frames == [(-0.5, -0.5), (-0.5, 5.5), (15.5, -0.5), (15.5, 5.5)]
        assert axes.get_title(loc="left") == course.name
        assert f"detour {course.detour.mean():.2f}" in axes.texts[0].get_text()


def test_tables_are_not_drawn() -> None:
    table = DataSpec("toy", "table", (12,))
    with pytest.raises(DataError, match="no images"):
        path_strip([ways(CONTROL, 1, 3, 0)], table, "t")
