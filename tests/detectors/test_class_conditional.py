"""Discriminators of pairs: what one has been taught about wrong labels, and by whom, is what it knows of them."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import TensorDataset

from robustgen.artifacts import staged
from robustgen.data.load import load
from robustgen.detectors.base import Detector
from robustgen.detectors.calibrated import CalibratedDetector
from robustgen.detectors.class_conditional import ClassConditionalDetector
from robustgen.detectors.conditional_gan import ConditionalGANDetector
from robustgen.detectors.gat import GATDetector
from robustgen.detectors.label_scores import READINGS, LabelScores, Pairs
from robustgen.errors import DataError, RobustgenError, UsageError
from robustgen.metrics import auroc
from robustgen.models.build import build
from robustgen.models.gan import Discriminator, Generator
from robustgen.models.load import LoadedModel
from robustgen.objectives import margin
from robustgen.testing import check_detector
from robustgen.training import two_players
from robustgen.training.labelled_games import MatchingGame, WorstCaseGame, towards, wrong_labels

BOTH = [ConditionalGANDetector, GATDetector]
STARTS = torch.tensor([[0.2, 0.2, 0.8, 0.5], [0.8, 0.3, 0.2, 0.5], [0.5, 0.8, 0.5, 0.2]])


def toy(n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Three classes, each around a line of its own."""
    y = torch.randint(3, (n,), generator=generator)
    along = 0.2 * torch.randn(n, 1, generator=generator) * torch.ones(4)
    return STARTS[y] + along + 0.02 * torch.randn(n, 4, generator=generator), y


def fit(kind: type[ClassConditionalDetector], **options: Any) -> ClassConditionalDetector:
    x, y = toy(1500, torch.Generator().manual_seed(0))
    return kind(**({"steps": 120, "width": 16} | options)).fit(TensorDataset(x, y))


@pytest.fixture(scope="module")
def gan() -> ClassConditionalDetector:
    return fit(ConditionalGANDetector, scores="logit+contrast+knn")


@pytest.fixture(scope="module")
def gat() -> ClassConditionalDetector:
    return fit(GATDetector, eps=0.12, rest=0.5, steps=240)


def told_apart(detector: Detector, generator: torch.Generator) -> float:
    """AUROC of wrong labels."""
    x, y = toy(300, generator)
    right, wrong = detector.score(x, y), detector.score(x, (y + 1) % 3)
    return auroc(right.double().numpy(), wrong.double().numpy()).value


def test_wrong_labels_are_told(
    gan: ClassConditionalDetector, gat: ClassConditionalDetector, generator: torch.Generator
) -> None:
    assert told_apart(gan, generator) > 0.98
    assert told_apart(gat, generator) > 0.98


def test_without_matching_nothing_is_learnt_of_other_labels(generator: torch.Generator) -> None:
    """Inputs of class 0 alone: what the discriminator knows of the others' labels gets a gradient only with it."""
    x, _ = toy(32, generator)
    batch = torch.cat([x, torch.zeros(32, 1)], 1)
    for matching, learnt in (("aware", True), ("none", False)):
        network = Discriminator((4,), width=4, classes=3, spectral=False)
        maker = Generator((4,), 3, width=4, classes=3, bounded=False)
        game = MatchingGame(network, maker, (4,), matching=matching)  # type: ignore[arg-type]
        game.critic_loss(batch, 0).backward()  # type: ignore[no-untyped-call]
        assert network.labels is not None
        slope = network.labels.weight.grad
        assert slope is not None
        assert slope[0].abs().sum() > 0
        assert bool((slope[1:].abs().sum(1) > 0).all()) is learnt


def test_wrong_labels_are_wrong_and_as_fitting_as_asked(generator: torch.Generator) -> None:
    numbers, y = torch.randn(300, 5, generator=generator), torch.randint(5, (300,), generator=generator)
    runner_up = numbers.scatter(1, y[:, None], -torch.inf).argmax(1)
    for hard, low, high in ((0.0, 0.15, 0.35), (0.5, 0.5, 0.75), (1.0, 1.0, 1.0)):
        wrong = wrong_labels(numbers, y, hard, generator)
        assert (wrong != y).all()
        assert low <= (wrong == runner_up).float().mean() <= high


