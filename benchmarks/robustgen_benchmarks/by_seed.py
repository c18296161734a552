"""What single cells of `adversarial-standard` found, seed by seed, where its leaderboard has means: as Markdown.

One table of those who know something of the detectors; and for each detector one of those who do not know it, as AUROC
and as the share caught, with the mean of the seeds.

    python -m robustgen_benchmarks.by_seed board --detector gat --detector guard
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from robustgen.bench.cell import key
from robustgen.bench.places import identities
from robustgen.bench.ranking import markdown
from robustgen.bench.store import Store
from robustgen.bench.suite import find
from robustgen_benchmarks.board_tables import EPS, at, figure

SIZES = (0.05, EPS)
BUNDLE = "adaptive-standard"
BLIND: dict[str, tuple[str, float | None]] = {
    "PGD .02": ("pgd", 0.02),
    "FGSM .05": ("fgsm", 0.05),
    "PGD .05": ("pgd", 0.05),
    "PGD .1": ("pgd", EPS),
    "PGD .2": ("pgd", 0.2),
    "Auto-PGD in L2": ("apgd-ce", None),
    "DDN": ("ddn", None),
    "Square .1": ("square", EPS),
    "the object alone": ("pgd-object", EPS),
    "rotated and shifted": ("rotate-shift", None),
}

Cells = Mapping[tuple[str, str, int], Mapping[str, Any]]
"""What each finished cell measured, by victim, detector and seed."""


def finished(suite: str, store: Store) -> dict[tuple[str, str, int], Mapping[str, Any]]:
    """The cells of a suite that the store has."""
    listed = find(suite).cells
    hashes = identities({name for one in listed for name in one.cell.sources})
    found: dict[tuple[str, str, int], Mapping[str, Any]] = {}
    for one in listed:
        stored = store.read(key(one.cell, hashes))
        if stored is not None:
            found[str(one.axes["victim"]), str(one.axes["detector"]), int(str(one.axes["seed"]))] = stored.metrics
    return found


def knowing(cells: Cells, detectors: Sequence[str]) -> list[str]:
    """Lines of the table of those who know all (W), all but the weights (T), or verdicts alone (Q)."""
    head = ["victim", "", "seed", *(f"W / T / Q at {size:g}" for size in SIZES), "W in image files"]
    head += ["robust accuracy with detector", "clean, right and accepted"]
    rows = []
    for (victim, detector, seed), cell in cells.items():
        if detector in detectors:
            each = [" / ".join(figure(at(cell, *who, size).get("success")) for who in _WHO) for size in SIZES]
            files = " / ".join(figure(at(cell, "W", f"{BUNDLE}, 8 bit", size).get("success")) for size in SIZES)
            (system,) = [one for one in cell["systems"] if one["norm"] == "linf" and math.isclose(one["eps"], EPS)]
            last = [figure(system["robust_accuracy"]), figure(cell["clean"]["useful"])]
            rows.append([victim, detector, str(seed), *each, files, *last])
    return list(markdown(head, rows))


_WHO = (("W", BUNDLE), ("T", "transfer"), ("Q", "square"))


def blind(cells: Cells, victim: str, detector: str) -> list[str]:
    """Lines of the table of those who do not know `detector`: by seed, and the mean."""
    chosen = {seed: cell for (beside, name, seed), cell in cells.items() if (beside, name) == (victim, detector)}
    rows = []
    for told in ("AUROC", "caught at 5 %"):
        found = {
            seed: [_blind(at(cell, "Z", attack, eps), told) for attack, eps in BLIND.values()]
            for seed, cell in chosen.items()
        }
        rows += [[f"{told}, seed {seed}", *(f"{value:.3f}" for value in row)] for seed, row in found.items()]
        if len(found) > 1:
            rows.append([f"{told}, mean", *(f"{statistics.mean(c):.3f}" for c in zip(*found.values(), strict=True))])
    return list(markdown(["", *BLIND], rows))


def _blind(row: Mapping[str, Any], told: str) -> float:
    return float((row["auroc"] if told == "AUROC" else row["tpr"]["0.05"])["value"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", type=Path, help="the folder of robustgen bench --out, or of cells unpack")
    parser.add_argument("--suite", default="adversarial-standard")
    parser.add_argument("--detector", action="append", required=True)
    given = parser.parse_args()
    cells = finished(given.suite, Store(given.store))
    sys.stdout.write("\n".join([*knowing(cells, given.detector), ""]))
    for victim in sorted({victim for victim, _, _ in cells}):
        for detector in given.detector:
            sys.stdout.write("\n".join([f"\n{victim} / {detector}:\n", *blind(cells, victim, detector), ""]))


if __name__ == "__main__":
    main()
