"""The codes of a set of inputs as a map, and as a page with what stands behind it."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from robustgen.data.source import Source
from robustgen.detectors.calibrated import CalibratedDetector
from robustgen.evaluation.encoding import Encoded
from robustgen.evaluation.projection import Layout, lay_out
from robustgen.report.canvas import percent
from robustgen.report.maps import latent_map
from robustgen.report.page import Number, Numbers, Page, Paragraph, Picture, Section, Table
from robustgen.runtime import versions

_SHOWN = 4000


def codes_map(
    detector: CalibratedDetector, found: Encoded, source: Source, layout: Layout = "pca", seed: int = 0
) -> Figure:
    """The map of at most 4,000 of the codes, evenly chosen."""
    n = len(found.code)
    rows = np.linspace(0, n - 1, min(n, _SHOWN)).round().astype(np.int64)
    plane = lay_out(found.code[rows], layout, seed)
    some = f"{len(rows)} of " if len(rows) < n else ""
    return latent_map(
        plane.points,
        found.score[rows],
        detector.threshold.value,
        None if found.y is None else found.y[rows],
        source.spec.classes or None,
        plane.axes,
        f"codes of {some}{n} inputs of {source.spec.name}, by {detector.name} fitted on {detector.spec.name}",
    )


def codes_page(detector: CalibratedDetector, found: Encoded, source: Source, layout: Layout, seed: int = 0) -> Page:
    """A page with the map, and scores and flags class by class where there are labels."""
    threshold = detector.threshold
    flagged = found.score > threshold.value
    said = (
        f"A map of the codes that {detector.name}, fitted on {detector.spec.name}, makes of {source.spec.name}. Points "
        "near to each other have similar codes. A map shows two dimensions of all: what lies together on it may lie "
        "apart in the code."
    )
    if layout == "t-sne":
        said += " With t-SNE, distances between groups and the sizes of groups mean nothing."
    numbers = [
        Number(str(len(found.code)), "inputs"),
        Number(str(found.code.shape[1]), "values in a code"),
        Number(percent(float(flagged.mean())), "flagged", f"at {100 * threshold.fpr:g} % false alarms"),
    ]
    picture = Picture(
        codes_map(detector, found, source, layout, seed),
        alt="Points on a plane, one for each input: coloured by class, and coloured by anomaly score with flagged "
        "inputs ringed.",
    )
    sections = [Section("Map", [picture])]
    if found.y is not None:
        sections.append(Section("Class by class", [_by_class(found, source, flagged)]))
    return Page(
        title=f"Codes of {source.spec.name}",
        lead=[Paragraph(said), Numbers(numbers)],
        sections=sections,
        facts={"layout": layout, "seed": str(seed), "data": f"SHA-256 {source.spec.sha256[:16]}"},
        version=versions().get("robustgen", ""),
    )


def _by_class(found: Encoded, source: Source, flagged: np.ndarray) -> Table:
    labels = np.zeros(0) if found.y is None else found.y.numpy()
    rows = []
    for number in np.unique(labels).tolist():
        here = labels == number
        name = source.spec.classes[number] if number < len(source.spec.classes) else str(number)
        median = float(np.median(found.score[here]))
        rows.append((name, str(int(here.sum())), f"{median:.4g}", percent(float(flagged[here].mean()))))
    return Table(("class", "inputs", "median score", "flagged"), rows)
