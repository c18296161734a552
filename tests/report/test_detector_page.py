"""The report of a fitted detector holds what the detector has, and nothing else."""

from __future__ import annotations

from typing import Any, cast

import pytest
import torch

from robustgen.data.domains import two_domains
from robustgen.data.load import load
from robustgen.detectors.calibrated import CalibratedDetector
from robustgen.detectors.cycle_gan import CycleGANDetector
from robustgen.report.detector_page import detector_page
from robustgen.report.page import Picture, Table, render

SECTIONS = {
    "pca": ["Scores of normal inputs", "Made-up anomalies", "What it makes of inputs", "Map of codes"],
    "knn": ["Scores of normal inputs", "Made-up anomalies"],
    "vae": [
        "Scores of normal inputs", "Made-up anomalies", "What it makes", "What it makes of inputs", "Map of codes",
    ],
    "style-gan": [
        "Scores of normal inputs",
        "Made-up anomalies",
        "Training",
        "What it makes",
        "What it makes of inputs",
        "Map of codes",
    ],
}  # fmt: skip
QUICK: dict[str, dict[str, Any]] = {"vae": {"epochs": 2}, "style-gan": {"steps": 10, "width": 4}}


@pytest.mark.parametrize("name", SECTIONS)
def test_the_page_shows_what_the_detector_has(name: str) -> None:
    source = load("digits")
    fitted = CalibratedDetector.fit(name, source, options=QUICK.get(name, {}))
    told: list[str] = []
    page = detector_page(fitted, source, "robustgen fit ...", progress=told.append)
    assert [section.title for section in page.sections] == SECTIONS[name]
    assert len(told) == 8
    pictures = sum(isinstance(block, Picture) for section in page.sections for block in section.blocks)
    text = render(page)
    assert text.count("<img") + text.count("<svg") >= pictures > 0
    warnings = [] if fitted.self_test is None else fitted.self_test.warnings
    for warning in [*warnings, *fitted.summary()["training_warnings"]]:
        assert warning[1:20] in text
    assert "robustgen fit ..." in text
    if fitted.raw is not None:
        assert "raw likelihood" in text


def test_the_page_of_a_cycle_gan_says_that_it_can_hide_its_input() -> None:
    source = two_domains(load("digits"), load("digits"))
    fitted = CalibratedDetector.fit("cycle-gan", source, options={"steps": 4, "width": 4, "blocks": 1})
    page = detector_page(fitted, source, "robustgen fit ...", progress=lambda told: None)
    (section,) = (section for section in page.sections if section.title == "What it translates")
    (table,) = (block for block in section.blocks if isinstance(block, Table))
    assert [row[0] for row in table.rows] == ["held-out inputs", "shuffled", "noise"]
    x = source.read(source.spread("calibration", 200)).x
    detector = cast(CycleGANDetector, fitted.detector)
    with torch.no_grad():
        there = detector.translate(x, "other")
        exact = float((detector.translate(there) - x).abs().mean())
        scored = float(detector.panel(x, ("cycle",))["cycle"].mean())
    assert table.rows[0][1:] == (f"{scored:.4f}", f"{exact:.4f}")
    assert scored != exact
    assert "can hide its input" in render(page)
