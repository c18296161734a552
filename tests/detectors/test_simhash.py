from __future__ import annotations

import copy
from collections import Counter

import numpy as np
import pytest
import torch
from torch import Tensor

from robustgen.data.load import load
from robustgen.detectors.calibrated import CalibratedDetector
from robustgen.detectors.simhash import SimHashDetector, _directions
from robustgen.detectors.streaming import Streaming
from robustgen.errors import RobustgenError, UsageError
from robustgen.metrics import auroc
from robustgen.testing import check_detector


@pytest.fixture
def x(generator: torch.Generator) -> Tensor:
    return torch.randn(400, 10, generator=generator)


def raw(**options: int) -> SimHashDetector:
    return SimHashDetector(network="none", **options)


@pytest.mark.parametrize("shape", [(1, 8, 8), (12,)])
def test_hashes_of_the_inputs_themselves_keep_the_contract(shape: tuple[int, ...]) -> None:
    check_detector(raw, shape)


def test_scores_are_the_visit_counts(x: Tensor) -> None:
    """Counted again by hand: the signs of the projections as words, one counter a table."""
    detector = raw(tables=3, bits=5).fit(x)
    signs = (x - detector.centre) @ detector.planes > 0
    words = [["".join(str(int(bit)) for bit in row[5 * t : 5 * t + 5]) for row in signs] for t in range(3)]
    counters = [Counter(table) for table in words]
    expected = [sum((1 + counters[t][words[t][row]]) ** -0.5 for t in range(3)) / 3 for row in range(len(x))]
    torch.testing.assert_close(detector.score(x), torch.tensor(expected))
    assert int(detector.counts.sum()) == 3 * len(x)
    assert detector.facts()["seen"] == len(x)
    far = detector.score(1e6 * x[:1] - 1e6 * x[1:2])
    assert 0 < float(far) <= 1


def test_hashing_is_by_angle(generator: torch.Generator) -> None:
    """P(a bit differs) = angle / pi (Goemans, Williamson 1995), for directions drawn alone or in orthogonal groups."""
    planes = _directions(8, 2000, 4, 0)
    a, b = torch.randn(2, 8, generator=generator, dtype=torch.float64)
    differ = (((a @ planes) > 0) != ((b @ planes) > 0)).double().mean()
    angle = torch.arccos(torch.nn.functional.cosine_similarity(a, b, dim=0))
    assert float(differ) == pytest.approx(float(angle / torch.pi), abs=0.02)


def test_directions_of_a_table_are_orthogonal() -> None:
    planes = _directions(6, 3, 8, 0)  # six in a row, then two more
    for table in planes.T.reshape(3, 8, 6):
        torch.testing.assert_close(table[:6] @ table[:6].T, torch.eye(6).double())
        torch.testing.assert_close(table[6:] @ table[6:].T, torch.eye(2).double())
    assert not torch.equal(_directions(6, 3, 8, 1), planes)


def test_counting_in_parts_is_counting_at_once_in_any_order(x: Tensor, generator: torch.Generator) -> None:
    more = torch.randn(90, 10, generator=generator)
    fitted = raw().fit(x)
    once, parts = copy.deepcopy(fitted).partial_fit(more), copy.deepcopy(fitted)
    for part in more.flip(0).split(17):
        parts.partial_fit(part)
    assert all(torch.equal(a, b) for a, b in zip(once.state_dict().values(), parts.state_dict().values(), strict=True))
    assert once.facts()["seen"] == 490


def test_counts_made_elsewhere_are_merged(x: Tensor, generator: torch.Generator) -> None:
    more = torch.randn(90, 10, generator=generator)
    fitted = raw().fit(x)
    here = copy.deepcopy(fitted).partial_fit(more[:50])
    elsewhere = copy.deepcopy(fitted).forget().partial_fit(more[50:])
    assert elsewhere.facts()["seen"] == 40
    here.merge(elsewhere)
    whole = copy.deepcopy(fitted).partial_fit(more)
    assert torch.equal(here.visited, whole.visited)
    assert torch.equal(here.counts, whole.counts)
    assert torch.equal(here.score(more), whole.score(more))
    with pytest.raises(UsageError, match="copies of one fit"):
        here.merge(raw(seed=1).fit(x))


