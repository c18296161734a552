"""The game of a GAN: losses and penalties of known value, negatives that keep what they should, augmentation, words."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from robustgen.data.load import load
from robustgen.errors import UsageError
from robustgen.models.gan import Discriminator, Generator
from robustgen.training import monitor
from robustgen.training.game_plan import game_recipe
from robustgen.training.gan import LOSSES, AdversarialGame, augmentation, critic_terms, maker_term
from robustgen.training.negatives import IMAGES, ROWS, by_default, negatives
from robustgen.training.two_players import Round, play
from robustgen.training.variety import Modes, variety


class Plane(Discriminator):
    """A discriminator whose number is 3 times the sum of the values."""

    def __init__(self) -> None:
        super().__init__((4,), width=1)
        self.slope = nn.Parameter(torch.tensor(3.0))

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return self.slope * x.flatten(1).sum(1)


def game(**options: object) -> AdversarialGame:
    torch.random.manual_seed(0)
    critic = Discriminator((4,), width=4, twofold=options.get("negatives") is not None)
    made = AdversarialGame(critic, Generator((4,), 3, width=4, bounded=False), 3, **options)  # type: ignore[arg-type]
    return made


def test_losses_have_their_known_values() -> None:
    real, made = torch.tensor([0.5, 2.0]), torch.tensor([-2.0, 0.0])
    assert [part.tolist() for part in critic_terms("hinge", real, made)] == [[0.5, 0.0], [0.0, 1.0]]
    assert [part.tolist() for part in critic_terms("wasserstein", real, made)] == [[-0.5, -2.0], [-2.0, 0.0]]
    for_real, for_made = critic_terms("non-saturating", real, made)
    torch.testing.assert_close(for_real, -torch.log(torch.sigmoid(real)))
    torch.testing.assert_close(for_made, -torch.log(1 - torch.sigmoid(made)))
    assert maker_term("hinge", made).tolist() == [2.0, 0.0]
    torch.testing.assert_close(maker_term("non-saturating", made), -torch.log(torch.sigmoid(made)))


def test_gradient_penalties_of_a_plane() -> None:
    """The gradient of 3 * sum over 4 values has the squared length 36: R1 is 18, the other (6 - 1)^2."""
    x = torch.rand(5, 4)
    for loss, value in (("non-saturating", 18.0), ("wasserstein", 25.0)):
        played = AdversarialGame(Plane(), Generator((4,), 3, width=4), 3, loss=loss, penalty=2.0)  # type: ignore[arg-type]
        assert played._penalty(x, x).item() == pytest.approx(2 * value, rel=1e-5)


@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss_can_be_played(loss: str) -> None:
    played = game(
        loss=loss, penalty=1.0, negatives=negatives("permute+jitter", (4,)), history=0.5, fence=0.9, diversity=1.0
    )
    data = torch.randn(64, 4)
    recipe = game_recipe("fast", 1, steps=10, batch_size=16, learning_rate=1e-3, seed=0)
    history = play(played, lambda shuffle: iter(data.split(16)), recipe, device=torch.device("cpu"))
    assert {"real", "fake", "negative", "told apart", "variety"} <= set(history[-1].facts)
    assert len(played.earlier) == 64  # four batches of earlier fakes


def test_the_contest_weighs_the_game_and_its_penalty_not_the_corrupted_inputs() -> None:
    data, spoil = torch.randn(16, 4, generator=torch.Generator().manual_seed(1)), negatives("jitter", (4,))

    def paid(contest: float, penalty: float) -> float:
        played = game(negatives=spoil, contest=contest, loss="non-saturating", penalty=penalty).eval()
        torch.random.manual_seed(0)
        return played.critic_loss(data, 0).item()

    for penalty in (0.0, 100.0):
        once, twice, thrice = (paid(contest, penalty) for contest in (1.0, 2.0, 3.0))
        assert thrice - twice == pytest.approx(twice - once, rel=1e-4)
    assert paid(1.0, 100.0) - paid(1.0, 0.0) == pytest.approx(2 * (paid(0.5, 100.0) - paid(0.5, 0.0)), rel=1e-4)


def test_the_fence_is_where_the_loss_vanishes() -> None:
    played = game(fence=0.5)
    played.discriminator = played.critic = Plane()  # type: ignore[assignment]
    played._made = lambda n, like: torch.zeros(n, 4, requires_grad=True)  # type: ignore[method-assign]
    real = torch.ones(6, 4)
    # fakes have the number 0, real ones 12: the fence is at 6
    assert played.maker_loss(real, 0).item() == pytest.approx(6.0)


def test_diversity_costs_nothing_where_fakes_differ_as_much_as_real_inputs() -> None:
    played, data = game(diversity=100.0), torch.randn(8, 4)
    alone = game()
    for other in (played, alone):
        other._made = lambda n, like: data.clone()  # type: ignore[method-assign]
    assert played.maker_loss(data, 0).item() == pytest.approx(alone.maker_loss(data, 0).item())
    played._made = lambda n, like: data[:1].expand(8, 4)  # type: ignore[method-assign]
    assert played.maker_loss(data, 0).item() > 90


@pytest.mark.parametrize(("name", "shape"), [(n, (2, 9, 12)) for n in IMAGES] + [(n, (7,)) for n in ROWS])
def test_a_negative_is_no_copy_and_leaves_the_input_alone(name: str, shape: tuple[int, ...]) -> None:
    x = torch.rand(30, *shape, generator=torch.Generator().manual_seed(0))
    before = x.clone()
    corrupt = negatives(name, shape)
    assert corrupt is not None
    made = corrupt(x, torch.Generator().manual_seed(1))
    assert made.shape == x.shape
    assert torch.equal(x, before)
    assert (made != x).flatten(1).any(1).float().mean() > 0.9
    assert torch.equal(made, corrupt(x, torch.Generator().manual_seed(1)))


@pytest.mark.parametrize("name", ["rotate", "flip", "shift", "shuffle"])
def test_moving_pixels_keeps_their_values(name: str) -> None:
    x = torch.rand(20, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    made = IMAGES[name](x, torch.Generator().manual_seed(1))
    torch.testing.assert_close(made.flatten(2).sort().values, x.flatten(2).sort().values)


def test_a_permuted_table_keeps_its_columns() -> None:
    x = torch.rand(50, 5, generator=torch.Generator().manual_seed(0))
    made = ROWS["permute"](x, torch.Generator().manual_seed(1))
    for column in range(5):
        assert set(made[:, column].tolist()) <= set(x[:, column].tolist())


def test_what_is_pasted_comes_from_the_neighbour() -> None:
    x = torch.arange(6.0).reshape(6, 1, 1, 1).expand(6, 1, 10, 10).clone()
    made = IMAGES["paste"](x, torch.Generator().manual_seed(0))
    for row in range(6):
        assert set(made[row].unique().tolist()) == {float(row), float((row - 1) % 6)}
        share = (made[row] != row).float().mean().item()
        assert 0.04 <= share <= 0.36


def test_stretching_changes_one_side_of_what_is_shown() -> None:
    x = torch.full((40, 1, 40, 40), 0.25)
    x[:, :, 15:25, 15:25] = 1
    made = IMAGES["stretch"](x, torch.Generator().manual_seed(0))
    assert made[:, :, 0, 0].eq(0.25).all()  # beyond the image lies its ground
    shown = made[:, 0] > 0.6
    tall, wide = shown.any(2).sum(1), shown.any(1).sum(1)
    assert ((tall == 10) ^ (wide == 10)).all()
    other = torch.where(tall == 10, wide, tall)
    assert other.min() >= 4
    assert other.max() <= 21
    assert (((other >= 12) & (other <= 21)) | (other <= 9)).all()
    assert {int(v) for v in (other > 10).unique()} == {0, 1}
    assert {int(v) for v in (tall > wide).unique()} == {0, 1}


def test_warping_moves_what_is_shown_and_leaves_an_even_image() -> None:
    x = torch.rand(20, 2, 1, 1, generator=torch.Generator().manual_seed(0)).expand(20, 2, 16, 16).clone()
    torch.testing.assert_close(IMAGES["warp"](x, torch.Generator().manual_seed(1)), x)
    x[:, :, 4:12, 4:12] += 1
    made = IMAGES["warp"](x, torch.Generator().manual_seed(1))
    assert (made.amax((1, 2, 3)) <= x.amax((1, 2, 3)) + 1e-5).all()
    assert ((made - x).abs().amax((1, 2, 3)) > 0.1).float().mean() > 0.9


def test_thickening_takes_the_largest_or_the_smallest_value_nearby() -> None:
    x = torch.zeros(60, 1, 28, 28)
    x[:, :, 14, 14] = 1
    x[:, :, :8, :8] = 1
    made = IMAGES["thicken"](x, torch.Generator().manual_seed(0))
    dot, corner = made[:, 0, 10:, 10:].sum((1, 2)), made[:, 0, :12, :12].sum((1, 2))
    grown = dot == 25
    assert (dot[~grown] == 0).all()
    assert (corner[grown] == 100).all()
    assert (corner[~grown] == 36).all()
    assert 10 < grown.sum() < 50


def test_augmentation_is_differentiable_and_small() -> None:
    x = torch.rand(10, 1, 16, 16, generator=torch.Generator().manual_seed(0), requires_grad=True)
    changed = augmentation("brightness+translation+cutout", (1, 16, 16))
    assert changed is not None
    made = changed(x, torch.Generator().manual_seed(0))
    assert made.shape == x.shape
    made.sum().backward()
    assert x.grad is not None
    assert augmentation("none", (1, 16, 16)) is None
    moved = augmentation("translation", (1, 16, 16))
    assert moved is not None
    values = set(moved(x.detach(), torch.Generator().manual_seed(0)).flatten().tolist())
    assert values <= {0.0, *x.detach().flatten().tolist()}


def test_unknown_names_are_refused() -> None:
    with pytest.raises(UsageError, match="rotate, flip"):
        negatives("rotat", (1, 8, 8))
    with pytest.raises(UsageError, match="permute"):
        negatives("rotate", (8,))
    with pytest.raises(UsageError, match="for images"):
        augmentation("cutout", (8,))
    with pytest.raises(UsageError, match="augmentations are"):
        augmentation("sepia", (1, 8, 8))
    with pytest.raises(UsageError, match="preset"):
        game_recipe("slow", 1, steps=None, batch_size=1, learning_rate=1.0, seed=0)
    assert negatives("none", (8,)) is None
    assert by_default((1, 8, 8)) != by_default((8,))


def test_steps_replace_those_of_the_preset() -> None:
    own = game_recipe("default", 0.72, steps=None, batch_size=8, learning_rate=1e-3, seed=0, rounds=12)
    assert (own.rounds, own.steps) == (12, 60)
    fast = game_recipe("fast", 2, steps=None, batch_size=8, learning_rate=1e-3, seed=0)
    assert fast.rounds * fast.steps == 600
    few = game_recipe("default", 1, steps=3, batch_size=8, learning_rate=1e-3, seed=0)
    assert (few.rounds, few.steps) == (1, 3)
    more = game_recipe("default", 1, steps=1010, batch_size=8, learning_rate=1e-3, seed=0)
    assert more.rounds == 20
    assert more.rounds * more.steps >= 1010


def rounds(**facts: float) -> list[Round]:
    judged = facts.pop("judged", 0.9)
    return [Round(facts, judged)] * 4


def test_the_monitor_says_what_went_wrong() -> None:
    good = rounds(**{"told apart": 0.8, "variety": 0.9})
    assert monitor.warnings(good) == []
    assert not monitor.collapsed(good)
    cases = {
        "the generator has collapsed": {"told apart": 0.8, "variety": 0.1},
        "the discriminator has won": {"told apart": 0.999, "variety": 0.9},
        "the generator has won": {"told apart": 0.3, "variety": 0.9},
        "the generator has lost modes": {"told apart": 0.8, "variety": 0.9, "modes": 0.4},
        "the round that was kept does not tell": {"told apart": 0.8, "variety": 0.9, "judged": 0.55},
    }
    for words, facts in cases.items():
        (warning,) = monitor.warnings(rounds(**facts))
        assert words in warning
    assert monitor.collapsed(rounds(variety=0.1))
    assert monitor.collapsed(rounds(modes=0.4))
    blind_at_last = [Round({}, value) for value in (0.9, 0.9, 0.5, 0.5)]  # the first half cannot be kept
    assert len(monitor.warnings(blind_at_last)) == 1
    assert monitor.warnings([]) == []


def test_a_generator_of_a_few_images_has_collapsed() -> None:
    """However far from each other these few lie."""
    digits = load("digits")
    batch = digits.read(digits.rows("train")[:400])
    real, others, labels = batch.x[:200], batch.x[200:], batch.y
    assert labels is not None
    modes = Modes(real)
    for few in (1, 2, 10):
        made = real[:few].repeat(200 // few, 1, 1, 1)
        assert variety(made, real) == 0
        assert modes.reached(made) < 1
    assert modes.reached(real[:1].repeat(200, 1, 1, 1)) < 0.2
    assert 0.8 < variety(others, real) < 1.2
    assert 0.8 < modes.reached(others) < 1.2
    assert variety(others, real[:2].repeat(100, 1, 1, 1)) == 1  # most real ones have a twin: nothing can be said
    narrow = real[labels[:200] < 2].repeat(8, 1, 1, 1)[:200]
    assert modes.reached(narrow + 0.01 * torch.rand_like(narrow)) < 0.5


def test_the_verdict_names_the_round_that_was_kept() -> None:
    history = [Round({"told apart": 0.7}, value) for value in (0.99, 0.5, 0.8, 0.6)]
    said = monitor.verdict(history)  # the first half does not count
    assert said.startswith("round 3 of 4 kept, AUROC 0.800 on the anomalies it was judged by (last round 0.600)")
    assert "fakes told apart 70%" in said
    assert monitor.verdict([]) == "no round was played"
