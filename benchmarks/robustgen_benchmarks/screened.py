"""Does it cost anything to leave what a classifier holds on its own out of attacks that know the detector?

Of each cell of a suite that is in the store both with and without (`screen`), beside the same classifier: the inputs
that are lost, and how many of them Auto-Attack on the classifier alone does not fool.

    robustgen bench SUITE --out STORE
    python -m robustgen_benchmarks.screened STORE --suite SUITE --out benchmarks/results/screened.json

SUITE: one of robustgen's or a file, whose cells say `screen = false`; then the same without that line.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from robustgen.artifacts import read_artifact
from robustgen.bench.cell import key
from robustgen.bench.guarded import Adversarial
from robustgen.bench.places import identities
from robustgen.bench.store import Store, Stored
from robustgen.bench.suite import find
from robustgen_benchmarks.results_file import ResultsFile


def lost(cell: Adversarial, stored: Stored) -> Any:
    """(n_adaptive,) which inputs that the classifier has right end wrong and accepted at the headline's size."""
    arrays, name = stored.arrays(), f"W|{cell.bundle}|linf|{cell.headline:g}"
    label, predicted = arrays["label"][: cell.n_adaptive], arrays["predicted"][: cell.n_adaptive]
    accepted = arrays[f"{name}|score"] <= stored.metrics["clean"]["threshold"]
    return (predicted == label) & (arrays[f"{name}|predicted"] != label) & accepted


def spent(cell: Adversarial, stored: Stored) -> float:
    """The seconds that attackers who know the detector took, at the headline's size."""
    rows = [r for r in stored.metrics["rows"] if r["threat"] == "W" and r["attack"] == cell.bundle]
    return float(next(r["seconds"] for r in rows if r["eps"] == cell.headline))


def compared(cell: Adversarial, whole: Stored, part: Stored, fooled: Any) -> dict[str, Any]:
    """What both found; `fooled` (n_adaptive,): by Auto-Attack on the classifier alone."""
    arrays = whole.arrays()
    right = arrays["predicted"][: cell.n_adaptive] == arrays["label"][: cell.n_adaptive]
    every, some = lost(cell, whole), lost(cell, part)
    return {
        "n": int(right.sum()),
        "held by the classifier alone": int((right & ~fooled).sum()),
        "lost, all attacked": int(every.sum()),
        "of these held by the classifier alone": int((every & ~fooled).sum()),
        "lost, those left out": int(some.sum()),
        "lost by both": int((every & some).sum()),
        "seconds, all attacked": spent(cell, whole),
        "seconds, those left out": spent(cell, part),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", type=Path, help="the folder of robustgen bench --out")
    parser.add_argument("--suite", default="adversarial-standard")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    suite, store = find(given.suite), Store(given.store)
    hashes = identities({name for listed in suite.cells for name in listed.cell.sources})
    command = f"python -m robustgen_benchmarks.screened STORE --suite {given.suite}"
    file = ResultsFile(given.out, command, data_sha256=hashes)
    for listed in suite.cells:
        cell = listed.cell
        if not isinstance(cell, Adversarial):
            continue
        whole, part = (store.read(key(replace(cell, screen=screen), hashes)) for screen in (False, True))
        if whole is None or part is None:
            continue
        made = read_artifact(store.place(key(cell.alone, hashes)), "auto-attack")
        fooled = made.tensors[f"fooled {cell.headline:g}"].numpy().astype(np.bool_)
        name = " / ".join(str(listed.axes[axis]) for axis in ("victim", "detector", "seed"))
        file.rows[name] = compared(cell, whole, part, fooled)
        sys.stdout.write(f"{name}: {file.rows[name]}\n")
    file.save()


if __name__ == "__main__":
    main()
