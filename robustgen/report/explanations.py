"""What `robustgen detect --explain` leaves in its folder: heat-maps or columns, the raw values, and one page."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from robustgen.evaluation.detection import VERDICT_COLUMNS, harmless, verdict_cells
from robustgen.evaluation.explanation import TOP, Case, Explanations, heat_map_name
from robustgen.report.canvas import percent
from robustgen.report.heat_maps import end_of_scale, heat_map, heat_map_sheet
from robustgen.report.page import Block, Page, Paragraph, Picture, Section, Table, render

PAGE, RAW = "index.html", "parts.npz"
_ON_PAGE, _A_SHEET = 48, 16


def write_explanations(
    directory: Path, explanations: Explanations, progress: Callable[[float], None] = lambda done: None
) -> None:
    """Fill `directory`, a staged one: `parts.npz` (inputs' names, scores, and the raw parts, (k, *shape)), an
    `explanations.csv`, for images `heat-maps/*.png` on one scale, and `index.html`.
    """
    cases = explanations.cases
    shape = explanations.detector.spec.shape
    parts = np.stack([case.parts for case in cases]) if cases else np.zeros((0, *shape), np.float32)
    names = np.array([case.verdict.input.encode("utf-8", "replace").decode() for case in cases], dtype=np.str_)
    scores = np.array([case.verdict.score for case in cases])
    np.savez_compressed(directory / RAW, input=names, score=scores, parts=parts)
    heat = parts.sum(1, dtype=np.float64) if explanations.images else None
    with (directory / "explanations.csv").open("w", newline="", encoding="utf-8", errors="backslashreplace") as file:
        writer = csv.writer(file)
        if heat is not None:
            writer.writerow([*VERDICT_COLUMNS, "heat_map"])
            writer.writerows([*verdict_cells(case.verdict), heat_map_name(i)] for i, case in enumerate(cases))
        else:
            named = [f"{what}_{i}" for i in range(1, TOP + 1) for what in ("column", "share", "value", "usual")]
            writer.writerow([*VERDICT_COLUMNS, *named])
            writer.writerows([*verdict_cells(case.verdict), *_column_cells(case, explanations)] for case in cases)
    if heat is not None:
        _draw(directory, cases, heat, progress)
    page = _page(explanations, heat)
    (directory / PAGE).write_text(render(page), encoding="utf-8")


def _draw(directory: Path, cases: list[Case], heat: NDArray[np.float64], progress: Callable[[float], None]) -> None:
    (directory / "heat-maps").mkdir()
    top = end_of_scale(heat)
    for i, case in enumerate(cases):
        verdict = "FLAGGED" if case.verdict.flagged else "normal"
        note = f"score {case.verdict.score:.4g}, p {case.verdict.p_value:.3g}, {verdict}"
        figure = heat_map(case.x, heat[i], case.verdict.input, note, top)
        figure.savefig(directory / heat_map_name(i), dpi=110, metadata={"Software": None})
        progress(1)


def _column_cells(case: Case, explanations: Explanations) -> list[str]:
    cells = list[str]()
    for column in explanations.columns(case):
        usual = "" if column.usual is None else repr(column.usual)
        cells += [harmless(column.name), f"{column.share:.6f}", repr(column.value), usual]
    return cells


def _short(name: str, number: int) -> str:
    """What fits under a small picture."""
    return name if len(name) <= 6 else f"#{number:04d}"


def _page(explanations: Explanations, heat: NDArray[np.float64] | None) -> Page:
    detector, cases = explanations.detector, explanations.cases
    which = "inputs" if explanations.everything else "flagged inputs"
    lead: list[Block] = [
        Paragraph(
            f"{detector.name} on {detector.spec.name}: {len(cases)} {which} explained"
            + (
                f", {explanations.left_out} more left out beyond the most that was asked for"
                * bool(explanations.left_out)
            )
            + f". A score above {detector.threshold.value:.6g} is flagged, which {percent(detector.threshold.fpr)} of "
            "normal inputs would be."
        )
    ]
    order = sorted(range(len(cases)), key=lambda i: -cases[i].verdict.score)[:_ON_PAGE]
    sections = list[Section]()
    if not order and not explanations.everything:
        lead.append(
            Paragraph("Nothing was flagged, so nothing is explained; --explain-all explains normal inputs too.")
        )
    if order and heat is not None:
        top = end_of_scale(heat)
        blocks: list[Block] = [
            Paragraph(
                "Above the input, below it the heat-map: what each pixel adds to the score, on one scale for all "
                "inputs, which ends where 99.5 % of the pixels lie below. What lowers the score is not drawn; it is in "
                f"the raw values, in {RAW}. Below both the input and its score; for a name of more than six "
                "characters the number of its heat-map, which explanations.csv has beside the name."
            )
        ]
        for start in range(0, len(order), _A_SHEET):
            some = order[start : start + _A_SHEET]
            notes = [f"{_short(cases[i].verdict.input, i)}: {cases[i].verdict.score:.4g}" for i in some]
            sheet = heat_map_sheet(np.stack([cases[i].x for i in some]), heat[some], notes, top)
            blocks.append(Picture(sheet, alt="Inputs, and over each what its pixels add to the score."))
        sections.append(Section("Where the scores come from, highest first", blocks))
    elif order:
        rows = [
            (
                cases[i].verdict.input,
                f"{cases[i].verdict.score:.4g}",
                f"{cases[i].verdict.p_value:.3g}",
                "; ".join(
                    f"{column.name} {percent(column.share, 0)} ({column.value:g}"
                    + (f", usually {column.usual:g})" if column.usual is not None else ")")
                    for column in explanations.columns(cases[i])[:3]
                ),
            )
            for i in order
        ]
        note = "Shares are of all that raises the score. The usual value is the median of the training inputs."
        table = Table(("input", "score", "p-value", "columns that raise it most"), rows, note=note)
        sections.append(Section("Which columns the scores come from, highest first", [table]))
    return Page(f"Explained by {detector.name}", lead, sections)
