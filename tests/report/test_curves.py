"""Charts draw what they claim: the bins, the threshold, the rates, the bands."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import StepPatch
from numpy.typing import NDArray

from robustgen.errors import DataError, UsageError
from robustgen.report import roc_curves, score_histograms, security_curve
from robustgen.report.canvas import Values, svg

Array = NDArray[np.float64]


def only(figure: Figure) -> Axes:
    (axes,) = figure.axes
    return axes


def line(axes: Axes, gid: str) -> tuple[Array, Array]:
    (found,) = [item for item in axes.lines if item.get_gid() == gid]
    return np.asarray(found.get_xdata(), dtype=float), np.asarray(found.get_ydata(), dtype=float)


def legend(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


def bins(patch: StepPatch) -> tuple[Array, Array]:
    """The heights and the edges of a histogram."""
    heights, edges, _ = patch.get_data()
    return np.asarray(heights), np.asarray(edges)


def said(axes: Axes) -> list[str]:
    return [text.get_text() for text in axes.texts]


def test_histograms_share_bins_and_mark_the_threshold() -> None:
    groups: dict[str, Values] = {
        "clean": np.linspace(0, 1, 200),
        "adversarial": torch.linspace(0.5, 2, 60, requires_grad=True),
    }
    figure = score_histograms(groups, 0.95, "Scores", 0.05)
    axes = only(figure)
    steps = [patch for patch in axes.patches if isinstance(patch, StepPatch)]
    assert len(steps) == 4
    for patch in steps:
        np.testing.assert_array_equal(bins(patch)[1], bins(steps[0])[1])
        assert bins(patch)[0].sum() == pytest.approx(1)
    x, _ = line(axes, "threshold")
    assert list(x) == [0.95, 0.95]
    assert said(axes) == ["threshold 0.95, set for 5 % false alarms"]
    assert legend(figure) == ["clean   5.0 % above", "adversarial   70.0 % above"]
    assert axes.get_xscale() == "linear"
    assert axes.get_title(loc="left") == "Scores"


def test_scores_over_decades_get_a_logarithmic_axis_unless_some_are_not_positive() -> None:
    spread = np.geomspace(1e-3, 1e3, 100)
    assert only(score_histograms({"a": spread}, 1.0)).get_xscale() == "log"
    assert only(score_histograms({"a": spread, "b": [0.0]}, 1.0)).get_xscale() == "linear"
    assert only(score_histograms({"a": spread}, -1.0)).get_xscale() == "linear"
    assert only(score_histograms({"a": [1.0, 3.0]}, 2.0)).get_xscale() == "linear"


@pytest.mark.parametrize("outlier", [1e9, np.inf])
def test_an_outlier_is_counted_without_stretching_the_axis(outlier: float) -> None:
    scores = np.append(np.linspace(-1, 1, 999), outlier)
    axes = only(score_histograms({"a": scores}, 0.5))
    assert axes.get_xlim()[1] < 2
    assert "outermost" in axes.get_xlabel()
    (fill, _) = [patch for patch in axes.patches if isinstance(patch, StepPatch)]
    assert bins(fill)[0].sum() == pytest.approx(1)


@pytest.mark.parametrize(
    ("groups", "threshold"),
    [
        ({}, 1.0),
        ({"none": []}, 0.0),
        ({"none": [], "one": [2.0]}, 2.0),
        ({"constant": [3.0] * 50}, 3.0),
        ({"constant": [0.0] * 50}, 0.0),
        ({"tiny": [1e-300] * 3}, 1e-300),
        ({"far": [1e12, 1e12]}, -5.0),
        ({"infinite": [np.inf, -np.inf]}, 0.0),
    ],
)
def test_odd_groups_are_drawn(groups: dict[str, list[float]], threshold: float) -> None:
    figure = score_histograms(groups, threshold)
    low, high = only(figure).get_xlim()
    assert low < threshold < high
    assert svg(figure)
    if groups:
        assert len(legend(figure)) == len(groups)
    if "none" in groups:
        assert legend(figure)[0] == "none   no inputs"


def test_scores_that_cannot_be_drawn_are_refused() -> None:
    with pytest.raises(DataError, match="scores of 'a' holds NaN: 1 of 2"):
        score_histograms({"a": [1.0, np.nan]}, 0.0)
    with pytest.raises(DataError, match=r"must have the axes \(n\)"):
        score_histograms({"a": np.zeros((2, 2))}, 0.0)
    with pytest.raises(UsageError, match="finite"):
        score_histograms({"a": [1.0]}, np.inf)


def test_roc_curves_say_auroc_and_mark_the_chosen_rate() -> None:
    curves: dict[str, tuple[Values, Values, float]] = {
        "PCA": (np.array([0, 0.1, 1.0]), np.array([0, 0.6, 1.0]), 0.8),
        "step": (torch.tensor([0, 0.05, 0.05, 1.0]), torch.tensor([0, 0, 0.9, 1.0]), 0.93),
    }
    figure = roc_curves(curves, "ROC", 0.05)
    axes = only(figure)
    assert legend(figure) == ["PCA   AUROC 0.800", "step   AUROC 0.930"]
    x, y = line(axes, "chance")
    np.testing.assert_array_equal(x, y)
    assert set(line(axes, "mark")[0]) == {0.05}
    np.testing.assert_allclose(np.concatenate(line(axes, "mark-0")), [0.05, 0.3])
    np.testing.assert_allclose(np.concatenate(line(axes, "mark-1")), [0.05, 0.9], atol=1e-6)
    assert "5 % false alarms" in said(axes)


@pytest.mark.parametrize(
    ("fpr", "tpr"), [([0, 1.2], [0, 1]), ([1, 0], [0, 1]), ([0, 1], [-0.1, 1]), ([], []), ([0, 1], [1])]
)
def test_what_is_no_roc_curve_is_refused(fpr: list[float], tpr: list[float]) -> None:
    with pytest.raises(UsageError):
        roc_curves({"a": (fpr, tpr, 0.5)})


def test_an_empty_and_a_single_point_curve_are_drawn() -> None:
    assert svg(roc_curves({}, mark_fpr=0.0))
    assert svg(roc_curves({"one": ([0.5], [0.5], 0.5)}, mark_fpr=1.0))
    assert svg(security_curve([0.1], {"one": [0.5]}))
    assert svg(security_curve([], {}))


def test_security_curve_draws_values_bands_and_chance() -> None:
    eps, low, high = [0.0, 0.1, 0.2], [0.8, 0.3, 0.0], [1.0, 0.5, 0.1]
    figure = security_curve(eps, {"PGD": [0.9, 0.4, 0.05], "none": torch.ones(3)}, {"PGD": (low, high)}, chance=0.1)
    axes = only(figure)
    np.testing.assert_allclose(np.asarray(axes.lines[0].get_xydata()), np.array([eps, [0.9, 0.4, 0.05]]).T)
    (band,) = [item for item in axes.collections if item.get_gid() == "band-0"]
    corners = np.asarray(band.get_paths()[0].vertices)
    assert {tuple(point) for point in zip(eps, [*low], strict=True)} <= {tuple(map(float, row)) for row in corners}
    assert {tuple(point) for point in zip(eps, [*high], strict=True)} <= {tuple(map(float, row)) for row in corners}
    assert legend(figure) == ["PGD", "none", "chance"]
    assert set(line(axes, "chance")[1]) == {0.1}
    with pytest.raises(UsageError, match=r"unknown series \['FGSM'\]"):
        security_curve(eps, {"PGD": low}, {"FGSM": (low, high)})
    with pytest.raises(UsageError, match="one entry for each of 3"):
        security_curve(eps, {"PGD": [0.1]})
