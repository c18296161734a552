"""The one loop for games: a critic that tells real from made inputs, a maker that learns to pass."""

from __future__ import annotations

import io
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from robustgen.artifacts import write_atomically
from robustgen.errors import RobustgenError, UsageError
from robustgen.runtime import accelerator, random_state, seeded, set_random_state
from robustgen.training.descent import Epoch, Item, Precision, TrainingProgress, reduced

_ITERATIONS = 20  # of the power method, that bring singular vectors to averaged weights
_CHECKPOINT_EVERY = 20.0  # seconds: a short run should not spend its time on saving


class Game(nn.Module, ABC):
    """Two players and what each of them minimises; either may consist of several networks.

    `facts`: numbers that the losses leave behind at every step (tensors without gradient), averaged over a round.
    """

    critic: nn.Module
    maker: nn.Module

    def __init__(self, critic: nn.Module, maker: nn.Module) -> None:
        super().__init__()
        self.critic, self.maker = critic, maker
        self.facts: dict[str, Tensor] = {}

    @abstractmethod
    def critic_loss(self, batch: Any, step: int) -> Tensor:
        """What the critic minimises on a batch; the maker is frozen meanwhile."""

    @abstractmethod
    def maker_loss(self, batch: Any, step: int) -> Tensor:
        """What the maker minimises on the same batch; the critic is frozen meanwhile."""


@dataclass(frozen=True, kw_only=True)
class GameRecipe:
    """How long and how fast to play: `rounds` of `steps` turns of each player, with Adam (Kingma, Ba 2015).

    `average`: what a step keeps of an exponential moving average of both players' weights, which then is what playing
    gives (Yazici et al. 2019); 0 = the last weights. `momentum`: Adam's beta1. `critic_turns`: of the critic for each
    turn of the maker. `decay`: the learning rates fall to 0 over the last so large a share of the turns. `rise`: above
    0 they rise over the first so large a share instead, and fall to 0 over all the rest as a cosine does (one cycle,
    Smith, Topin 2019). `clip`: the largest length of a player's gradient; `weight_decay`: decoupled (Loshchilov, Hutter
    2019). `precision`: as in `Recipe`.
    """

    rounds: int
    steps: int
    batch_size: int = 64
    critic_rate: float = 2e-4
    maker_rate: float = 2e-4
    momentum: float = 0.5
    critic_turns: int = 1
    average: float = 0.99
    decay: float = 0.0
    rise: float = 0.0
    clip: float | None = None
    weight_decay: float = 0.0
    seed: int = 0
    precision: Precision = "auto"

    def __post_init__(self) -> None:
        if min(self.rounds, self.steps, self.batch_size, self.critic_turns) < 1:
            raise UsageError(
                "rounds, steps, batch_size and critic_turns must be at least 1, but "
                f"{self.rounds}, {self.steps}, {self.batch_size} and {self.critic_turns} came"
            )
        for word, rate in (("critic_rate", self.critic_rate), ("maker_rate", self.maker_rate)):
            if not (math.isfinite(rate) and rate > 0):
                raise UsageError(f"{word} must be a number above 0, but {rate:g} came")
        for word, share in (("average", self.average), ("momentum", self.momentum)):
            if not 0 <= share < 1:
                raise UsageError(f"{word} must be from 0 to below 1, but {share:g} came")
        for word, share in (("decay", self.decay), ("rise", self.rise)):
            if not 0 <= share <= 1:
                raise UsageError(f"{word} is a share of the turns, from 0 to 1, but {share:g} came")
        if self.weight_decay < 0 or (self.clip is not None and self.clip <= 0):
            raise UsageError(
                f"weight_decay must be at least 0 and clip above 0, but {self.weight_decay:g} and {self.clip} came"
            )

    def rate(self, step: int) -> float:
        """What the learning rates are multiplied by at a turn, counted from 0."""
        done = step / (self.rounds * self.steps)
        if self.rise:
            if done < self.rise:
                return max(1e-3, done / self.rise)
            return 0.5 * (1 + math.cos(math.pi * (done - self.rise) / max(1e-9, 1 - self.rise)))
        return min(1.0, (1 - done) / self.decay) if self.decay else 1.0


Judge = Callable[[Game], float]
"""How good the players of the game are, in evaluation mode and on its device; higher is better."""


@dataclass(frozen=True)
class Round:
    """What one round showed: the means of the facts, and the judge's value (None without a judge)."""

    facts: dict[str, float]
    judged: float | None


