"""How long to play, where the user does not say."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from robustgen.errors import UsageError
from robustgen.registry import suggestion
from robustgen.runtime import fitting_threads
from robustgen.training.plan import PLANS
from robustgen.training.two_players import Game, GameRecipe

_ROUNDS, _LEAST = 20, 25  # at most so many rounds, of at least so many steps


def game_recipe(
    preset: str,
    times: float,
    *,
    steps: int | None,
    batch_size: int,
    learning_rate: float,
    seed: int,
    rounds: int = _ROUNDS,
) -> GameRecipe:
    """What `preset` means for a game: `times` as many steps as for a network trained on one loss; `steps`, if given,
    replaces their number. They are cut into at most so many `rounds`, over the last half of which the rates fall to 0.

    Raises `UsageError` for a preset that does not exist, or for numbers out of range.
    """
    if preset not in PLANS:
        raise UsageError(suggestion(preset, PLANS, "preset"))
    if steps is not None and steps < 1:
        raise UsageError(f"steps must be at least 1, but {steps} came")
    total = steps or math.ceil(times * PLANS[preset].steps)
    rounds = max(1, min(rounds, total // _LEAST))
    return GameRecipe(
        rounds=rounds,
        steps=math.ceil(total / rounds),
        batch_size=batch_size,
        critic_rate=learning_rate,
        maker_rate=learning_rate,
        decay=0.5,
        seed=seed,
    )


@contextmanager
def playing(game: Game, device: torch.device, values: int) -> Iterator[None]:
    """Play on inputs of so many `values` with the threads and the order of memory that suit convolutions: a fifth less
    time for a step on the CPU.
    """
    for player in (game.critic, game.maker):
        player.to(memory_format=torch.channels_last)
    with fitting_threads(device, values):
        yield
    for player in (game.critic, game.maker):
        player.to(memory_format=torch.contiguous_format)
