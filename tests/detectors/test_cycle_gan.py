"""Two domains: translations that keep what the domains share, scores, a classifier that is watched."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate
from torch.utils.data import TensorDataset

import robustgen.training.two_players as two_players
from robustgen.artifacts import staged
from robustgen.data.domains import two_domains
from robustgen.data.load import load
from robustgen.detectors.calibrated import CalibratedDetector
from robustgen.detectors.cycle_gan import CycleGANDetector, divergence
from robustgen.detectors.making import make
from robustgen.errors import DataError, UsageError
from robustgen.models.build import build
from robustgen.models.load import LoadedModel
from robustgen.testing import check_detector, check_source
from robustgen.training.cycle import POOL, CycleGame, both
from robustgen.training.two_players import GameRecipe, play


def blots(n: int, seed: int) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    return 0.9 * interpolate((torch.rand(n, 1, 3, 3, generator=random) > 0.7).float(), size=(9, 9))


def on_grey(x: Tensor) -> Tensor:
    return 0.5 + 0.4 * x


def domains(n: int = 300) -> TensorDataset:
    """Blots on black, and others of the same kind on grey."""
    x = torch.cat([blots(n, 0), on_grey(blots(n, 1))])
    return TensorDataset(x, torch.cat([torch.zeros(n), torch.ones(n)]).long())


class Left(nn.Module):
    """Says whether the left or the right third is brighter."""

    def forward(self, x: Tensor) -> Tensor:
        return 20 * torch.stack([x[..., :3].flatten(1).mean(1), x[..., 6:].flatten(1).mean(1)], 1)


@pytest.fixture(scope="module")
def fitted() -> CycleGANDetector:
    return CycleGANDetector(width=6, steps=150).fit(domains())


def test_it_keeps_the_contract() -> None:
    check_detector(lambda: CycleGANDetector(width=4, blocks=1, steps=40), (1, 8, 8))


def test_it_keeps_it_with_a_classifier_too(fitted: CycleGANDetector) -> None:
    def watching() -> CycleGANDetector:
        made = CycleGANDetector("divergence+identity", width=4, blocks=1, steps=2)
        made.watch(Left())
        return made

    x, detector = blots(20, 2), watching().fit(domains(40))
    assert detector.units.chosen == ["divergence", "identity"]
    assert not any("_classifier" in name or "Left" in name for name in detector.state_dict())
    alone = torch.cat([detector.score(x[i : i + 1]) for i in range(20)])
    torch.testing.assert_close(alone, detector.score(x), rtol=1e-4, atol=1e-5)
    with pytest.raises(UsageError, match="asks a classifier"):
        CycleGANDetector("divergence", steps=1).fit(domains(40))
    assert fitted.units.chosen == ["cycle", "critic"]


def test_a_state_without_its_classifier_is_no_other_score() -> None:
    watching = CycleGANDetector(width=4, blocks=1, steps=1)
    watching.watch(Left())
    watching.fit(domains(40))
    assert watching.units.chosen == ["divergence"]
    alone = CycleGANDetector(**watching.config).restore((1, 9, 9), watching.state_dict())
    with pytest.raises(UsageError, match="that of 1 readings, but the score is made of cycle"):
        alone.score(blots(3, 0))


def test_translations_look_like_the_domain_and_keep_the_blots(fitted: CycleGANDetector) -> None:
    x = blots(100, 3)
    there = fitted.translate(on_grey(x), "normal")
    assert (there - x).abs().mean() < 0.5 * (on_grey(x) - x).abs().mean()
    assert (fitted.translate(x, "other") - on_grey(x)).abs().mean() < 0.5 * (on_grey(x) - x).abs().mean()
    for made in (there, fitted.translate(x, "other")):
        assert made.shape == x.shape
        assert 0 <= made.min() <= made.max() <= 1
    with pytest.raises(UsageError, match="to normal or to other, but 'left'"):
        fitted.translate(x, "left")
    assert {"cycle error", "identity error"} <= set(fitted.record.history()[0].facts)
    assert None not in [r.judged for r in fitted.record.history()]


def test_the_scores_by_name(fitted: CycleGANDetector) -> None:
    x = blots(30, 4)
    panel = fitted.panel(x)
    assert list(panel) == ["cycle", "critic", "other", "identity"]
    torch.testing.assert_close(panel["identity"], (fitted.translate(x) - x).abs().flatten(1).mean(1))
    sum_of_two = fitted.units(torch.stack([panel["cycle"], panel["critic"]]))
    torch.testing.assert_close(fitted.score(x), sum_of_two)


def test_the_cycle_error_sees_no_more_than_eight_levels(fitted: CycleGANDetector) -> None:
    """A message in the least bits of the translation does not arrive: it is the same for all it could say."""
    x = blots(10, 5)
    translated = fitted.translate(x, "other")
    coarse = (translated * 7).round() / 7 + fitted.noise
    expected = (fitted.translate(coarse.clamp(0, 1)) - x).abs().flatten(1).mean(1)
    torch.testing.assert_close(fitted.panel(x, ("cycle",))["cycle"], expected)
    point = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(fitted.panel(point, ("cycle",))["cycle"].sum(), point)
    assert (gradient.flatten(1).abs().sum(1) > 0).all()


def test_divergence_is_that_of_jensen_and_shannon() -> None:
    from scipy.spatial.distance import jensenshannon

    random = torch.Generator().manual_seed(0)
    p, q = torch.randn(2, 6, 5, generator=random, dtype=torch.float64).unbind()
    expected = [jensenshannon(a, b) ** 2 for a, b in zip(p.softmax(1), q.softmax(1), strict=True)]
    np.testing.assert_allclose(divergence(p, q), expected, rtol=1e-10)
    far = torch.tensor([[80.0, 0.0]]), torch.tensor([[0.0, 80.0]])
    assert abs(divergence(*far).item() - math.log(2)) < 1e-6
    assert abs(divergence(far[0], far[0]).item()) < 1e-7


def test_labels_must_say_the_domain() -> None:
    x = blots(40, 6)
    for data, words in ((x, "no labels"), (TensorDataset(x, torch.arange(40) % 3), "labelled 0")):
        with pytest.raises(DataError, match=words):
            CycleGANDetector(steps=1).fit(data)
    with pytest.raises(UsageError, match="at least 6 x 6"):
        CycleGANDetector(steps=1).fit(TensorDataset(torch.rand(20, 5), torch.arange(20) % 2))
    for options, words in (
        ({"width": 0}, "above 0"),
        ({"temperature": 0.0}, "above 0"),
        ({"scores": "cyc"}, "cycle, "),
    ):
        with pytest.raises(UsageError, match=words):
            make("cycle-gan", options)


def test_the_pool_gives_back_what_it_was_given() -> None:
    game = CycleGame((1, 8, 8), 4, 1)
    with torch.random.fork_rng():
        torch.random.manual_seed(0)
        first = torch.rand(2, POOL, 1, 8, 8)
        for part in first.split(25, 1):
            assert torch.equal(game._from_pool(part), part)
        new = torch.rand(2, 25, 1, 8, 8)
        mixed = game._from_pool(new)
    for number in range(2):
        old = [bool((first[number] == x).flatten(1).all(1).any()) for x in mixed[number]]
        same = [torch.equal(x, y) for x, y in zip(mixed[number], new[number], strict=True)]
        assert [not o for o in old] == same
        assert 5 < sum(old) < 20
        kept = torch.cat([mixed[number], game.pool[number]])  # nothing is lost: what came and what was there
        everything = torch.cat([new[number], first[number]])
        assert sorted(kept.flatten(1).sum(1).tolist()) == sorted(everything.flatten(1).sum(1).tolist())


def test_a_killed_game_goes_on_with_its_pool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(two_players, "_CHECKPOINT_EVERY", 0.0)

    def played(rounds: int, checkpoint: Path | None) -> dict[str, Tensor]:
        torch.random.manual_seed(1)
        game = CycleGame((1, 9, 9), 4, 1)
        data = torch.stack([blots(40, 0), 1 - blots(40, 1)])
        recipe = GameRecipe(rounds=rounds, steps=3, batch_size=8)
        play(game, lambda shuffle: iter(data.split(8, 1)), recipe, device=torch.device("cpu"), checkpoint=checkpoint)
        return game.state_dict()

    with torch.random.fork_rng():
        played(2, tmp_path / "c.pt")
        resumed, whole = played(4, tmp_path / "c.pt"), played(4, None)
    assert all(torch.equal(resumed[name], value) for name, value in whole.items())


def test_batches_hold_as_many_of_each_domain() -> None:
    from robustgen.data.rows import TensorRows

    small, large = TensorRows(torch.zeros(5, 1)), TensorRows(torch.ones(23, 1))
    batches = list(both(small, large, 4, torch.Generator().manual_seed(0)))
    assert [tuple(batch.shape) for batch in batches] == [(2, 4, 1)] * 5
    assert all(batch[0].sum() == 0 and batch[1].sum() == 4 for batch in batches)


def test_two_sources_as_one() -> None:
    normal, other = load("digits"), load("digits", size=(10, 10))
    source = two_domains(normal, other)
    check_source(source)
    assert source.spec.shape == (1, 8, 8)
    assert source.spec.classes == ("digits", "digits")
    batch = source.read(source.rows("train"))
    assert batch.y is not None
    assert int(batch.y.sum()) == len(other.rows("train"))
    assert len(batch) == len(normal.rows("train")) + len(other.rows("train"))
    for split in ("calibration", "test"):
        np.testing.assert_array_equal(source.rows(split), normal.rows(split))
    assert source.label(int(source.rows("train")[-1])) == str(int(other.rows("train")[-1]))


def test_a_watched_classifier_is_stored_and_found_again(tmp_path: Path) -> None:
    source = load("digits")
    config = {"arch": "small-cnn", "shape": [1, 8, 8], "classes": list(source.spec.classes)}
    model = LoadedModel(build("small-cnn", (1, 8, 8), 10), "victim", "a" * 64, source.spec, config)
    options = {"steps": 2, "width": 4, "blocks": 1}
    detector = CalibratedDetector.fit("cycle-gan", two_domains(source, load("digits")), options=options, model=model)
    assert detector.features is None
    with staged(tmp_path / "d") as directory:
        detector.save(directory)
    again = CalibratedDetector.load(tmp_path / "d")
    x = source.read(source.rows("test")[:30]).x
    np.testing.assert_array_equal(again.judge(x).score, detector.judge(x).score)
    assert again.summary() == detector.summary()
    with pytest.raises(UsageError, match="leave out --layer"):
        CalibratedDetector.fit("cycle-gan", source, options=options, model=model, layer="0")


def test_a_second_domain_of_a_few_inputs_is_enough_to_begin_with() -> None:
    """None of them need be among those held out."""
    x = torch.cat([blots(200, 0), on_grey(blots(5, 1))])
    few = CycleGANDetector(width=4, blocks=1, steps=2).fit(TensorDataset(x, (torch.arange(205) >= 200).long()))
    assert torch.isfinite(few.score(x[:3])).all()
    with pytest.raises(DataError, match="[0-9]+ and 0 came to train on"):
        CycleGANDetector(width=4, blocks=1, steps=2).fit(TensorDataset(x[:200], torch.zeros(200).long()))
