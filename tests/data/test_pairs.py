"""Pairs of pictures, and images beside their edges."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from robustgen.data.edges import edge_map
from robustgen.data.load import load
from robustgen.errors import DataError, UsageError
from robustgen.testing import check_source


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Grey templates and coloured products of the same names, and one of each without a partner."""
    rng = np.random.default_rng(0)
    first, second = tmp_path / "templates", tmp_path / "products"
    first.mkdir()
    second.mkdir()
    for number in range(40):
        grey = rng.integers(0, 256, (8, 10), dtype=np.uint8)
        Image.fromarray(grey).save(first / f"{number:02}.png")
        Image.fromarray(np.stack([grey, 255 - grey, grey], 2)).save(second / f"{number:02}.bmp")
    Image.fromarray(grey).save(first / "alone.png")
    Image.fromarray(grey).save(second / "lonely.png")
    return first, second


def test_files_of_one_name_are_a_pair(folders: tuple[Path, Path]) -> None:
    first, second = folders
    source = load(f"pairs:{first},{second}")
    check_source(source)
    assert source.spec.shape == (4, 8, 10)
    assert source.spec.columns == ("condition", "photo", "photo", "photo")
    assert source.spec.name == "pairs:templates,products"
    x = source.read(source.rows("all")).x
    assert len(x) == 40
    torch.testing.assert_close(x[:, 1], x[:, 0])
    torch.testing.assert_close(x[:, 2], 1 - x[:, 0])
    assert source.label(int(source.rows("all")[3])).endswith(".bmp")
    assert {name: "partner" in why for name, why in source.skipped.items()} == {"alone.png": True, "lonely.png": True}


def test_further_pairs_come_in_the_same_form(folders: tuple[Path, Path], tmp_path: Path) -> None:
    first, second = folders
    spec = load(f"pairs:{first},{second}", size=(6, 6)).spec
    assert spec.shape == (4, 6, 6)
    again = load(f"pairs:{second},{first}", like=spec)  # the colours become grey, the greys colours
    assert again.spec.shape == (4, 6, 6)
    assert len(again.rows("test")) == 40
    with pytest.raises(DataError, match="does not say which channels"):
        load(f"pairs:{first},{second}", like=load("digits").spec)


def test_arrays_are_matched_row_by_row(tmp_path: Path) -> None:
    x = np.random.default_rng(0).random((30, 1, 6, 6)).astype(np.float32)
    np.savez(tmp_path / "a.npz", x=x)
    np.savez(tmp_path / "b.npz", x=1 - x, y=np.arange(30) % 3)
    np.savez(tmp_path / "c.npz", x=x[:7])
    source = load(f"pairs:{tmp_path}/a.npz,{tmp_path}/b.npz")
    check_source(source)
    batch = source.read(source.rows("all"))
    torch.testing.assert_close(batch.x[:, 0], 1 - batch.x[:, 1])
    assert batch.y is not None
    assert batch.y.tolist() == [row % 3 for row in range(30)]
    with pytest.raises(DataError, match="30 and 'c.npz' 7 rows"):
        load(f"pairs:{tmp_path}/a.npz,{tmp_path}/c.npz")


def test_pairs_that_cannot_be(folders: tuple[Path, Path], tmp_path: Path) -> None:
    first, _ = folders
    (tmp_path / "others").mkdir()
    Image.fromarray(np.zeros((8, 10), np.uint8)).save(tmp_path / "others" / "x.png")
    with pytest.raises(DataError, match="need one name"):
        load(f"pairs:{first},{tmp_path}/others")
    with pytest.raises(UsageError, match="pairs:CONDITIONS,PHOTOS"):
        load(f"pairs:{first}")
    with pytest.raises(UsageError, match="did you mean 'digits'"):
        load("edges:digit")
    (tmp_path / "t.csv").write_text("a,b\n" + "1,2\n3,4\n" * 20)
    for spec in (f"edges:{tmp_path}/t.csv", f"pairs:{tmp_path}/t.csv,{tmp_path}/t.csv"):
        with pytest.raises(DataError, match="is a table"):
            load(spec)


def test_the_edges_of_a_square_are_its_border() -> None:
    x = torch.zeros(1, 3, 8, 8)
    x[:, :, 2:6, 2:6] = 1
    edges = edge_map(x)[0, 0]
    expected = torch.zeros(8, 8)
    expected[1:7, 1:7] = 1
    expected[3:5, 3:5] = 0
    torch.testing.assert_close(edges, expected)
    assert edge_map(0.18 * x).sum() == 0  # a step of less than a fifth of the range is no edge, nor a corner of it
    assert edge_map(torch.ones(1, 1, 6, 6)).sum() == 0


def test_images_come_below_their_edges(tmp_path: Path) -> None:
    source = load("edges:digits")
    check_source(source)
    plain = load("digits")
    batch, own = source.read(source.rows("test")), plain.read(plain.rows("test"))
    torch.testing.assert_close(batch.x, torch.cat([edge_map(own.x), own.x], 1))
    assert source.spec.shape == (2, 8, 8)
    assert (source.spec.columns, source.spec.name) == (("condition", "photo"), "edges:digits")
    again = load("edges:digits", like=source.spec)
    torch.testing.assert_close(again.read(again.rows("test")[:5]).x, batch.x[:5])
    with pytest.raises(DataError, match="beside their edge maps"):
        load("edges:digits", like=plain.spec)
    twice = load("pairs:digits,digits")
    assert twice.spec.shape == (2, 8, 8)
    assert load("edges:digits", like=twice.spec).spec.shape == (2, 8, 8)