def test_an_attacker_gets_less_past_the_one_that_trained_with_him(
    gan: ClassConditionalDetector, gat: ClassConditionalDetector, generator: torch.Generator
) -> None:
    x, y = toy(300, generator)
    target = (y + 1) % 3
    lost = []
    for detector in (gan, gat):
        inside = detector.standardised(x)
        threshold = margin(detector.discriminator.every(inside), y).quantile(0.95)
        attack = towards(1.2, float(inside.min()), float(inside.max()), 20)

        class Every(torch.nn.Module):
            def forward(self, z: Tensor, discriminator: Any = detector.discriminator) -> Tensor:
                found: Tensor = discriminator.every(z)
                return found

        pushed = attack(Every(), inside, target)
        lost.append(float((margin(detector.discriminator.every(pushed), target) <= threshold).double().mean()))
    assert lost[0] > 0.2
    assert lost[1] < 0.5 * lost[0]


def test_readings_are_what_they_say(gan: ClassConditionalDetector, generator: torch.Generator) -> None:
    x, y = toy(20, generator)
    network, seen = gan.discriminator, gan.standardised(x)
    numbers = torch.stack([network(seen, torch.full_like(y, label)) for label in range(3)], 1)
    own = numbers[torch.arange(20), y]
    best_other = torch.stack([numbers[row, [k for k in range(3) if k != y[row]]].max() for row in range(20)])
    features = network.features(seen)
    neighbours = gan.combination.readings["knn"]
    bank, labels = neighbours.get_buffer("bank"), neighbours.get_buffer("labels")
    distances = [(bank[labels == y[row]] - features[row]).norm(dim=1) for row in range(20)]
    knn = torch.stack([row.sort().values[:5].mean() for row in distances])
    apart = torch.stack([-own, best_other - own, knn])
    centre, scale = gan.combination.units.centre[:, None], gan.combination.units.scale[:, None]
    torch.testing.assert_close(gan.score(x, y), ((apart - centre) / scale).sum(0), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(gan.critic(x, y), own)
    panel = gan.panel(x, y)
    assert list(panel) == ["logit", "contrast", "knn"]
    torch.testing.assert_close(torch.stack(list(panel.values())), apart, atol=1e-4, rtol=1e-4)


def test_the_largest_of_readings_is_passed_only_by_what_passes_each(
    gan: ClassConditionalDetector, generator: torch.Generator
) -> None:
    x, y = toy(20, generator)
    both = LabelScores("logit|contrast")
    both.units.centre, both.units.scale = gan.combination.units.centre[:2], gan.combination.units.scale[:2]
    apart = torch.stack(list(gan.panel(x, y).values()))[:2]
    first, second = (apart - both.units.centre[:, None]) / both.units.scale[:, None]
    expected = torch.maximum(first, 0.5 * second)
    torch.testing.assert_close(both(Pairs(gan.discriminator, gan.standardised(x), y)), expected)


def test_other_scores_keep_the_contract() -> None:
    check_detector(lambda: ConditionalGANDetector(scores="contrast+knn", steps=60, width=8), (6,))


@pytest.mark.parametrize("kind", BOTH)
def test_scores_are_differentiable(kind: type[ClassConditionalDetector], generator: torch.Generator) -> None:
    detector = fit(kind, scores="+".join(READINGS), steps=5, width=4).double()
    x, y = toy(2, generator)
    point = x.double().requires_grad_()
    assert torch.autograd.gradcheck(lambda z: detector.score(z, y), (point,))


def test_new_inputs_belong_to_seed_and_class(gan: ClassConditionalDetector) -> None:
    drawn = gan.sample(6, seed=1)
    assert drawn.shape == (6, 4)
    assert torch.equal(drawn, gan.sample(6, seed=1, condition=torch.arange(6) % 3))
    assert not torch.equal(drawn, gan.sample(6, seed=2))
    other = gan.sample(6, seed=1, condition=(torch.arange(6) + 1) % 3)
    assert ((drawn - other).abs().amax(1) > 0).all()
    with pytest.raises(UsageError, match="at least 1"):
        gan.sample(0, seed=1)


def test_the_attacker_is_legal_and_gets_what_he_wants(
    gat: ClassConditionalDetector, generator: torch.Generator
) -> None:
    assert isinstance(gat, GATDetector)
    x, y = toy(100, generator)
    seen = gat.standardised(x)
    game = gat._game(float(seen.min()), float(seen.max()))
    target = (y + 1) % 3
    pushed = game.pushed(seen, target, 10**6)  # type: ignore[attr-defined]
    assert (gat.restored(pushed) - x).abs().max() <= gat.eps + 1e-6
    before, after = (margin(gat.discriminator.every(z), target) for z in (seen, pushed))
    assert (after < before).float().mean() > 0.98
    early = game.pushed(seen, target, 0)  # type: ignore[attr-defined]
    assert (gat.restored(early) - x).abs().max() < 0.1 * gat.eps


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 9, 7), (1, 6, 6)])
def test_images_of_any_sides_pass_the_pooled_discriminator(shape: tuple[int, ...], generator: torch.Generator) -> None:
    network = Discriminator(shape, width=4, classes=3, spectral=False, pooled=True)
    x = torch.rand(5, *shape, generator=generator)
    torch.testing.assert_close(network.every(x)[1:3], network.every(x[1:3]))
    assert network.features(x).shape == (5, 16)


