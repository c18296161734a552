"""Charts of counts draw the numbers they are given, for any name, in colours that have a dark twin."""

from __future__ import annotations

import re

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle, StepPatch

from robustgen.errors import DataError, UsageError
from robustgen.report import class_bars, count_bars, count_histogram, flow_map, security_curve
from robustgen.report.canvas import COLOURS, svg


def only(figure: Figure) -> Axes:
    (axes,) = figure.axes
    return axes


def said(axes: Axes) -> list[str]:
    return [text.get_text() for text in axes.texts]


def bins(figure: Figure) -> tuple[np.ndarray, np.ndarray]:
    heights, edges, _ = next(patch for patch in only(figure).patches if isinstance(patch, StepPatch)).get_data()
    return np.asarray(heights), np.asarray(edges)


def test_class_bars_show_what_is_left_inside_what_was_there() -> None:
    figure = class_bars(["cat", "dog"], [0.9, 0.8], [0.25, 0.0], ([0.1, 0.0], [0.4, 0.2]))
    widths = [[bar.get_width() for bar in container] for container in only(figure).containers]
    assert widths == [[0.9, 0.8], [0.25, 0.0]]
    assert said(only(figure)) == ["25 %", "0 %"]
    assert [text.get_text() for text in only(figure).get_yticklabels()] == ["cat", "dog"]
    assert only(figure).yaxis_inverted(), "the first name is at the top"
    with pytest.raises(UsageError, match="one entry for each of 2"):
        class_bars(["cat", "dog"], [0.9, 0.8], [0.25])


def test_count_bars_and_their_numbers() -> None:
    figure = count_bars(["apgd-ce", "square"], [1200, 0])
    assert [bar.get_width() for bar in only(figure).containers[0]] == [1200, 0]
    assert said(only(figure)) == ["1200", "0"]
    assert svg(count_bars([], []))


def test_whole_numbers_are_never_cut_and_all_are_counted() -> None:
    steps = np.array([0, 1, 1, 7, 40])
    heights, edges = bins(count_histogram(steps, "steps", whole=True))
    assert heights.sum() == len(steps)
    assert not np.any(edges == np.round(edges))
    assert heights[1] == 2
    heights, edges = bins(count_histogram(np.arange(10_000), "queries", whole=True))
    assert len(heights) <= 60
    assert len(set(heights[:-1])) == 1


@pytest.mark.parametrize("values", [[], [3.0], [0.0, 0.0], [1.0, np.inf, -np.inf], [1e-30, 2e-30]])
def test_any_values_make_a_histogram_that_counts_all_of_them(values: list[float]) -> None:
    mark = (values[0], "median") if values else None
    figure = count_histogram(values, "margin", "Title", mark)
    assert bins(figure)[0].sum() == len(values)
    assert said(only(figure)) == ["median"][: len(values)]
    assert svg(figure)


def test_a_flow_map_writes_each_count_into_its_cell() -> None:
    counts = np.array([[0, 3, 0], [1, 0, 0], [0, 12, 0]])
    figure = flow_map(counts, ["a", "b", "c"])
    placed = {
        (round(text.get_position()[1]), round(text.get_position()[0])): text.get_text() for text in only(figure).texts
    }
    assert placed == {(0, 1): "3", (1, 0): "1", (2, 1): "12"}
    deepest = max(
        (patch for patch in only(figure).patches if isinstance(patch, Rectangle)), key=lambda p: p.get_alpha() or 0
    )
    assert (deepest.get_x(), deepest.get_y()) == (0.5, 1.5)
    with pytest.raises(DataError, match="at least one class"):
        flow_map(np.zeros((0, 0)), [])
    with pytest.raises(UsageError):
        flow_map(counts, ["a", "b"])


@pytest.mark.parametrize("name", ["猫", "$\\frac{", "--><script>", "_hidden", "x" * 300, "\x00"])
def test_hostile_names_are_only_names(name: str) -> None:
    for figure in (
        class_bars([name, "b"], [1, 1], [0, 1]),
        count_bars([name], [3], name, name),
        count_histogram([1.0, 2.0], name, name, (1.0, "x")),
        flow_map(np.array([[0, 1], [1, 0]]), [name, "b"], name),
    ):
        text = svg(figure)
        assert "<script" not in text
        body = text.partition("</style>")[2]
        assert set(re.findall(r"var\(--([a-z0-9-]+)\)", body)) <= {known for known, _ in COLOURS.values()}
        assert not re.findall(r"#[0-9a-f]{6}", body.replace("#ffffff", ""))


def test_a_security_curve_marks_the_eps_of_the_run_and_drops_crowded_points() -> None:
    figure = security_curve([0, 0.1, 0.2], {"pgd": [0.9, 0.5, 0.1]}, title="T", mark=(0.1, "this run, eps 0.1"))
    (mark,) = [line for line in only(figure).lines if line.get_gid() == "mark"]
    assert list(np.asarray(mark.get_xdata(), dtype=float)) == [0.1, 0.1]
    assert said(only(figure)) == ["this run, eps 0.1"]
    many = np.linspace(0, 1, 200)
    (line,) = only(security_curve(many, {"fmn": 1 - many})).lines
    assert line.get_marker() == ""
