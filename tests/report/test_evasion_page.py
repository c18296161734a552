"""The report of an attack on a guard says what its results say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from robustgen.data.load import load
from robustgen.report.evasion_page import evasion_curve, evasion_page, save_evasion_report
from robustgen.report.page import render

SHARE = {"value": 0.4, "low": 0.3, "high": 0.5, "n": 100}
CURVE = [
    {"eps": 0.0, "success": 0.0, "success_interval": [0.0, 0.04]},
    {"eps": 0.1, "success": 0.25, "success_interval": [0.17, 0.34]},
    {"eps": 0.2, "success": 0.4, "success_interval": [0.3, 0.5]},
]


def summary(**changed: Any) -> dict[str, Any]:
    return {
        "attack": "adaptive-standard", "guard": "pca <b>", "data": "digits", "norm": "linf", "eps": 0.2, "fpr": 0.05,
        "surrogate": False, "n": 100, "shares": {"attack success (wrong and accepted)": SHARE},
        "members": [
            {"name": "carlini-wagner", "lost": 39, "tried": 40}, {"name": "clean", "lost": 1, "tried": 40},
        ],
        "curve": CURVE,
        "forward_passes": 900, "backward_passes": 800, "seconds": 2.0,
    } | changed  # fmt: skip


def test_the_curve_is_drawn_as_it_is() -> None:
    (axes,) = evasion_curve(summary()).axes
    (line,) = axes.lines
    np.testing.assert_allclose(np.asarray(line.get_xdata(), dtype=float), [0.0, 0.1, 0.2])
    np.testing.assert_allclose(np.asarray(line.get_ydata(), dtype=float), [0.0, 0.25, 0.4])


def test_the_page_says_what_was_found() -> None:
    page = render(evasion_page(summary(), "robustgen attack adaptive"))
    for text in ("40.00%", "30.00% to 50.00%", "carlini-wagner", "39", "25.00%", "pca &lt;b&gt;"):
        assert text in page.replace("\N{NO-BREAK SPACE}", "")
    assert "has no gradients" not in page
    assert "has no gradients" in render(evasion_page(summary(surrogate=True)))


def test_checks_that_failed_come_first() -> None:
    checks = [
        {"name": "full-box", "passed": True, "found": "all of 16", "means": "no gradients"},
        {"name": "larger-eps", "passed": False, "found": "fewer than before", "means": "led astray"},
        {"name": "detector-alone", "passed": None, "found": "not tried", "means": "nothing"},
    ]
    page = render(evasion_page(summary(checks=checks)))
    assert "these figures say less than they seem to" in page
    assert page.index("larger-eps") < page.index("full-box") < page.index("detector-alone")
    assert "Can this be believed?" not in render(evasion_page(summary()))


def test_without_a_curve_there_is_no_chapter_on_it(tmp_path: Path) -> None:
    path = save_evasion_report(tmp_path, summary(curve=[]))
    assert "attacker's reach grows" not in path.read_text(encoding="utf-8").replace("&#39;", "'")
    titles = [section.title for section in evasion_page(summary()).sections]
    assert titles == ["Success as the attacker's reach grows", "Attacks"]


def samples() -> dict[str, Any]:
    """Four inputs: held, lost, fooled but rejected, and wrong and accepted without any change."""
    return {
        "index": np.arange(4), "y": np.zeros(4, dtype=int), "clean_prediction": np.array([0, 0, 0, 1]),
        "prediction": np.array([0, 1, 1, 1]), "clean_wrong": np.array([False, False, False, True]),
        "clean_score": np.array([0.1, 0.2, 0.3, 0.4]), "lost": np.array([False, True, False, True]),
        "fooled": np.array([False, True, True, True]), "score": np.array([2.0, 0.5, 3.0, 0.4]),
        "size": np.array([0.2, 0.2, 0.2, 0.0]),
    }  # fmt: skip


def test_the_scores_after_the_attack_are_of_labels_that_it_made_wrong() -> None:
    page = render(evasion_page(summary(threshold=1.0), "", samples()))
    assert "The attack made 2 labels wrong, and of these inputs 1 are rejected" in page
    assert "What the detectors say" not in render(evasion_page(summary(threshold=np.inf), "", samples()))


def test_what_got_through_is_shown_but_for_what_was_never_changed(tmp_path: Path) -> None:
    x = np.random.default_rng(0).random((4, 1, 5, 5), dtype=np.float32)
    np.savez(tmp_path / "data.npz", x=x, y=samples()["y"])
    np.savez(tmp_path / "adversarials.npz", x=x, y=samples()["y"])
    found = samples()
    page = save_evasion_report(tmp_path, summary(threshold=1.0), "", found, load(str(tmp_path / "data.npz")))
    text = page.read_text(encoding="utf-8")
    assert "1 inputs before and after the attack" in text
    assert "Inputs with a wrong label that is accepted" in text
    assert "success" not in found  # the arrays are the caller's
