"""Charts of leaderboards: names can be read."""

from __future__ import annotations

from itertools import combinations

from robustgen.report.rankings import frontier


def test_names_of_near_points_do_not_cover_each_other() -> None:
    points = [(f"detector {number}", 0.86 + 0.004 * number, 0.012 - 0.002 * number) for number in range(5)]
    figure = frontier({"classifier trained plain": points}, [], "")
    (axes,) = figure.axes
    boxes = [text.get_window_extent() for text in axes.texts]
    assert len(boxes) == 5
    assert not any(one.overlaps(other) for one, other in combinations(boxes, 2))
    for box in boxes:
        assert axes.bbox.x0 <= box.x0 < box.x1 <= axes.bbox.x1
        assert axes.bbox.y0 <= box.y0 < box.y1 <= axes.bbox.y1
