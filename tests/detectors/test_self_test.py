"""A score that is worth nothing is found out right after fitting."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from robustgen.artifacts import staged
from robustgen.data.load import load
from robustgen.detectors.calibrated import CalibratedDetector
from robustgen.detectors.k_means import KMeansDetector
from robustgen.detectors.self_test import MOST, SelfTest, self_test


def images(n: int = 150, shape: tuple[int, ...] = (1, 12, 12)) -> Tensor:
    """A bright disc somewhere near the middle of each."""
    generator = torch.Generator().manual_seed(0)
    row, column = torch.meshgrid(torch.arange(shape[1]), torch.arange(shape[2]), indexing="ij")
    centre = torch.tensor(shape[1:]) / 2 + torch.rand(n, 2, generator=generator) * 3 - 1.5
    squares = (row - centre[:, 0, None, None]) ** 2 + (column - centre[:, 1, None, None]) ** 2
    return (0.2 + 0.6 * (squares < 14).float())[:, None].repeat(1, shape[0], 1, 1)


def rows(n: int = 150) -> Tensor:
    """Points near a line in five dimensions."""
    generator = torch.Generator().manual_seed(0)
    way = torch.tensor([[0.9, 0.7, 0.2, 0.5, 0.4]])
    return torch.rand(n, 1, generator=generator) * way + 0.01 * torch.randn(n, 5, generator=generator)


def test_a_good_score_passes() -> None:
    x = images(300)
    tested = self_test(KMeansDetector(30).fit(x[150:]).score, x[:150], "image")
    assert tested.n == 150
    assert set(tested.auroc) == {"noise", "blank", "constant", "shuffled", "pasted", "contrast", "halves"}
    assert tested.warnings == []
    assert tested.auroc["noise"] == tested.auroc["constant"] == 1.0
    table = rows(300)
    tested = self_test(KMeansDetector(30).fit(table[150:]).score, table[:150], "table")
    assert set(tested.auroc) == {"permuted", "far out", "scaled up", "uniform"}
    assert tested.warnings == []
    assert min(tested.auroc.values()) > 0.9


@pytest.mark.parametrize("kind", ["image", "table"])
def test_an_inverted_score_is_found(kind: str) -> None:
    x = images(300) if kind == "image" else rows(300)
    detector = KMeansDetector(30).fit(x[150:])
    tested = self_test(lambda z: -detector.score(z), x[:150], "image" if kind == "image" else "table")
    assert len(tested.warnings) == 1
    assert "looks inverted" in tested.warnings[0]
    assert "AUROC 0.00" in tested.warnings[0]


def test_a_collapsed_score_is_found() -> None:
    x = images()
    detector = KMeansDetector(30).fit(x)
    for score in (
        lambda z: torch.full((len(z),), 0.25),
        lambda z: 0.25 + 1e-8 * detector.score(z).double(),
        lambda z: 0.25 + 1e-9 * detector.score(z),
        lambda z: (z.flatten(1).sum(1) * 1e4).long() % 101 // 100 * 1.0,  # the same for 99 of 100
    ):
        tested = self_test(score, x, "image")
        assert len(tested.warnings) == 1
        assert "has collapsed" in tested.warnings[0]


def test_a_score_of_nothing_in_particular_is_found() -> None:
    tested = self_test(lambda z: (z.flatten(1).sum(1) * 1e5).long() % 997 / 997, images(), "image")
    assert len(tested.warnings) == 1
    assert "tells no kind" in tested.warnings[0]


def test_a_blind_spot_is_named() -> None:
    """The spread of the pixels within an image sees noise, and takes an even image for the most normal of all."""
    x = images() + 0.02 * torch.rand(150, 1, 12, 12, generator=torch.Generator().manual_seed(3))

    def score(z: Tensor) -> Tensor:
        return (z[:, :, 1:] - z[:, :, :-1]).abs().flatten(1).mean(1)

    tested = self_test(score, x, "image")
    assert [warning.split(" as more")[0] for warning in tested.warnings] == [
        "the score rates blank images",
        "the score rates images of one value",
    ]
    assert "100 % of normal inputs (AUROC 0.00)" in tested.warnings[0]


def test_scores_that_are_not_numbers_are_named() -> None:
    def score(z: Tensor) -> Tensor:
        spread = z.flatten(1).std(1)
        return spread / (spread > 1e-3)

    tested = self_test(score, images(), "image")
    assert [warning.split(" is NaN")[0] for warning in tested.warnings] == [
        "the score of blank images",
        "the score of images of one value",
    ]
    assert "blank" not in tested.auroc


def test_few_inputs_give_no_verdict() -> None:
    tested = self_test(lambda z: -z.flatten(1).std(1), images(6), "image")
    assert tested.n == 6
    assert tested.warnings == []


@pytest.mark.parametrize("shape", [(1, 12, 12), (3, 9, 14), (2, 3, 3), (1, 1, 8)])
def test_what_is_made_stays_in_range_and_keeps_its_values(shape: tuple[int, ...]) -> None:
    """Shuffling moves values and changes none; nothing leaves the box; nothing depends on the global random state."""
    seen = []
    x = torch.rand(20, *shape, generator=torch.Generator().manual_seed(0))

    def score(z: Tensor) -> Tensor:
        seen.append(z.clone())
        return z.flatten(1).mean(1)

    self_test(score, x, "image")
    state = torch.get_rng_state()
    first = list(seen)
    seen.clear()
    self_test(score, x, "image")
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(first, seen, strict=True))
    noise, blank, constant, shuffled, pasted, contrast, halves, normal = seen
    for z in seen:
        assert z.shape == x.shape
        assert 0 <= z.min() <= z.max() <= 1
    torch.testing.assert_close(shuffled.flatten(2).sort().values, normal.flatten(2).sort().values)
    assert not torch.equal(shuffled, normal)
    assert not blank.any()
    assert torch.equal(constant, constant[:, :1, :1, :1].expand_as(constant))
    other, half = normal.roll(1, 0), shape[1] // 2
    assert torch.equal(halves, torch.cat([other[:, :, :half], normal[:, :, half:]], 2))
    assert noise.unique().numel() > 0.9 * noise.numel()
    patch = shape[0] * max(1, shape[1] // 3) * max(1, shape[2] // 3)
    assert 0 < (pasted != normal).flatten(1).sum(1).max() <= patch
    assert (contrast.flatten(1).std(1) > normal.flatten(1).std(1)).all()


def test_permuted_rows_have_the_same_columns() -> None:
    seen = []
    x = rows(300)

    def score(z: Tensor) -> Tensor:
        seen.append(z)
        return z.sum(1)

    self_test(score, x, "table")
    (permuted, far, _, uniform, normal) = (torch.cat(seen[i : i + 2]) for i in range(0, 10, 2))
    assert len(normal) == MOST
    assert torch.equal(permuted.sort(0).values, normal.sort(0).values)
    assert ((far != normal).sum(1) == 1).all()
    assert ((far > normal.amax(0)) | (far < normal.amin(0)) == (far != normal)).all()
    assert (uniform >= normal.amin(0)).all()
    assert (uniform <= normal.amax(0)).all()


def test_it_is_kept_with_the_detector(tmp_path: Path) -> None:
    fitted = CalibratedDetector.fit("k-means", load("digits"), options={"clusters": 20})
    assert fitted.self_test is not None
    assert fitted.self_test.n == MOST
    assert fitted.summary()["self_test"]["auroc"] == fitted.self_test.auroc
    with staged(tmp_path / "d") as directory:
        fitted.save(directory)
    again = CalibratedDetector.load(tmp_path / "d").self_test
    assert again == fitted.self_test == SelfTest(**fitted.self_test.to_json())
    assert np.isfinite(list(again.auroc.values())).all()
