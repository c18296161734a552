"""Image folders: what is read how, and that one bad file never stops the rest."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from robustgen.data.load import load
from robustgen.data.source import DataSpec
from robustgen.errors import DataError

noise = np.random.Generator(np.random.PCG64(0))


def image(path: Path, mode: str = "RGB", size: tuple[int, int] = (6, 4)) -> np.ndarray:
    """Write noise of (width, height) and return its pixels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = noise.integers(0, 256, (size[1], size[0], 3) if mode == "RGB" else size[::-1], np.uint8)
    Image.fromarray(pixels).save(path)
    return pixels


def read(path: Path, **form: object) -> torch.Tensor:
    source = load(str(path), **form)  # type: ignore[arg-type]
    return source.read(source.rows("all")).x


def test_class_folders_give_labels_in_sorted_order(tmp_path: Path) -> None:
    pixels = [image(tmp_path / name) for name in ("dog/deep/1.png", "cat/2.png", "cat/1.PNG")]
    source = load(str(tmp_path))
    assert source.spec.classes == ("cat", "dog")
    assert [source.label(row) for row in source.rows("all").tolist()] == ["cat/1.PNG", "cat/2.png", "dog/deep/1.png"]
    batch = source.read(source.rows("all"))
    assert batch.y is not None
    assert batch.y.tolist() == [0, 0, 1]
    assert torch.equal(batch.x[2], torch.from_numpy(pixels[0]).permute(2, 0, 1).float() / 255)


def test_a_flat_folder_has_no_labels_and_a_mixed_one_neither(tmp_path: Path) -> None:
    image(tmp_path / "1.png")
    assert load(str(tmp_path)).spec.classes == ()
    image(tmp_path / "cat" / "2.png")
    source = load(str(tmp_path))
    assert source.read(source.rows("all")).y is None
    assert len(source.rows("all")) == 2


def test_train_and_test_folders_are_the_splits(tmp_path: Path) -> None:
    for i in range(20):
        image(tmp_path / "train" / "good" / f"{i}.png")
    for name in ("good", "broken"):
        image(tmp_path / "test" / name / "0.png")
    image(tmp_path / "ground_truth" / "0.png")
    source = load(str(tmp_path))
    assert source.spec.classes == ("broken", "good")
    assert [source.label(row) for row in source.rows("test").tolist()] == ["test/broken/0.png", "test/good/0.png"]
    assert (len(source.rows("train")), len(source.rows("calibration"))) == (18, 2)
    assert source.skipped == {"ground_truth": "beside train and test, but not a split"}


def test_classes_that_the_model_knows_get_its_numbers(tmp_path: Path) -> None:
    image(tmp_path / "dog" / "1.png")
    like = DataSpec("pets", "image", (3, 4, 6), ("cat", "dog"))
    source = load(str(tmp_path), like=like)
    y = source.read(source.rows("test")).y
    assert y is not None
    assert y.tolist() == [1]
    assert source.spec.classes == like.classes
    image(tmp_path / "zebra" / "1.png")
    assert load(str(tmp_path), like=like).spec.classes == ("dog", "zebra")


def test_the_most_common_size_wins_and_others_are_resized(tmp_path: Path) -> None:
    for i in range(3):
        image(tmp_path / f"{i}.png", size=(6, 4))
    image(tmp_path / "big.png", size=(60, 40))
    assert load(str(tmp_path)).spec.shape == (3, 4, 6)
    assert read(tmp_path).shape == (4, 3, 4, 6)
    assert read(tmp_path, size=(5, 5)).shape == (4, 3, 5, 5)
    assert read(tmp_path, like=DataSpec("old", "image", (1, 8, 8))).shape == (4, 1, 8, 8)


def test_resizing_is_antialiased(tmp_path: Path) -> None:
    board = (np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)
    Image.fromarray(board).save(tmp_path / "board.png")
    assert torch.allclose(read(tmp_path, size=(8, 8)), torch.tensor(0.5), atol=0.02)


