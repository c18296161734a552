"""The finished cells of a suite in one file, and back: what was measured, without per-sample arrays and networks.

    python -m robustgen_benchmarks.cells pack STORE --suite adversarial-standard --out CELLS.tar.xz
    python -m robustgen_benchmarks.cells unpack CELLS.tar.xz --out STORE
    robustgen bench adversarial-standard --out board --take STORE

With them a suite that was run in part goes on on another machine, and its leaderboard is made anew.
"""

from __future__ import annotations

import argparse
import io
import sys
import tarfile
from pathlib import Path

from robustgen.artifacts import to_json, write_atomically
from robustgen.bench.cell import key
from robustgen.bench.places import identities
from robustgen.bench.store import ARRAYS, CONFIG, METRICS, Store
from robustgen.bench.suite import find


def pack(store: Store, suite: str, out: Path) -> int:
    """Write what the suite's own finished cells measured into a file, and return how many there are. The same cells
    give the same file.
    """
    chosen = find(suite)
    hashes = identities({name for listed in chosen.cells for name in listed.cell.sources})
    found = {key(listed.cell, hashes): store.read(key(listed.cell, hashes)) for listed in chosen.cells}
    done = {name: stored for name, stored in sorted(found.items()) if stored is not None}

    def write(path: Path) -> None:
        with tarfile.open(path, "w:xz", preset=9) as whole:
            for name, stored in done.items():
                files = {file: sha256 for file, sha256 in stored.config["files"].items() if file != ARRAYS}
                config = to_json(stored.config | {"files": files}).encode()
                for file, data in ((CONFIG, config), (METRICS, (stored.path / METRICS).read_bytes())):
                    entry = tarfile.TarInfo(f"cells/{name}/{file}")
                    entry.size = len(data)
                    whole.addfile(entry, io.BytesIO(data))

    write_atomically(out, write, force=True)
    return len(done)


def unpack(packed: Path, out: Path) -> int:
    """Write the cells into the folder `out`, and return how many. Raises `ValueError` for anything else in the file,
    before anything is written.
    """
    cells: dict[str, dict[str, bytes]] = {}
    with tarfile.open(packed, "r:xz") as whole:
        for entry in whole:
            parts, data = entry.name.split("/"), whole.extractfile(entry) if entry.isreg() else None
            own = len(parts) == 3 and parts[0] == "cells" and parts[1].isalnum() and parts[2] in (CONFIG, METRICS)
            if data is None or not own:
                raise ValueError(f"{packed} holds {entry.name!r}, which is no part of a cell")
            cells.setdefault(parts[1], {})[parts[2]] = data.read()
    for name, files in cells.items():
        place = out / "cells" / name
        place.mkdir(parents=True, exist_ok=True)
        for file, content in files.items():
            (place / file).write_bytes(content)
    return len(cells)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("pack", "unpack"))
    parser.add_argument("place", type=Path, help="of pack the folder of robustgen bench --out, of unpack the file")
    parser.add_argument("--suite", default="adversarial-standard")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    count = pack(Store(given.place), given.suite, given.out) if given.what == "pack" else unpack(given.place, given.out)
    sys.stdout.write(f"{count} cells\n")


if __name__ == "__main__":
    main()