def play(
    game: Game,
    epoch: Epoch[Item],
    recipe: GameRecipe,
    *,
    device: torch.device,
    judge: Judge | None = None,
    checkpoint: Path | None = None,
    progress: TrainingProgress | None = None,
) -> list[Round]:
    """Train both players of `game` in place, in turns; returns what each round showed. They end on the CPU, in
    evaluation mode.

    `epoch` gives one shuffled pass through the data; each round goes through a fresh one, or as many as it needs.
    `judge`: judges the averaged players after each round (what it leaves in the game's `facts` is kept with the
    round); those of the best round of the second half are what playing gives (the first half's makers are not done).
    Without it, those of the last. `checkpoint`: a file in which the state is kept after a round; found there again, the
    game goes on from it and ends with the very weights of an uninterrupted one. Several processes (`torchrun`) share
    batches.
    Raises `RobustgenError` when a loss stops being a number.
    """
    processes = accelerator()
    device = processes.device if processes.num_processes > 1 else device
    game.to(device).train()
    match = _Match(game, recipe)
    saved = time.monotonic()
    with seeded(recipe.seed + processes.process_index), torch.enable_grad():
        if checkpoint is not None and checkpoint.is_file():
            match.load(checkpoint)
        while len(match.history) < recipe.rounds:
            number = len(match.history)
            shuffle = torch.Generator().manual_seed(recipe.seed * 1_000_003 + number)
            turns = recipe.steps * recipe.critic_turns
            batches = islice(_endless(epoch, shuffle), processes.process_index, None, processes.num_processes)
            totals, counts = dict[str, Tensor](), dict[str, int]()
            for turn, batch in enumerate(islice(batches, turns), start=number * turns):
                moved, step = batch.to(device), turn // recipe.critic_turns
                match.turn(game.critic, game.critic_loss, moved, step, processes)
                if (turn + 1) % recipe.critic_turns == 0:
                    match.turn(game.maker, game.maker_loss, moved, step, processes)
                    match.stepped(step)
                for name, value in game.facts.items():
                    totals[name] = totals.get(name, torch.zeros((), device=device)) + value.detach()
                    counts[name] = counts.get(name, 0) + 1
                game.facts = {}
            facts = {name: float(total) / counts[name] for name, total in totals.items()}
            if not all(math.isfinite(value) for value in facts.values()):
                raise RobustgenError(
                    f"the game diverged in round {number + 1} ({', '.join(f'{k} {v:g}' for k, v in facts.items())}): "
                    f"lower the learning rates (they were {recipe.critic_rate:g} and {recipe.maker_rate:g})"
                )
            match.judged(facts, judge)
            if checkpoint is not None and processes.is_main_process and time.monotonic() - saved > _CHECKPOINT_EVERY:
                match.save(checkpoint)
                saved = time.monotonic()
            if progress is not None:
                progress(len(match.history), recipe.rounds, facts.get("critic loss", math.nan))
    match.finish()
    game.cpu().eval()
    return match.history


def _endless(epoch: Epoch[Item], shuffle: torch.Generator) -> Iterator[Item]:
    while True:
        yield from epoch(shuffle)


