from __future__ import annotations

import numpy as np
import pytest

from robustgen.errors import UsageError
from robustgen.report import latent_map
from robustgen.report.canvas import svg


def test_points_are_shown_by_class_and_by_score() -> None:
    rng = np.random.default_rng(0)
    points, scores = rng.random((50, 2)), np.arange(50.0)
    labels = np.arange(50) % 8
    names = [f"class {number}" for number in range(8)]
    figure = latent_map(points, scores, 44.5, labels, names, ("left", "up"), "codes of toy")
    by_class, by_score = figure.axes[:2]
    assert (by_class.get_title(loc="left"), by_score.get_title(loc="left")) == ("by class", "by score")
    drawn = np.concatenate([np.asarray(part.get_offsets()) for part in by_class.collections])
    assert {tuple(point) for point in drawn} == {tuple(point) for point in points}
    words = {text.get_text(): text.get_position() for text in by_class.texts}
    assert set(words) == {f"{'●' if number < 6 else '▲'} class {number}" for number in range(8)}
    np.testing.assert_allclose(words["● class 3"], np.median(points[labels == 3], axis=0))
    everything, flagged = by_score.collections
    np.testing.assert_allclose(everything.get_offsets(), points[np.argsort(scores)])
    np.testing.assert_allclose(flagged.get_offsets(), points[45:])
    assert by_score.get_legend().get_texts()[0].get_text() == "flagged: 5 of 50"
    assert (by_class.get_xlabel(), by_class.get_ylabel()) == ("left", "up")
    assert svg(figure) == svg(latent_map(points, scores, 44.5, labels, names, ("left", "up"), "codes of toy"))


def test_a_few_far_scores_do_not_hide_the_others() -> None:
    scores = np.array([1.0, 2, 3, 1e9])
    colours = latent_map(np.random.default_rng(0).random((4, 2)), scores, 5).axes[0].collections[0].get_array()
    np.testing.assert_allclose(colours, [0.25, 0.5, 0.75, 1])


def test_rare_classes_share_a_grey() -> None:
    labels = np.concatenate([np.repeat(np.arange(24), 3), [24, 25]])
    figure = latent_map(np.random.default_rng(0).random((74, 2)), np.zeros(74), 1, labels)
    words = {text.get_text().split()[1] for text in figure.axes[0].texts}
    assert words == {str(number) for number in range(24)}
    assert len(figure.axes[0].collections[0].get_offsets()) == 2


def test_without_labels_there_is_one_map() -> None:
    figure = latent_map(np.random.default_rng(0).random((5, 2)), np.zeros(5), 1)
    assert figure.axes[0].get_title(loc="left") == "by score"
    with pytest.raises(UsageError, match="scores must have one entry"):
        latent_map(np.zeros((5, 2)), np.zeros(4), 1)
