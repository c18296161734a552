"""Games: a maker that finds the data, a game that resumes bit for bit, a judge that chooses, clear errors."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import softplus
from torch.nn.utils.parametrizations import spectral_norm

import robustgen.training.two_players as two_players
from robustgen.errors import RobustgenError, UsageError
from robustgen.training.two_players import Game, GameRecipe, play

DATA = torch.randn(512, 1, generator=torch.Generator().manual_seed(0)) * 0.1 + 0.7
CPU = torch.device("cpu")


class Shift(Game):
    """The maker shifts noise; the critic tells it from DATA."""

    def __init__(self) -> None:
        torch.random.manual_seed(3)
        super().__init__(nn.Sequential(nn.Linear(1, 16), nn.Tanh(), nn.Linear(16, 1)), nn.Linear(1, 1))
        self.turns = list[str]()

    def made(self, x: Tensor) -> Tensor:
        made: Tensor = self.maker(0.1 * torch.randn_like(x))
        return made

    def critic_loss(self, batch: Any, step: int) -> Tensor:
        self.turns.append("critic")
        real, made = self.critic(batch), self.critic(self.made(batch))
        self.facts["gap"] = (real - made).mean().detach()
        return (softplus(-real) + softplus(made)).mean()

    def maker_loss(self, batch: Any, step: int) -> Tensor:
        self.turns.append("maker")
        return softplus(-self.critic(self.made(batch))).mean()


def epoch(shuffle: torch.Generator) -> Iterator[Tensor]:
    yield from DATA[torch.randperm(len(DATA), generator=shuffle)].split(64)


def test_the_maker_finds_the_data() -> None:
    game = Shift()
    recipe = GameRecipe(rounds=10, steps=50, critic_rate=5e-3, maker_rate=5e-3, average=0.9, momentum=0.0)
    history = play(game, epoch, recipe, device=CPU)
    made = game.made(DATA)
    assert abs(made.mean().item() - 0.7) < 0.1
    assert len(history) == 10
    assert set(history[0].facts) == {"critic loss", "maker loss", "gap"}
    assert not game.training


class Turning(Shift):
    """The critic's only layer, of spectral norm 1, learns to stretch along its second axis instead of its first."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.Linear(2, 2, bias=False)
        layer.weight.data = torch.tensor([[1.0, 0.0], [0.0, 0.2]])
        self.critic = spectral_norm(layer)

    def critic_loss(self, batch: Any, step: int) -> Tensor:
        weight: Tensor = self.critic.weight
        return weight[0, 0] ** 2 - weight[1, 1]

    def maker_loss(self, batch: Any, step: int) -> Tensor:
        made: Tensor = self.maker(batch).mean()
        return made


def test_averaged_players_keep_their_spectral_norms() -> None:
    recipe = GameRecipe(rounds=2, steps=20, critic_rate=1e-2, average=0.9)
    for judge in (None, lambda played: 0.5):
        game = Turning()
        play(game, epoch, recipe, device=CPU, judge=judge)
        assert torch.linalg.matrix_norm(game.critic.weight, 2).item() == pytest.approx(1, abs=0.01)


def test_turns_alternate_as_asked() -> None:
    game = Shift()
    play(game, epoch, GameRecipe(rounds=1, steps=2, critic_turns=3), device=CPU)
    assert game.turns == ["critic", "critic", "critic", "maker"] * 2


def test_each_turn_moves_one_player() -> None:
    class Still(Shift):
        def critic_loss(self, batch: Any, step: int) -> Tensor:
            return super().critic_loss(batch, step) + 0 * self.maker.weight.sum()  # type: ignore[operator]

    game = Still()
    before = [p.clone() for p in game.maker.parameters()]
    game.maker_loss = lambda batch, step: game.maker(batch).mean() * 0  # type: ignore[method-assign]
    play(game, epoch, GameRecipe(rounds=1, steps=3, average=0.0), device=CPU)
    assert all(torch.equal(a, b) for a, b in zip(before, game.maker.parameters(), strict=True))


