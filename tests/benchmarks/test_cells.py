"""Cells in one file are those that were packed, and nothing else gets out of such a file."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest

from robustgen.bench.cell import Found, Means, key
from robustgen.bench.places import identities
from robustgen.bench.store import Store
from robustgen.bench.suite import find
from robustgen_benchmarks import cells


def test_what_was_measured_comes_back(tmp_path: Path) -> None:
    suite = find("quick")
    hashes = identities({name for listed in suite.cells for name in listed.cell.sources})
    store, keys = Store(tmp_path / "store"), [key(listed.cell, hashes) for listed in suite.cells]
    for number, own in enumerate(keys[:3]):
        store.place(own).mkdir(parents=True)
        arrays = {"label": np.arange(5)}
        store.write(store.place(own), {"kind": "x"}, Found({"number": number}, arrays), 2.0, Means())
    assert cells.pack(store, "quick", tmp_path / "one.tar.xz") == 3
    assert cells.pack(store, "quick", tmp_path / "two.tar.xz") == 3
    assert (tmp_path / "one.tar.xz").read_bytes() == (tmp_path / "two.tar.xz").read_bytes()
    assert cells.unpack(tmp_path / "one.tar.xz", tmp_path / "out") == 3
    taken = Store(tmp_path / "other")
    assert taken.take(Store(tmp_path / "out").existing(), keys) == 3
    for number, own in enumerate(keys[:3]):
        stored = taken.read(own)
        assert stored is not None
        assert (stored.metrics, stored.seconds) == ({"number": number}, 2.0)


@pytest.mark.parametrize("name", ["cells/a/../b", "/etc/passwd", "cells/a/other.json", "cells/a.b/config.json"])
def test_nothing_else_gets_out(name: str, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "bad.tar.xz", "w:xz") as whole:
        whole.addfile(tarfile.TarInfo("cells/a/config.json"), io.BytesIO(b""))
        whole.addfile(tarfile.TarInfo(name), io.BytesIO(b""))
    with pytest.raises(ValueError, match="no part of a cell"):
        cells.unpack(tmp_path / "bad.tar.xz", tmp_path / "out")
    assert not (tmp_path / "out").exists()
