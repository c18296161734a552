"""The one loop for training a network on one loss."""

from __future__ import annotations

import io
import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar, get_args, runtime_checkable

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from robustgen.artifacts import write_atomically
from robustgen.errors import RobustgenError, UsageError
from robustgen.registry import suggestion
from robustgen.runtime import accelerator, communication_done, has_bfloat16, random_state, seeded, set_random_state


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

Validate = Callable[[nn.Module], float]
"""The loss of the network, on its device and in evaluation mode, on inputs that it is not trained on."""

Precision = Literal["auto", "float32", "bfloat16"]

_CHECKPOINT_EVERY = 20.0  # seconds: a short run should not spend its time on saving


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How to train. AdamW (Loshchilov, Hutter 2019) under a one-cycle schedule (Smith, Topin 2019) that peaks at
    `learning_rate`.

    `average`: what a step keeps of an exponential moving average of the weights, which then is what training gives
    (Polyak, Juditsky 1992); 0 = the last weights. `patience`: stop after so many epochs without a better validation
    loss; None = never. `clip`: the largest length of the gradient; None = any. `precision`: "bfloat16" for the passes,
    weights stay float32; "auto" = bfloat16 on CUDA devices that have it, float32 elsewhere.
    """

    epochs: int
    batch_size: int = 128
    learning_rate: float = 2e-3
    weight_decay: float = 1e-4
    seed: int = 0
    average: float = 0.0
    patience: int | None = None
    clip: float | None = None
    precision: Precision = "auto"

    def __post_init__(self) -> None:
        if not 0 <= self.average < 1:
            raise UsageError(
                f"average is the share of the old mean that a step keeps, below 1, but {self.average:g} came"
            )
        if self.patience is not None and self.patience < 1:
            raise UsageError(f"patience is a number of epochs from 1 up, but {self.patience} came")
        if self.clip is not None and not self.clip > 0:
            raise UsageError(f"clip is a length above 0, but {self.clip:g} came")
        if self.precision not in get_args(Precision):
            raise UsageError(suggestion(self.precision, get_args(Precision), "precision"))
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
    validate: Validate | None = None,
    checkpoint: Path | None = None,
    progress: TrainingProgress | None = None,
) -> list[float]:
    """Train `network` in place on `n` inputs an epoch; returns each epoch's mean loss. The network ends on the CPU, in
    evaluation mode.

    `validate`: judges the network after each epoch; the weights of the best epoch are what training gives. It needs
    `recipe.patience` to stop early. `checkpoint`: a file in which the state is kept after an epoch; found there again,
    training goes on from it and ends with the very weights of an uninterrupted run. Several processes (`torchrun`)
    share the batches of each epoch. Raises `RobustgenError` when the loss stops being a number.
    """
    processes = accelerator()
    device = processes.device if processes.num_processes > 1 else device
    batches = max(1, math.ceil(n / recipe.batch_size) // processes.num_processes)
    network.to(device).train()
    if device.type == "cuda":  # where convolutions of 16 bits need it; on a CPU small ones are slower so
        network.to(memory_format=torch.channels_last)
    run = _Run(network, recipe, recipe.epochs * batches, validate)
    # alone, accelerate's wrappers would add a third to a small network's step
    together = processes.num_processes > 1
    prepared, stepper = processes.prepare(network, run.optimizer) if together else (network, run.optimizer)
    backward: Callable[[Tensor], None] = processes.backward if together else Tensor.backward
    saved = time.monotonic()
    done = communication_done() if together else nullcontext()
    with done, seeded(recipe.seed + processes.process_index), torch.enable_grad():
        if checkpoint is not None and checkpoint.is_file():
            run.load(checkpoint)
        while len(run.history) < recipe.epochs and not run.done:
            shuffle = torch.Generator().manual_seed(recipe.seed * 1_000_003 + len(run.history))
            total, seen = torch.zeros((), device=device), 0
            mine = islice(epoch(shuffle), processes.process_index, None, processes.num_processes)
            for step, batch in enumerate(islice(mine, batches), start=len(run.history) * batches):
                with reduced(device, recipe.precision):
                    losses = loss(prepared, batch.to(device), step)
                backward(losses.mean())
                if recipe.clip is not None:
                    nn.utils.clip_grad_norm_(network.parameters(), recipe.clip)
                stepper.step()
                run.stepped()
                stepper.zero_grad()
                total, seen = total + losses.detach().sum(), seen + len(batch)
            run.history.append(total.item() / max(1, seen))
            if not math.isfinite(run.history[-1]):
                raise RobustgenError(
                    f"training diverged in epoch {len(run.history)} (the loss is {run.history[-1]}): lower the "
                    "learning "
                    f"rate (it was {recipe.learning_rate:g})"
                )
            run.judged()
            if checkpoint is not None and processes.is_main_process and time.monotonic() - saved > _CHECKPOINT_EVERY:
                run.save(checkpoint)
                saved = time.monotonic()
            if progress is not None:
                progress(len(run.history), recipe.epochs, run.history[-1])
    run.finish()
    network.to(memory_format=torch.contiguous_format)
    network.cpu().eval()
    return run.history


def reduced(device: torch.device, precision: Precision) -> AbstractContextManager[Any]:
    """The context in which passes are made."""
    auto = device.type == "cuda" and has_bfloat16(device)
    if precision == "bfloat16" or (precision == "auto" and auto):
        return torch.autocast(device.type, torch.bfloat16)
    return nullcontext()


class _Run:
    """All that training keeps between epochs: what a checkpoint holds."""

    def __init__(self, network: nn.Module, recipe: Recipe, steps: int, validate: Validate | None) -> None:
        self.network, self.recipe, self.validate = network, recipe, validate
        fused = next(network.parameters()).device.type in ("cpu", "cuda")
        self.optimizer = torch.optim.AdamW(
            network.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay, fused=fused
        )
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(self.optimizer, recipe.learning_rate, total_steps=steps + 1)
        self.averaged: AveragedModel | None = None
        if recipe.average:
            self.averaged = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(recipe.average), use_buffers=True)
        self.history: list[float] = []
        self.validation: list[float] = []
        self.best: dict[str, Tensor] | None = None

    def stepped(self) -> None:
        self.schedule.step()
        if self.averaged is not None:
            self.averaged.update_parameters(self.network)

    def judged(self) -> None:
        """After an epoch: keep the weights if no earlier ones were better."""
        if self.validate is None:
            return
        judged = self._product()
        was = judged.training
        judged.eval()
        with torch.no_grad():
            self.validation.append(self.validate(judged))
        judged.train(was)
        if math.isfinite(self.validation[-1]) and self._best_epoch == len(self.validation) - 1:
            self.best = {name: value.clone() for name, value in judged.state_dict().items()}

    @property
    def done(self) -> bool:
        """Whether patience has run out."""
        waited = len(self.validation) - 1 - self._best_epoch
        return self.recipe.patience is not None and bool(self.validation) and waited >= self.recipe.patience

    @property
    def _best_epoch(self) -> int:
        values = [value if math.isfinite(value) else math.inf for value in self.validation]
        return values.index(min(values, default=0)) if values else 0

    def _product(self) -> nn.Module:
        return self.network if self.averaged is None else self.averaged.module

    def finish(self) -> None:
        """Give the network the weights that training is for."""
        state = self._product().state_dict() if self.best is None else self.best
        self.network.load_state_dict(state)

    def save(self, path: Path) -> None:
        state = {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "history": self.history,
            "validation": self.validation,
            "best": self.best,
            "averaged": None if self.averaged is None else self.averaged.state_dict(),
            "random": random_state(),
        }
        buffer = io.BytesIO()
        torch.save(state, buffer)  # straight to a file, a full disk would come as a RuntimeError of torch's own
        write_atomically(path, lambda temporary: temporary.write_bytes(buffer.getbuffer()), force=True)

    def load(self, path: Path) -> None:
        state = torch.load(path, map_location="cpu", weights_only=True)
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        if self.averaged is not None:
            self.averaged.load_state_dict(state["averaged"])
        self.history, self.validation, self.best = state["history"], state["validation"], state["best"]
        set_random_state(state["random"])
