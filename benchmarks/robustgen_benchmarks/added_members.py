"""What do members that came into the adaptive bundle later add to a suite's finished cells?

Of each finished cell of a suite the inputs that held against attackers who know the detector are attacked once more, at
the size that ranks, by the named members alone. A cell to which they add nothing is what it would be with them, since a
bundle's members only run on what still holds; the others have to be run again.

    python -m robustgen_benchmarks.added_members board --only object --out added_members.json

With `--bundle` the members are those of another bundle, and spend what it has them spend: what a cell's own leaves out.

A row that is in the file already is not measured again.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import torch

from robustgen.bench.cell import Work, key
from robustgen.bench.guarded import Adversarial, guard_of, inputs
from robustgen.bench.places import identities
from robustgen.bench.store import ARRAYS, Store, Stored
from robustgen.bench.suite import find
from robustgen.bench.work import source_of
from robustgen.evaluation.adaptive import evade
from robustgen.threat import ThreatModel
from robustgen_benchmarks.results_file import ResultsFile
from robustgen_benchmarks.victims import predictions


def added(
    cell: Adversarial, stored: Stored, work: Work, only: list[str], bundle: str | None, most: int | None
) -> dict[str, Any]:
    """Inputs that fell before, that held, and how many of these (of the first `most`) the members take."""
    source, guard = source_of(cell.data), guard_of(work, cell.victim, cell.detector).at(cell.fpr)
    x, y, _ = (part[: cell.n_adaptive] for part in inputs(source, cell.n, cell.seed))
    arrays, name = stored.arrays(), f"W|{cell.bundle}|linf|{cell.headline:g}"
    wrong = torch.from_numpy(arrays[f"{name}|predicted"]) != y
    accepted = torch.from_numpy(arrays[f"{name}|score"]) <= guard.threshold.value
    right = predictions(guard.classifier, x) == y
    held = (right & ~(wrong & accepted)).nonzero()[:, 0]
    tried = held[:most]
    threat = ThreatModel("linf", cell.headline, source.spec.low, source.spec.high)
    began = time.process_time()
    spend = bundle or cell.bundle
    found = evade(guard, x[tried], y[tried], threat, bundle=spend, only=only, pool=x, seed=cell.seed)
    return {
        "n": int(right.sum()),
        "fell before": int((right & wrong & accepted).sum()),
        "held": len(held),
        "tried": len(tried),
        "fell now": int(found.lost.sum()),
        "by": {member: int(rows.sum()) for member, rows in found.found.items() if member in found.effort},
        "cpu_seconds": time.process_time() - began,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", type=Path, help="the folder of robustgen bench --out")
    parser.add_argument("--suite", default="adversarial-standard")
    parser.add_argument("--only", default="object", help="families or members, by commas")
    parser.add_argument("--bundle", help="whose members these are; by default each cell's own")
    parser.add_argument("--cells", default="", help="only those whose name, such as plain / vae / 1, holds this")
    parser.add_argument("--most", type=int, help="try no more of the inputs that held in a cell")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    torch.set_num_threads(1)
    suite, store = find(given.suite), Store(given.store)
    hashes = identities({name for listed in suite.cells for name in listed.cell.sources})
    command = f"python -m robustgen_benchmarks.added_members STORE --suite {given.suite} --only {given.only}"
    command += "".join(
        f" --{name} {value}" for name, value in vars(given).items() if name in ("bundle", "most") and value
    )
    file = ResultsFile(given.out, command, data_sha256=hashes)
    for listed in suite.cells:
        cell = listed.cell
        stored = store.read(key(cell, hashes)) if isinstance(cell, Adversarial) else None
        name = " / ".join(str(listed.axes[axis]) for axis in ("victim", "detector", "seed"))
        if stored is None or name in file.rows or not isinstance(cell, Adversarial) or given.cells not in name:
            continue
        if ARRAYS not in stored.config["files"]:  # taken from another machine without them
            continue
        work = Work(given.store, lambda needed: store.place(key(needed, hashes)), source_of)
        file.rows[name] = added(cell, stored, work, given.only.split(","), given.bundle, given.most)
        file.save()
        sys.stdout.write(f"{name}: {file.rows[name]}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