def test_what_comes_again_and_again_is_no_longer_new(x: Tensor) -> None:
    detector = raw(tables=4).fit(x)
    odd = 5 * torch.ones(1, 10) * torch.tensor([1.0, -1] * 5)
    familiar = detector.score(x).mean()
    before = detector._frequencies(detector._hashes(odd)).double()
    scores = [float(detector.score(odd))]
    for times in range(1, 21):
        detector.partial_fit(odd)
        expected = (1 + (before + times) * 400 / (400 + times)).rsqrt().mean()
        assert float(detector.score(odd)) == pytest.approx(float(expected))
        scores.append(float(detector.score(odd)))
    assert scores == sorted(scores, reverse=True)
    assert scores[-1] < scores[0] / 2
    assert detector.score(x).mean() == pytest.approx(float(familiar), rel=0.05)  # others stay as they were


def test_twice_the_same_data_changes_no_score(x: Tensor) -> None:
    """n is counted for as many inputs as there were at the fit: the calibrated threshold keeps its meaning."""
    detector = raw().fit(x)
    before = detector.score(x)
    torch.testing.assert_close(detector.partial_fit(x).score(x), before)


def test_finer_hashes_leave_more_unseen(x: Tensor) -> None:
    unseen = [raw(bits=bits).fit(x).facts()["unseen"] for bits in (2, 8, 20)]
    assert unseen[0] < unseen[1] < unseen[2]
    assert unseen[0] < 0.1
    assert unseen[2] > 0.9
    assert raw().fit(x).facts()["bits"] == 9  # log2(400) = 8.6


def test_foreign_digits_are_seldom_visited() -> None:
    source = load("digits")
    x = source.read(source.rows("train")).x
    y = source.read(source.rows("train")).y
    test = source.read(source.rows("test"))
    assert y is not None
    assert test.y is not None
    detector = SimHashDetector(epochs=20).fit(x[y < 5])
    scores = detector.score(test.x)
    found = auroc(scores[test.y < 5].numpy(), scores[test.y >= 5].numpy())
    assert found.value > 0.85


def test_hashing_the_codes_of_an_autoencoder_is_simhash() -> None:
    """The same autoencoder's codes as vectors and the same seed give the same hashes and counts; of so few inputs none
    is held out, so that both whiten by the same ones.
    """
    source = load("digits")
    x = source.read(source.rows("train")[:30]).x
    whole = SimHashDetector(epochs=2, bits=6).fit(x)
    assert whole.codec is not None
    assert np.isnan(whole.facts()["unseen"])
    apart = SimHashDetector(network="none", bits=6).fit(whole.codec.encode(x))
    test = source.read(source.rows("test")).x
    assert torch.equal(apart.visited, whole.visited)
    torch.testing.assert_close(apart.score(whole.codec.encode(test)), whole.score(test))


def test_a_calibrated_detector_takes_in_more() -> None:
    source = load("digits")
    fitted = CalibratedDetector.fit("simhash", source, options={"epochs": 3})
    assert isinstance(fitted.detector, Streaming)
    facts = fitted.summary()["facts"]
    assert facts["seen"] == len(source.rows("train"))
    assert 0 < facts["unseen"] < 1
    x = next(iter(source.batches("test", 50))).x
    before = fitted.judge(x).score
    for _ in range(5):
        fitted.update(x)
    assert fitted.summary()["facts"]["seen"] == facts["seen"] + 250
    assert fitted.judge(x).score.mean() < before.mean()
    with pytest.raises(UsageError, match="pca takes in nothing after its fit: use simhash"):
        CalibratedDetector.fit("pca", source).update(x)


def test_misuse(x: Tensor) -> None:
    with pytest.raises(RobustgenError, match="not fitted"):
        raw().partial_fit(x)
    with pytest.raises(UsageError, match=r"shape \(10,\), but \(9,\)"):
        raw().fit(x).partial_fit(x[:, 1:])
    for options in ({"tables": 0}, {"bits": 0}, {"bits": 60}):
        with pytest.raises(UsageError, match="tables and hashes"):
            raw(**options)
    with pytest.raises(UsageError, match="dense, convolutional"):
        SimHashDetector(network="deep").fit(x)