@final
class _Match:
    """All that playing keeps between rounds: what a checkpoint holds."""

    def __init__(self, game: Game, recipe: GameRecipe) -> None:
        self.game, self.recipe = game, recipe
        rates = {"critic": recipe.critic_rate, "maker": recipe.maker_rate}
        players = {"critic": game.critic, "maker": game.maker}
        self.optimizers = {
            name: torch.optim.AdamW(
                player.parameters(),
                lr=rates[name] * recipe.rate(0),
                betas=(recipe.momentum, 0.99),
                weight_decay=recipe.weight_decay,
                fused=next(player.parameters()).device.type in ("cpu", "cuda"),
            )
            for name, player in players.items()
        }
        self.rates = rates
        self.averaged: AveragedModel | None = None
        if recipe.average:
            players_alone = nn.ModuleDict(players)
            self.averaged = AveragedModel(
                players_alone, multi_avg_fn=get_ema_multi_avg_fn(recipe.average), use_buffers=True
            )
        self.history: list[Round] = []
        self.best: dict[str, Tensor] | None = None

    def turn(
        self,
        player: nn.Module,
        loss: Callable[[Any, int], Tensor],
        batch: Any,
        step: int,
        processes: Any,
    ) -> None:
        """One step of one player, the other frozen."""
        name = "critic" if player is self.game.critic else "maker"
        other = self.game.maker if name == "critic" else self.game.critic
        other.requires_grad_(False)
        player.requires_grad_(True)
        device = next(player.parameters()).device
        with reduced(device, self.recipe.precision):
            value = loss(batch, step)
        value.backward()
        if processes.num_processes > 1:
            for parameter in player.parameters():
                if parameter.grad is not None:
                    parameter.grad = processes.reduce(parameter.grad, "mean")
        self.game.facts[f"{name} loss"] = value.detach()
        if self.recipe.clip is not None:
            nn.utils.clip_grad_norm_(player.parameters(), self.recipe.clip)
        self.optimizers[name].step()
        self.optimizers[name].zero_grad()
        other.requires_grad_(True)

    def stepped(self, step: int) -> None:
        """After both have moved."""
        factor = self.recipe.rate(step + 1)
        for name, optimizer in self.optimizers.items():
            for group in optimizer.param_groups:
                group["lr"] = self.rates[name] * factor
        if self.averaged is not None:
            # the first steps are no part of the mean: they would be in it for long
            if step < 1 / (1 - self.recipe.average):
                self.averaged.n_averaged.zero_()
            self.averaged.update_parameters(self._players())

    def _players(self) -> nn.ModuleDict:
        return nn.ModuleDict({"critic": self.game.critic, "maker": self.game.maker})

    def judged(self, facts: dict[str, float], judge: Judge | None) -> None:
        """After a round: keep the players if none were better."""
        value: float | None = None
        if judge is not None:
            kept = {name: tensor.clone() for name, tensor in self._players().state_dict().items()}
            self._take_averaged()
            self.game.eval()
            with torch.no_grad():
                value = judge(self.game)
            facts.update({name: float(fact) for name, fact in self.game.facts.items()})
            self.game.facts = {}
            late = self.history[self.recipe.rounds // 2 :]
            best = max((r.judged for r in late if r.judged is not None), default=-math.inf)
            eligible = len(self.history) >= self.recipe.rounds // 2
            if eligible and (self.best is None or (math.isfinite(value) and value >= best)):
                self.best = {name: tensor.clone() for name, tensor in self._players().state_dict().items()}
            self._players().load_state_dict(kept)
            self.game.train()
        self.history.append(Round(facts, value))

    def _take_averaged(self) -> None:
        """Give the players their averaged weights, if these are kept."""
        if self.averaged is None:
            return
        players = self._players()
        players.load_state_dict(self.averaged.module.state_dict())
        # the averages of singular vectors are none: they are shorter, and a norm found with them would be too small
        players.train()
        with torch.no_grad():
            for module in players.modules():
                if is_parametrized(module, "weight"):
                    for _ in range(_ITERATIONS):
                        _ = module.weight  # a step of the power method, where the weight has a spectral norm

    def finish(self) -> None:
        """Give the players the weights that playing is for."""
        if self.best is None:
            self._take_averaged()
        else:
            self._players().load_state_dict(self.best)

    def save(self, path: Path) -> None:
        state = {
            "players": self._players().state_dict(),
            "optimizers": {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()},
            "averaged": None if self.averaged is None else self.averaged.state_dict(),
            "history": [{"facts": r.facts, "judged": r.judged} for r in self.history],
            "best": self.best,
            "own": {k: v for k, v in self.game.state_dict().items() if not k.startswith(("critic.", "maker."))},
            "random": random_state(),
        }
        buffer = io.BytesIO()
        torch.save(state, buffer)  # straight to a file, a full disk would come as a RuntimeError of torch's own
        write_atomically(path, lambda temporary: temporary.write_bytes(buffer.getbuffer()), force=True)

    def load(self, path: Path) -> None:
        state = torch.load(path, map_location="cpu", weights_only=True)
        self._players().load_state_dict(state["players"])
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state["optimizers"][name])
        if self.averaged is not None:
            self.averaged.load_state_dict(state["averaged"])
        self.history = [Round(entry["facts"], entry["judged"]) for entry in state["history"]]
        self.best = state["best"]
        for name, value in state["own"].items():  # buffers may have grown since the game began
            module, _, buffer = name.rpartition(".")
            owner = self.game.get_submodule(module)
            if buffer in owner._buffers:
                setattr(owner, buffer, torch.empty_like(value, device=next(self.game.parameters()).device))
        self.game.load_state_dict(state["own"], strict=False)
        set_random_state(state["random"])