def test_a_killed_game_ends_as_an_uninterrupted_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(two_players, "_CHECKPOINT_EVERY", 0.0)
    recipe = GameRecipe(rounds=4, steps=5, average=0.5, decay=0.5)

    def judge(game: Game) -> float:
        return -abs(float(game.maker(torch.zeros(1, 1))) - 0.7)

    whole = Shift()
    history = play(whole, epoch, recipe, device=CPU, judge=judge)

    class Killed(Exception):
        pass

    def kill(done: int, total: int, value: float) -> None:
        if done == 2:
            raise Killed

    path = tmp_path / "checkpoint.pt"
    with pytest.raises(Killed):
        play(Shift(), epoch, recipe, device=CPU, judge=judge, checkpoint=path, progress=kill)
    again = Shift()
    resumed = play(again, epoch, recipe, device=CPU, judge=judge, checkpoint=path)
    assert resumed == history
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), again.parameters(), strict=True))


def test_the_best_round_of_the_second_half_is_kept() -> None:
    seen = list[float]()

    def judge(game: Game) -> float:
        seen.append(float(game.maker(torch.zeros(1, 1))))
        return {1: 2.0, 3: 1.0}.get(len(seen), 0.0)

    game = Shift()
    play(game, epoch, GameRecipe(rounds=4, steps=5), device=CPU, judge=judge)
    with torch.no_grad():
        assert float(game.maker(torch.zeros(1, 1))) == seen[2]


def test_the_global_random_state_is_left_alone() -> None:
    game, before = Shift(), torch.get_rng_state()
    play(game, epoch, GameRecipe(rounds=1, steps=2), device=CPU)
    assert torch.equal(before, torch.get_rng_state())


def test_a_game_that_diverges_says_so() -> None:
    game = Shift()
    game.critic_loss = lambda batch, step: game.critic(batch).mean() * float("nan")  # type: ignore[method-assign]
    with pytest.raises(RobustgenError, match="diverged in round 1"):
        play(game, epoch, GameRecipe(rounds=1, steps=2), device=CPU)


@pytest.mark.parametrize(
    "options",
    [{"rounds": 0}, {"steps": 0}, {"critic_rate": 0.0}, {"average": 1.0}, {"momentum": -0.1}, {"decay": 2.0}],
)
def test_numbers_out_of_range_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        GameRecipe(**({"rounds": 1, "steps": 1} | options))


class Growing(Shift):
    """A game whose own buffer is empty when it begins."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.empty(0, 1))

    def critic_loss(self, batch: Any, step: int) -> Tensor:
        self.seen = torch.cat([self.seen, batch[:1]])
        return super().critic_loss(batch, step) + 0.1 * self.seen.mean()


def test_what_a_game_has_gathered_is_there_when_it_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(two_players, "_CHECKPOINT_EVERY", 0.0)
    path, half = tmp_path / "checkpoint.pt", GameRecipe(rounds=2, steps=5, average=0.5)
    whole, again = Growing(), Growing()
    play(whole, epoch, GameRecipe(rounds=4, steps=5, average=0.5), device=CPU)
    play(Growing(), epoch, half, device=CPU, checkpoint=path)
    play(again, epoch, GameRecipe(rounds=4, steps=5, average=0.5), device=CPU, checkpoint=path)
    assert torch.equal(whole.seen, again.seen)
    assert len(whole.seen) == 20
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), again.parameters(), strict=True))


def test_a_loss_is_averaged_over_the_turns_that_had_it() -> None:
    game = Shift()
    game.maker_loss = lambda batch, step: game.maker(batch).mean() * 0 + 3  # type: ignore[method-assign]
    (first,) = play(game, epoch, GameRecipe(rounds=1, steps=4, critic_turns=3, average=0.0), device=CPU)
    assert first.facts["maker loss"] == pytest.approx(3)