def test_grey_needs_all_grey(tmp_path: Path) -> None:
    pixels = image(tmp_path / "0.png", "L")
    Image.fromarray(pixels > 127).save(tmp_path / "1.png")
    assert load(str(tmp_path)).spec.shape == (1, 4, 6)
    image(tmp_path / "2.png", "RGB")
    assert load(str(tmp_path)).spec.shape == (3, 4, 6)


def test_sixteen_bits_keep_their_depth(tmp_path: Path) -> None:
    deep = noise.integers(0, 65_536, (4, 6), np.uint16)
    Image.fromarray(deep).save(tmp_path / "0.png")
    Image.fromarray(deep).save(tmp_path / "1.tif")
    expected = torch.from_numpy(deep.astype(np.float32)) / 65_535
    assert torch.equal(read(tmp_path), expected.expand(2, 1, 4, 6))


def test_alpha_is_on_white(tmp_path: Path) -> None:
    Image.new("RGBA", (4, 4), (255, 0, 0, 0)).save(tmp_path / "0.png")
    Image.new("LA", (4, 4), (0, 0)).save(tmp_path / "1.png")
    palette = Image.new("P", (4, 4), 0)
    palette.putpalette([0, 0, 0])
    palette.save(tmp_path / "2.gif", transparency=0)
    assert torch.equal(read(tmp_path), torch.ones(3, 3, 4, 4))


def test_images_are_upright(tmp_path: Path) -> None:
    pixels = noise.integers(0, 256, (4, 6), np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    Image.fromarray(pixels).save(tmp_path / "0.png", exif=exif)
    assert torch.equal(read(tmp_path)[0, 0], torch.from_numpy(np.rot90(pixels, -1).copy()).float() / 255)


def test_bad_files_are_reported_and_the_rest_read(tmp_path: Path) -> None:
    for i in range(4):
        image(tmp_path / f"{i}.png", size=(60, 40))
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "empty.jpg").write_bytes(b"")
    whole = (tmp_path / "3.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "._0.png").write_text("hidden")
    (tmp_path / "notes.txt").write_text("not an image")
    source = load(str(tmp_path))
    assert sorted(source.skipped) == ["empty.jpg", "text.png"]
    (tmp_path / "1.png").unlink()
    batches = list(source.batches("all", 1))
    assert [source.label(int(b.index)) for b in batches] == ["0.png", "2.png", "3.png"]
    assert sorted(source.skipped) == ["1.png", "cut.png", "empty.jpg", "text.png"]
    assert "does not exist any more" in source.skipped["1.png"]
    assert "damaged" in source.skipped["cut.png"]


def test_a_picture_bomb_is_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image(tmp_path / "0.png")
    image(tmp_path / "bomb.png", size=(60, 40))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    source = load(str(tmp_path))
    assert "too large" in source.skipped["bomb.png"]
    assert len(source.rows("all")) == 1


def test_folders_without_a_readable_image_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no images in"):
        load(str(tmp_path))
    (tmp_path / "a.png").write_text("no image")
    with pytest.raises(DataError, match=r"1 cannot be used, the first, a\.png, because it is not an image"):
        load(str(tmp_path))


def test_a_single_image_is_one_test_row(tmp_path: Path) -> None:
    pixels = image(tmp_path / "a.png")
    source = load(str(tmp_path / "a.png"))
    batch = source.read(source.rows("test"))
    assert torch.equal(batch.x[0], torch.from_numpy(pixels).permute(2, 0, 1).float() / 255)
    assert batch.y is None
    assert source.label(0) == "a.png"
    (tmp_path / "b.png").write_text("no image")
    with pytest.raises(DataError, match=r"cannot use the image .*b\.png"):
        load(str(tmp_path / "b.png"))
    with pytest.raises(DataError, match="no such file"):
        load(str(tmp_path / "c.png"))


def test_links_in_a_circle_end(tmp_path: Path) -> None:
    image(tmp_path / "cat" / "1.png")
    (tmp_path / "cat" / "again").symlink_to(tmp_path)
    assert len(load(str(tmp_path)).rows("all")) == 1