def test_the_training_is_told(gan: ClassConditionalDetector) -> None:
    assert gan.record.verdict().startswith("round ")
    assert "AUROC" in gan.record.verdict()
    assert isinstance(gan.record.warnings(), list)
    with pytest.raises(RobustgenError, match="not fitted"):
        GATDetector().record.verdict()


def test_bad_labels_and_options_are_refused(gan: ClassConditionalDetector, generator: torch.Generator) -> None:
    x, y = toy(10, generator)
    for labels, says in ((None, "conditional-gan judges"), (y.float(), "whole numbers"), (y + 3, "labels are below 3")):
        with pytest.raises(UsageError, match=says):
            gan.score(x, labels)
    with pytest.raises(DataError, match="carry no labels"):
        GATDetector(steps=1).fit(x)
    for kind, options, says in (
        (ConditionalGANDetector, {"hard": 1.5}, "hard is a share"),
        (ConditionalGANDetector, {"classes": 1}, "at least 2 classes"),
        (ConditionalGANDetector, {"scores": "logits"}, "a score is made of"),
        (ConditionalGANDetector, {"scores": "logit+logit"}, "counts once"),
        (ConditionalGANDetector, {"preset": "slow"}, "preset"),
        (GATDetector, {"eps": 0.0}, "eps must be above 0"),
        (GATDetector, {"pushes": 0}, "pushes at least 1"),
        (GATDetector, {"steps": 0}, "steps must be at least 1"),
        (GATDetector, {"width": 0}, "width must be at least 1"),
    ):
        with pytest.raises(UsageError, match=says):
            kind(**options)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="negatives are made by"):
        GATDetector(negatives="rotate", steps=1).fit(TensorDataset(x, y))


@pytest.mark.parametrize("name", ["conditional-gan", "gat"])
def test_a_classifier_gives_the_labels(name: str, tmp_path: Path) -> None:
    source = load("digits")
    network = build("small-cnn", (1, 8, 8), 10)
    model = LoadedModel(network, "victim", "a" * 64, source.spec)
    judged = CalibratedDetector.fit(name, source, options={"steps": 4, "width": 4}, model=model)
    x = next(iter(source.batches("test", 30))).x
    with torch.no_grad():
        predicted = network(x).argmax(1)
        torch.testing.assert_close(judged.score(x), judged.detector.score(x, predicted))
        assert not torch.equal(judged.score(x), judged.detector.score(x, (predicted + 1) % 10))
    with staged(tmp_path / "saved", False, "key") as directory:
        judged.save(directory)
    again = CalibratedDetector.load(tmp_path / "saved", model)
    with torch.no_grad():
        assert torch.equal(again.score(x), judged.score(x))
    assert again.summary()["training"] == judged.summary()["training"]
    torch.testing.assert_close(judged.explain(x[:2]), judged.detector.explain(x[:2], predicted[:2]))
    with pytest.raises(UsageError, match="give the classifier with --model"):
        CalibratedDetector.fit(name, source)


