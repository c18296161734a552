"""What `load` makes of a text, and the laws that every source keeps."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from robustgen.data import DATA
from robustgen.data.load import load
from robustgen.data.source import DataSpec, Source
from robustgen.errors import DataError, UsageError
from robustgen.registry import resolve

noise = np.random.Generator(np.random.PCG64(0))


def npz(folder: Path) -> str:
    np.savez(folder / "a.npz", x=noise.random((40, 1, 6, 5), np.float32), y=np.arange(40) % 3)
    return str(folder / "a.npz")


def table(folder: Path) -> str:
    rows = [f"{a:.6f},{b:.6f},{i % 2}" for i, (a, b) in enumerate(noise.normal(size=(40, 2)))]
    (folder / "a.csv").write_text("\n".join(["a,b,label", *rows]))
    return str(folder / "a.csv")


def images(folder: Path) -> str:
    for i in range(40):
        path = folder / "images" / "ab"[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise.integers(0, 256, (6, 5, 3), np.uint8)).save(path)
    return str(folder / "images")


def built_in(folder: Path) -> str:
    return "digits"


@pytest.fixture(params=[npz, table, images, built_in])
def source(request: pytest.FixtureRequest, tmp_path: Path) -> Source:
    make: Callable[[Path], str] = request.param
    return load(make(tmp_path))


def test_every_row_is_in_exactly_one_split(source: Source) -> None:
    parts = [source.rows(split) for split in ("train", "calibration", "test")]
    assert np.array_equal(np.sort(np.concatenate(parts)), source.rows("all"))
    assert np.array_equal(source.rows("all"), np.arange(sum(map(len, parts))))


def test_streaming_in_any_batch_size_gives_the_same_rows(source: Source) -> None:
    whole = source.read(source.rows("all"))
    pieces = list(source.batches("all", 7))
    assert torch.equal(torch.cat([b.x for b in pieces]), whole.x)
    assert torch.equal(torch.cat([b.index for b in pieces]), whole.index)
    assert whole.y is not None
    assert torch.equal(torch.cat([b.y for b in pieces if b.y is not None]), whole.y)


def test_what_comes_is_what_the_spec_says(source: Source) -> None:
    train = source.read(source.rows("train"))
    assert train.x.dtype == torch.float32
    assert tuple(train.x.shape[1:]) == source.spec.shape
    assert train.x.min() >= 0
    assert train.x.max() <= 1
    assert train.y is not None
    assert train.y.dtype == torch.int64
    assert set(train.y.tolist()) <= set(range(len(source.spec.classes)))


def test_shuffling_and_order_change_no_row(source: Source) -> None:
    rows = source.rows("train")
    shuffled = torch.cat([b.index for b in source.batches("train", 5, torch.Generator().manual_seed(1))])
    assert sorted(shuffled.tolist()) == rows.tolist()
    assert not torch.equal(shuffled, torch.from_numpy(rows))
    assert torch.equal(source.read(rows[::-1].copy()).x, source.read(rows).x.flip(0))


def test_the_spec_survives_json_and_reads_the_same_data_in_the_same_form(source: Source) -> None:
    spec = DataSpec.from_json(json.loads(json.dumps(source.spec.to_json())))
    assert spec == source.spec


@pytest.mark.parametrize("make", [npz, table, images])
def test_a_file_in_an_earlier_form_is_all_test_and_equal(make: Callable[[Path], str], tmp_path: Path) -> None:
    path = make(tmp_path)
    first = load(path)
    again = load(path, like=first.spec)
    assert len(again.rows("test")) == len(first.rows("all"))
    assert torch.equal(again.read(again.rows("all")).x, first.read(first.rows("all")).x)
    assert again.spec == first.spec


@pytest.mark.parametrize("make", [npz, table, images])
def test_the_hash_follows_the_content(make: Callable[[Path], str], tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    path = Path(make(tmp_path / "one"))
    before = load(str(path)).spec.sha256
    assert load(str(path)).spec.sha256 == before
    changed = make(tmp_path / "one")  # new noise in the same place
    assert load(changed).spec.sha256 != before


def test_built_in_images_take_any_form() -> None:
    colour = DataSpec("other", "image", (3, 12, 10), ("a",))
    source = load("digits", like=colour)
    assert source.spec.shape == (3, 12, 10)
    assert source.spec.classes == tuple("0123456789")
    assert len(source.rows("train")) == 1078
    batch = source.read(source.rows("test")[:4])
    assert batch.x.shape == (4, 3, 12, 10)
    assert torch.equal(batch.x[:, 0], batch.x[:, 2])
    assert load("digits", size=(16, 16)).spec.shape == (1, 16, 16)


def test_unknown_names_and_paths_say_what_is_accepted(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"did you mean 'fashion-mnist'.*known: .*folder of images.*\.npz.*\.parquet"):
        load("fashoin-mnist")
    with pytest.raises(DataError, match="no such file"):
        load(str(tmp_path / "missing.npz"))
    with pytest.raises(DataError, match="no such file or folder"):
        load(str(tmp_path / "missing"))
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(DataError, match="not of a form that is read"):
        load(str(tmp_path / "notes.txt"))
    (tmp_path / "folder.npz").mkdir()
    with pytest.raises(DataError, match="no images"):
        load(str(tmp_path / "folder.npz"))


def test_kinds_and_sizes_must_fit(tmp_path: Path) -> None:
    image, numbers = load(npz(tmp_path)).spec, load(table(tmp_path)).spec
    with pytest.raises(DataError, match="kind table, but inputs of kind image"):
        load(table(tmp_path), like=image)
    with pytest.raises(DataError, match="kind image, but inputs of kind table"):
        load("digits", like=numbers)
    with pytest.raises(UsageError, match="size"):
        load("digits", size=(0, 4))
    with pytest.raises(UsageError, match="size"):
        load("digits", size=(4, 4), like=image)
    with pytest.raises(DataError, match="is a table"):
        load(table(tmp_path), size=(4, 4))


def test_every_entry_of_the_table_resolves() -> None:
    assert all(callable(resolve(DATA, name, "data")) for name in DATA)


def test_the_table_imports_nothing_heavy() -> None:
    code = "import sys, robustgen.data; sys.exit(bool({'torch', 'numpy', 'sklearn', 'PIL'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], check=False).returncode == 0
