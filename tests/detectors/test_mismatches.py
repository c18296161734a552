"""What does not belong to an input is what a detector of pairs must notice: the self-test tries it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.utils.data import TensorDataset

from robustgen.detectors.k_means import KMeansDetector
from robustgen.detectors.mismatches import mismatches
from robustgen.detectors.pair_gan import PairGANDetector
from robustgen.detectors.self_test import self_test

LEVELS = torch.tensor([0.0, 0.5, 1.0])


def level(x: Tensor) -> Tensor:
    """Logits of three classes: the nearest of the levels 0, 0.5 and 1 to the mean value."""
    return -(x.flatten(1).mean(1, keepdim=True) - LEVELS).abs()


def rows(n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    y = torch.randint(3, (n,), generator=generator)
    return LEVELS[y][:, None] + 0.01 * torch.randn(n, 4, generator=generator), y


def test_labels_are_exchanged_for_wrong_and_for_the_next_likeliest(generator: torch.Generator) -> None:
    x, y = rows(60, generator)
    asked: list[Tensor] = []

    def score(z: Tensor, label: Tensor | None) -> Tensor:
        assert label is not None
        asked.append(label)
        return z.mean(1)

    detector = KMeansDetector(3, per_class=True).fit(TensorDataset(x, y))
    found = mismatches(detector, score, level, x)
    assert list(found) == ["wrong label", "runner-up"]
    for scored in found.values():
        assert scored(x).shape == (60,)
    wrong, next_best = asked
    assert bool((wrong != y).all())
    assert set(wrong.tolist()) == {0, 1, 2}
    middle = y != 1  # of the outer levels the middle one is the next
    assert bool((next_best[middle] == 1).all())
    assert bool((next_best[~middle] != 1).all())


def test_a_score_that_ignores_the_label_is_told(generator: torch.Generator) -> None:
    x, y = rows(200, generator)
    detector = KMeansDetector(3, per_class=True).fit(TensorDataset(x, y))
    taught = mismatches(detector, detector.score, level, x)
    good = self_test(lambda z: detector.score(z, level(z).argmax(1)), x, "table", mismatches=taught)
    assert good.auroc["wrong label"] == good.auroc["runner-up"] == 1.0
    assert not any("label" in warning for warning in good.warnings)

    def deaf(z: Tensor, label: Tensor | None = None) -> Tensor:
        return detector.score(z, level(z).argmax(1))

    bad = self_test(deaf, x, "table", mismatches=mismatches(detector, deaf, level, x))
    assert bad.auroc["wrong label"] == 0.5
    said = "; ".join(bad.warnings)
    assert "random wrong labels" in said
    assert "the likeliest wrong label" in said


def test_labels_that_no_normal_input_gets_are_not_asked_about(generator: torch.Generator) -> None:
    """The classifier knows three classes, the detector has seen inputs of two."""
    x, y = rows(60, generator)
    x, y = x[y < 2], y[y < 2]
    detector = KMeansDetector(3, per_class=True).fit(TensorDataset(x, y))
    asked: list[Tensor] = []

    def score(z: Tensor, label: Tensor | None) -> Tensor:
        assert label is not None
        asked.append(label)
        return detector.score(z, label)

    beside = mismatches(detector, score, level, x)
    tested = self_test(lambda z: score(z, level(z)[:, :2].argmax(1)), x, "table", mismatches=beside)
    assert tested.auroc["wrong label"] == tested.auroc["runner-up"] == 1.0
    assert set(torch.cat(asked).tolist()) == {0, 1}
    assert mismatches(detector, score, level, x[y == 0]) == {}


def test_what_stands_alone_or_has_no_classifier_has_no_mismatch(generator: torch.Generator) -> None:
    x, y = rows(60, generator)
    alone = KMeansDetector(3).fit(x)
    assert mismatches(alone, alone.score, level, x) == {}
    judged = KMeansDetector(3, per_class=True).fit(TensorDataset(x, y))
    assert mismatches(judged, judged.score, None, x) == {}


@pytest.mark.parametrize(("reach", "kinds"), [(3, ["other condition", "moved"]), (0, ["other condition"])])
def test_pairs_are_parted(reach: int, kinds: list[str], generator: torch.Generator) -> None:
    x = torch.rand(12, 2, 8, 8, generator=generator)
    detector = PairGANDetector(reach=reach, steps=1, width=4).fit(x)
    seen: list[Tensor] = []

    def score(z: Tensor, label: Tensor | None) -> Tensor:
        assert label is None
        seen.append(z)
        return z.flatten(1).mean(1)

    found = mismatches(detector, score, None, x)
    assert list(found) == kinds
    for scored in found.values():
        scored(x)
    assert torch.equal(seen[0][:, 1:], x[:, 1:])
    assert torch.equal(seen[0][:, :1], x[:, :1].roll(1, 0))
    for moved in seen[1:]:
        assert torch.equal(moved[:, :1], x[:, :1])
        assert torch.equal(moved[:, 1:, :, 2:], x[:, 1:, :, :-2])
