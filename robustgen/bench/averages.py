"""Leaderboards by AUROC: means over classes (or sets, or kinds of foreign inputs) and seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import mean
from typing import Any

from robustgen.bench.figures import Figure, figure_of, over_parts, over_seeds
from robustgen.bench.ranking import Board, Done, Row, grouped

_READ = (
    "AUROC: the chance that an anomalous input scores higher than a normal one; 0.5 is guessing. Means over {by} and "
    "seeds, with 95 % intervals."
)

_GENERATIVE = (
    "AUROC: mean over kinds of anomalies; harmless noise is not one of them. Fréchet distance of samples: lower is "
    "nearer to real images."
)


def boards(kind: str, cells: Sequence[Done]) -> list[Board]:
    """One board for each set of data and protocol; for tables, whose sets are columns, for each protocol."""
    tables = kind == "table"
    by = {"one-class": "class", "table": "set", "out-of-distribution": "foreign inputs"}[kind]

    def title(cell: Done) -> str:
        axes = cell[0].axes
        return str(axes.get("protocol", "one-class")) if tables else str(axes["data"])

    found = []
    for name, own in grouped(cells, title).items():
        rows = [
            _row(kind, detector, part)
            for detector, part in grouped(own, lambda cell: str(cell[0].axes["detector"])).items()
        ]
        rows.sort(key=lambda row: -(row.figures["auroc"] or Figure(-1.0)).value)
        shown = ("auroc", "tpr_at_5", "ms_per_input", "fit_seconds")
        found.append(Board(f"{kind}: {name}", kind, rows, shown, by, _READ.format(by=by)))
    return found


def _parts(kind: str, cell: Done) -> dict[str, Mapping[str, Any]]:
    """The figures of one finished cell by class, set or kind of foreign input."""
    listed, stored = cell
    if stored is None:
        return {}
    found = stored.metrics
    if kind == "out-of-distribution":
        return dict(found["foreign"])
    return {str(found["class"] if kind == "one-class" else listed.axes["data"]): found}


def _row(kind: str, name: str, cells: Sequence[Done]) -> Row:
    done = [stored for _, stored in cells if stored is not None]
    by_part: dict[str, list[Mapping[str, Any]]] = {}
    for cell in cells:
        for part, found in _parts(kind, cell).items():
            by_part.setdefault(part, []).append(found)
    aurocs = {part: over_seeds([figure_of(found["auroc"]) for found in seeds]) for part, seeds in by_part.items()}
    caught = [over_seeds([figure_of(found["tpr"]["0.05"]) for found in seeds]) for seeds in by_part.values()]
    there = [figure for figure in aurocs.values() if figure is not None]
    own = kind != "out-of-distribution"  # there the normal inputs are the same for all kinds
    figures = {
        "auroc": over_parts(there, own),
        "tpr_at_5": over_parts([figure for figure in caught if figure is not None], own),
        "ms_per_input": Figure(mean(s.metrics["ms_per_input"] for s in done)) if done else None,
        "fit_seconds": Figure(mean(s.metrics["fit_seconds"] for s in done)) if done else None,
    }
    infinite = sum(found["infinite"] > 0 for seeds in by_part.values() for found in seeds)
    by = {part: figure.value for part, figure in aurocs.items() if figure is not None}
    return Row(name, figures, len(done), len(cells), detail={"by": by, "cells_with_infinite_scores": infinite})


def generative_boards(kind: str, cells: Sequence[Done]) -> list[Board]:
    """One board for each set of data: generative detectors side by side, by mean AUROC over kinds of anomalies."""
    found = []
    for data, own in grouped(cells, lambda cell: str(cell[0].axes["data"])).items():
        rows = [
            _generative(name, part) for name, part in grouped(own, lambda cell: str(cell[0].axes["detector"])).items()
        ]
        rows.sort(key=lambda row: -(row.figures["auroc"] or Figure(-1.0)).value)
        shown = ("auroc", "frechet", "mse", "ssim", "bits_per_value", "false_alarms", "fit_seconds", "ms_per_input")
        note = _GENERATIVE
        found.append(Board(f"generative detectors of {data}", kind, rows, shown, "kind of anomaly", note))
    return found


def _generative(name: str, cells: Sequence[Done]) -> Row:
    done = [stored.metrics for _, stored in cells if stored is not None]
    kinds = list(dict.fromkeys(kind for metrics in done for kind in metrics["detected"]))
    by = {kind: mean(m["detected"][kind] for m in done if kind in m["detected"]) for kind in kinds}

    def averaged(word: str) -> Figure | None:
        values = [metrics[word] for metrics in done if metrics[word] is not None]
        return Figure(mean(values)) if values else None

    distances = [metrics["frechet"]["distance"] for metrics in done if metrics["frechet"] is not None]
    anomalies = [value for kind, value in by.items() if not kind.startswith("noise of")]
    figures = {
        "auroc": Figure(mean(anomalies)) if anomalies else None,
        "frechet": Figure(mean(distances)) if distances else None,
        **{word: averaged(word) for word in ("mse", "ssim", "bits_per_value", "false_alarms")},
        "fit_seconds": averaged("seconds_to_fit"),
        "ms_per_input": averaged("milliseconds"),
    }
    return Row(name, figures, len(done), len(cells), detail={"by": by})
