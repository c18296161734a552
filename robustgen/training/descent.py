"""The one loop for training a network on one loss."""

from __future__ import annotations

import io
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor, nn

from robustgen.artifacts import write_atomically
from robustgen.errors import RobustgenError, UsageError
from robustgen.runtime import accelerator, seeded


@runtime_checkable
class Movable(Protocol):
    """A batch: a tensor, or something that moves to a device as one does."""

    def to(self, device: torch.device, /) -> Any: ...
    def __len__(self) -> int: ...


Item = TypeVar("Item", bound=Movable)
Epoch = Callable[[torch.Generator], Iterator[Item]]
"""Gives one shuffled pass through the data, in batches."""

StepLoss = Callable[[nn.Module, Any, int], Tensor]
"""(network, batch on the device, step number) -> (n,) losses."""

TrainingProgress = Callable[[int, int, float], None]
"""Called after each epoch with epochs done, epochs in all, and the epoch's mean loss."""

_CHECKPOINT_EVERY = 20.0  # seconds: a short run should not spend its time on saving


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How to train. AdamW (Loshchilov, Hutter 2019) under a one-cycle schedule (Smith, Topin 2019) that peaks at
    `learning_rate`.
    """

    epochs: int
    batch_size: int = 128
    learning_rate: float = 2e-3
    weight_decay: float = 1e-4
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.epochs, self.batch_size) < 1:
            raise UsageError(f"epochs and batch_size must be at least 1, but {self.epochs} and {self.batch_size} came")
        if not (math.isfinite(self.learning_rate) and self.learning_rate > 0):
            raise UsageError(f"the learning rate must be a number above 0, but {self.learning_rate:g} came")


def descend(
    network: nn.Module,
    loss: StepLoss,
    epoch: Epoch[Item],
    n: int,
    recipe: Recipe,
    *,
    device: torch.device,
    checkpoint: Path | None = None,
    progress: TrainingProgress | None = None,
) -> list[float]:
    """Train `network` in place on `n` inputs an epoch; returns each epoch's mean loss. The network ends on the CPU, in
    evaluation mode.

    `checkpoint`: a file in which the state is kept after an epoch; found there again, training goes on from it and ends
    with the very weights of an uninterrupted run. Several processes (`torchrun`) share the batches of each epoch.
    Raises
    `RobustgenError` when the loss stops being a number.
    """
    processes = accelerator()
    device = processes.device if processes.num_processes > 1 else device
    batches = max(1, math.ceil(n / recipe.batch_size) // processes.num_processes)
    network.to(device).train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, recipe.learning_rate, total_steps=recipe.epochs * batches + 1
    )
    prepared, stepper = processes.prepare(network, optimizer)
    history: list[float] = []
    saved = time.monotonic()
    with seeded(recipe.seed + processes.process_index), torch.enable_grad():
        if checkpoint is not None and checkpoint.is_file():
            history = _restore(checkpoint, network, optimizer, schedule)
        while len(history) < recipe.epochs:
            shuffle = torch.Generator().manual_seed(recipe.seed * 1_000_003 + len(history))
            total, seen = torch.zeros((), device=device), 0
            mine = islice(epoch(shuffle), processes.process_index, None, processes.num_processes)
            for step, batch in enumerate(islice(mine, batches), start=len(history) * batches):
                losses = loss(prepared, batch.to(device), step)
                processes.backward(losses.mean())
                stepper.step()
                schedule.step()
                stepper.zero_grad()
                total, seen = total + losses.detach().sum(), seen + len(batch)
            history.append(total.item() / max(1, seen))
            if not math.isfinite(history[-1]):
                raise RobustgenError(
                    f"training diverged in epoch {len(history)} (the loss is {history[-1]}): lower the learning rate "
                    f"(it was {recipe.learning_rate:g})"
                )
            if checkpoint is not None and processes.is_main_process and time.monotonic() - saved > _CHECKPOINT_EVERY:
                _save(checkpoint, network, optimizer, schedule, history)
                saved = time.monotonic()
            if progress is not None:
                progress(len(history), recipe.epochs, history[-1])
    network.cpu().eval()
    return history


def _save(
    path: Path, network: nn.Module, optimizer: torch.optim.Optimizer, schedule: Any, history: list[float]
) -> None:
    state = {
        "network": network.state_dict(),
        "optimizer": optimizer.state_dict(),
        "schedule": schedule.state_dict(),
        "history": history,
        "random": torch.get_rng_state(),
    }
    buffer = io.BytesIO()
    torch.save(state, buffer)  # straight to a file, a full disk would come as a RuntimeError of torch's own
    write_atomically(path, lambda temporary: temporary.write_bytes(buffer.getbuffer()), force=True)


def _restore(path: Path, network: nn.Module, optimizer: torch.optim.Optimizer, schedule: Any) -> list[float]:
    state = torch.load(path, map_location="cpu", weights_only=True)
    network.load_state_dict(state["network"])
    optimizer.load_state_dict(state["optimizer"])
    schedule.load_state_dict(state["schedule"])
    torch.set_rng_state(state["random"])
    history: list[float] = state["history"]
    return history