def test_without_a_generator_there_is_nothing_to_sample() -> None:
    alone = fit(GATDetector, eps=0.5, steps=20)
    assert not alone.generates
    with pytest.raises(UsageError, match="rest=0.5"):
        alone.sample(3, 0)


@pytest.mark.parametrize("native", [False, True])
def test_images_are_trained_on_in_bfloat16_where_the_processor_has_it(
    monkeypatch: pytest.MonkeyPatch, native: bool
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: native)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    asked = []
    monkeypatch.setattr(two_players, "reduced", lambda _, precision: asked.append(precision) or nullcontext())
    x, y = torch.rand(60, 1, 8, 8), torch.arange(60) % 3
    GATDetector(steps=2, width=2).fit(TensorDataset(x, y))
    assert set(asked) == {"bfloat16" if native else "auto"}


@pytest.mark.parametrize("kind", BOTH)
def test_rounds_are_judged_on_every_class_though_they_come_in_order(
    kind: type[ClassConditionalDetector], monkeypatch: pytest.MonkeyPatch
) -> None:
    x, y = toy(9000, torch.Generator().manual_seed(0))
    order, judged = y.argsort(), list[Tensor]()
    own = kind._judge

    def watch(self: Any, x: Tensor, y: Tensor, game: Any) -> Any:
        judged.append(y)
        return own(self, x, y, game)

    monkeypatch.setattr(kind, "_judge", watch)
    kind(steps=12, width=4).fit(TensorDataset(x[order], y[order]))
    counts = torch.bincount(judged[0], minlength=3)
    assert counts.sum() == 200
    assert counts.min() > 40


def test_the_size_of_the_attack_is_in_input_units_though_columns_are_standardised() -> None:
    x, y = toy(1500, torch.Generator().manual_seed(0))
    scale = torch.tensor([1.0, 100.0, 0.01, 1.0])
    detector = GATDetector(eps=0.005, steps=12, width=4)
    pushed = list[tuple[Tensor, Tensor]]()
    own = WorstCaseGame.pushed

    def watch(self: WorstCaseGame, x: Tensor, *rest: Any) -> Tensor:
        found = own(self, x, *rest)
        pushed.append((x, found))
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(WorstCaseGame, "pushed", watch)
        detector.fit(TensorDataset(x * scale, y))
    before, after = pushed[-2]  # at full size, in training
    change = (detector.restored(after) - detector.restored(before)).abs().amax(0)
    torch.testing.assert_close(change, torch.full((4,), 0.005), rtol=0.02, atol=2e-4)


def test_without_fakes_nothing_is_said_of_them() -> None:
    x, y = torch.rand(80, 5, generator=torch.Generator().manual_seed(0)), torch.arange(80) % 2
    alone = GATDetector(steps=4).fit(TensorDataset(x, y))
    assert "variety" not in alone.record.verdict()
    assert set(alone.record.course()).isdisjoint({"variety", "modes", "told apart"})
    together = GATDetector(steps=4, rest=0.5, batch_size=8).fit(TensorDataset(x, y))  # two fakes a batch
    assert {"variety", "modes", "told apart"} <= set(together.record.course())


def test_neighbours_are_of_the_own_class_though_it_has_few(generator: torch.Generator) -> None:
    class Given(Pairs):
        def __init__(self, features: Tensor, y: Tensor) -> None:
            self.__dict__.update(features=features, y=y)

    bank, labels = torch.randn(12, 3, generator=generator), torch.tensor([0] * 10 + [1] * 2)
    neighbours = READINGS["knn"]()
    neighbours.prepare(lambda: iter([Given(bank, labels)]))
    x = torch.randn(4, 3, generator=generator)
    for label, own in ((0, bank[:10]), (1, bank[10:]), (2, bank)):  # of class 2 there is none: then of all
        expected = torch.cdist(x, own).sort(1).values[:, :5].mean(1)
        found = neighbours(Given(x, torch.full((4,), label)))
        if label < 2:
            torch.testing.assert_close(found, expected)
        else:
            assert torch.isfinite(found).all()
