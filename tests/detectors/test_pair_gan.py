"""Pairs: a critic that is shown mismatches finds them, where the published one need not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from robustgen.data.load import load
from robustgen.detectors.calibrated import CalibratedDetector
from robustgen.detectors.making import make
from robustgen.detectors.pair_gan import PairGANDetector
from robustgen.errors import DataError, UsageError
from robustgen.metrics import auroc
from robustgen.testing import check_detector
from robustgen.training.image_pairs import mismatched, moved


def pairs(n: int, seed: int) -> Tensor:
    """Random blots, and photos of them in a random shade."""
    random = torch.Generator().manual_seed(seed)
    blots = interpolate((torch.rand(n, 1, 3, 3, generator=random) > 0.5).float(), size=(12, 12))
    shade = 0.5 + 0.5 * torch.rand(n, 1, 1, 1, generator=random)
    return torch.cat([blots, blots * shade + 0.05 * torch.rand(n, 1, 12, 12, generator=random)], 1)


@pytest.fixture(scope="module")
def taught() -> PairGANDetector:
    return PairGANDetector(width=8, steps=120).fit(pairs(400, 0))


def found(detector: PairGANDetector, odd: Tensor) -> float:
    with torch.no_grad():
        return auroc(detector.score(pairs(200, 1)).numpy(), detector.score(odd).numpy()).value


@pytest.mark.parametrize(("shape", "scores"), [((2, 8, 8), "patches+gap"), ((6, 9, 11), "patches+worst+l1+gap")])
def test_it_keeps_the_contract(shape: tuple[int, ...], scores: str) -> None:
    check_detector(lambda: PairGANDetector(scores=scores, width=8, steps=50), shape)


def test_a_mismatch_is_found_if_mismatches_were_shown(taught: PairGANDetector) -> None:
    x = pairs(200, 1)
    other = torch.cat([x[:, :1].roll(1, 0), x[:, 1:]], 1)
    shifted = torch.cat([moved(x[:, :1], 1, 2), x[:, 1:]], 1)
    untaught = PairGANDetector(width=8, steps=120, matching="none").fit(pairs(400, 0))
    assert found(taught, other) > 0.95
    assert found(taught, shifted) > 0.75
    assert found(untaught, shifted) < 0.5
    judged = [r.judged for r in taught.record.history()]
    assert None not in judged
    assert all(r.judged is None for r in untaught.record.history())
    assert {"mismatches told apart", "error"} <= set(taught.record.history()[0].facts)


def test_the_generator_draws_what_the_condition_asks_for(taught: PairGANDetector) -> None:
    x = pairs(50, 2)
    made = taught.translate(x)
    assert made.shape == (50, 1, 12, 12)
    torch.testing.assert_close(taught.translate(x[:, :1]), made)  # the condition alone is enough
    assert made[x[:, :1] > 0].mean() > 0.5
    assert made[x[:, :1] == 0].mean() < 0.2
    with pytest.raises(UsageError, match="'normal' was asked for"):
        taught.translate(x, "normal")


@pytest.mark.parametrize("scores", ["patches", "worst", "l1", "gap", "patches+worst+l1+gap"])
def test_the_heat_map_is_the_score(taught: PairGANDetector, scores: str) -> None:
    detector = PairGANDetector(scores=scores, width=8, steps=2).fit(pairs(60, 0))
    x = pairs(5, 3)
    parts = detector.explain(x)
    torch.testing.assert_close(parts.flatten(1).sum(1), detector.score(x), rtol=1e-4, atol=1e-4)


def test_the_heat_map_points_at_what_does_not_fit(taught: PairGANDetector) -> None:
    """The lower right corner of the condition is turned over."""
    x = pairs(100, 4)
    wrong = x.clone()
    wrong[:, :1, 8:, 8:] = 1 - wrong[:, :1, 8:, 8:]
    rise = (taught.explain(wrong) - taught.explain(x)).sum(1).mean(0)
    assert rise[6:, 6:].mean() > 2 * rise[:6, :6].mean().abs()


def test_mismatches_are_made_of_the_pairs() -> None:
    x = pairs(20, 5)
    with torch.random.fork_rng():
        torch.random.manual_seed(0)
        odd = mismatched(x, 1)
    assert odd.shape == x.shape
    torch.testing.assert_close(odd[:10, 1:], x[:10, 1:])  # others' conditions
    torch.testing.assert_close(odd[:10, :1], x[:, :1].roll(1, 0)[:10])
    for row in range(10, 20):  # their own, moved; or the photo is
        same, changed = (0, 1) if row % 2 == 0 else (1, 0)
        torch.testing.assert_close(odd[row, same], x[row, same])
        candidates = [
            moved(x[row : row + 1, changed : changed + 1], way, step) for way in range(4) for step in (1, 2, 3)
        ]
        assert any(torch.equal(odd[row, changed], candidate[0, 0]) for candidate in candidates)


def test_pairs_that_are_not_aligned_are_exchanged_only() -> None:
    x = pairs(21, 5)
    odd = mismatched(x, 1, reach=0)
    torch.testing.assert_close(odd, torch.cat([x[:, :1].roll(1, 0), x[:, 1:]], 1))
    assert PairGANDetector(width=4, steps=2, reach=0).fit(x).record.history()


def test_moving_repeats_the_border() -> None:
    x = torch.arange(12.0).reshape(1, 1, 3, 4)
    down = moved(x, 1, 2)
    assert down[0, 0].tolist() == [[0, 1, 2, 3], [0, 1, 2, 3], [0, 1, 2, 3]]
    up, left, right = (moved(x, way, 1)[0, 0].tolist() for way in (0, 2, 3))
    assert up == [[4, 5, 6, 7], [8, 9, 10, 11], [8, 9, 10, 11]]
    assert left == [[1, 2, 3, 3], [5, 6, 7, 7], [9, 10, 11, 11]]
    assert right == [[0, 0, 1, 2], [4, 4, 5, 6], [8, 8, 9, 10]]


def test_which_channels_are_the_condition() -> None:
    for shape, channels in (((2, 8, 8), 1), ((4, 8, 8), 1), ((6, 8, 8), 3)):
        detector = PairGANDetector(steps=1, width=4).fit(torch.rand(20, *shape))
        assert detector.channels == channels
        assert detector.translate(torch.rand(3, *shape)).shape == (3, shape[0] - channels, *shape[1:])
    assert PairGANDetector(condition_channels=3, steps=1, width=4).fit(torch.rand(20, 4, 8, 8)).channels == 3


def test_bad_input() -> None:
    x = torch.rand(20, 1, 8, 8)
    with pytest.raises(UsageError, match="stack the two"):
        make("pair-gan", {"steps": 1}).fit(x)
    with pytest.raises(UsageError, match="at least 6 x 6"):
        make("pair-gan", {"steps": 1}).fit(torch.rand(20, 12))
    for options, words in (
        ({"matching": "awares"}, "did you mean 'aware'"),
        ({"condition_channels": 0}, "at least 1"),
        ({"width": 0}, "at least 1"),
        ({"reach": -1}, "reach at least 0"),
        ({"steps": 0}, "steps"),
        ({"scores": "patch"}, "patches, worst, l1, gap"),
        ({"scores": "l1+l1"}, "counts once"),
        ({"preset": "slow"}, "preset"),
        ({"learning_rate": -1.0}, "above 0"),
    ):
        with pytest.raises(UsageError, match=words):
            make("pair-gan", options)


def test_a_state_comes_back(taught: PairGANDetector) -> None:
    again = PairGANDetector(**taught.config).restore((2, 12, 12), taught.state_dict())
    np.testing.assert_array_equal(again.score(pairs(9, 6)).numpy(), taught.score(pairs(9, 6)).numpy())


def test_one_template_for_all_products_teaches_no_contradiction() -> None:
    x = pairs(20, 5)
    x[:, :1] = x[:1, :1]
    odd = mismatched(x, 1)
    assert odd.shape == x.shape
    assert (odd != x).flatten(1).any(1).all()
    assert not len(mismatched(x, 1, reach=0))
    x[:3, :1] = 1 - x[:3, :1]
    assert len(mismatched(x, 1, reach=0)) == 2  # those whose condition differs from that of the row before


def test_without_a_mismatch_there_is_nothing_to_learn_from() -> None:
    x = pairs(40, 5)
    x[:, :1] = x[:1, :1]
    one = PairGANDetector(width=4, steps=2).fit(x)
    assert one.mismatched(x).keys() == {"moved"}
    assert not any("collapsed" in said for said in one.record.warnings())  # one condition has one photo
    with pytest.raises(DataError, match="all pairs have the same condition"):
        PairGANDetector(width=4, steps=2, reach=0).fit(x)


def test_the_data_says_which_channels_are_the_condition(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    np.savez(tmp_path / "colour.npz", x=random.random((60, 3, 8, 8), np.float32))
    np.savez(tmp_path / "grey.npz", x=random.random((60, 1, 8, 8), np.float32))
    source = load(f"pairs:{tmp_path / 'colour.npz'},{tmp_path / 'grey.npz'}")
    assert source.spec.columns == ("condition",) * 3 + ("photo",)
    fitted = CalibratedDetector.fit("pair-gan", source, fpr=0.2, options={"steps": 2, "width": 4})
    assert fitted.detector.config["condition_channels"] == 3
    with pytest.raises(UsageError, match="first 3 channels"):
        CalibratedDetector.fit("pair-gan", source, fpr=0.2, options={"steps": 2, "condition_channels": 1})
    with pytest.raises(DataError, match="pairs of a condition and a photo are needed"):
        load("digits", like=source.spec)


def test_the_record_says_what_the_players_did(taught: PairGANDetector) -> None:
    assert {"told apart", "variety"} <= set(taught.record.course())
    older = PairGANDetector(width=8, steps=120)
    older.record.rounds = taught.record.rounds[:, [0, 1, 4]]  # as it was kept before
    assert set(older.record.history()[0].facts) == {"mismatches told apart", "error"}
