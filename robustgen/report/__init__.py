"""Blocks of a single-file, self-contained HTML report, and the figures that go into it.

    from robustgen.report import Page, Paragraph, Picture, Section, render, roc_curves

    page = Page("Detectors", [Paragraph("Three detectors, one data set.")],
                [Section("ROC", [Picture(roc_curves(curves), alt="ROC curves", caption="Scored on the test split.")])])
    path.write_text(render(page), encoding="utf-8")

A page is a value: the same page gives the same bytes. It holds no script, asks the network for nothing, follows the
reader's light or dark setting, and prints. Text is always text: names and paths never become markup.

Names are loaded when they are first used, so that importing this package costs neither matplotlib nor jinja2.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from robustgen.report.bars import class_bars, count_bars, count_histogram, flow_map
    from robustgen.report.codes_page import codes_map, codes_page
    from robustgen.report.curves import roc_curves, score_histograms, security_curve
    from robustgen.report.interpolations import corner_grids, path_strip
    from robustgen.report.maps import latent_map
    from robustgen.report.page import (
        Block,
        Code,
        Mark,
        Marks,
        Notice,
        Number,
        Numbers,
        Page,
        Paragraph,
        Picture,
        Section,
        Table,
        render,
    )
    from robustgen.report.reconstructed import reconstructed_strip
    from robustgen.report.samples import sample_sheet
    from robustgen.report.strips import adversarial_strip, reconstruction_maps

__all__ = [
    "Block",
    "Code",
    "Mark",
    "Marks",
    "Notice",
    "Number",
    "Numbers",
    "Page",
    "Paragraph",
    "Picture",
    "Section",
    "Table",
    "adversarial_strip",
    "class_bars",
    "codes_map",
    "codes_page",
    "corner_grids",
    "count_bars",
    "count_histogram",
    "flow_map",
    "latent_map",
    "path_strip",
    "reconstructed_strip",
    "reconstruction_maps",
    "render",
    "roc_curves",
    "sample_sheet",
    "score_histograms",
    "security_curve",
]

_FIGURES = {
    "adversarial_strip": "robustgen.report.strips",
    "class_bars": "robustgen.report.bars",
    "codes_map": "robustgen.report.codes_page",
    "codes_page": "robustgen.report.codes_page",
    "corner_grids": "robustgen.report.interpolations",
    "count_bars": "robustgen.report.bars",
    "count_histogram": "robustgen.report.bars",
    "flow_map": "robustgen.report.bars",
    "latent_map": "robustgen.report.maps",
    "path_strip": "robustgen.report.interpolations",
    "reconstructed_strip": "robustgen.report.reconstructed",
    "reconstruction_maps": "robustgen.report.strips",
    "roc_curves": "robustgen.report.curves",
    "sample_sheet": "robustgen.report.samples",
    "score_histograms": "robustgen.report.curves",
    "security_curve": "robustgen.report.curves",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_FIGURES.get(name, "robustgen.report.page")), name)


def __dir__() -> list[str]:
    return __all__
