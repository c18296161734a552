"""The contract of an attack: checked inputs, an untouched model, a result whose every row is legal."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import ClassVar, final

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from robustgen.errors import UsageError
from robustgen.objectives import Misclassify, Model, Objective
from robustgen.threat import ThreatModel


@dataclass(frozen=True)
class AttackResult:
    """What an attack found, row by row in the order of the inputs."""

    x_adv: Float[Tensor, "n *shape"]
    """Always legal; where the attack failed, its best attempt (never silently the clean input)."""
    success: Bool[Tensor, " n"]
    """The objective was achieved at `x_adv`, as seen by a forward pass at that very point."""
    steps: Int64[Tensor, " n"]
    """Gradient steps taken to the returned point, within its restart."""
    forward: Int64[Tensor, " n"]
    """Forward passes spent on the row; `backward` likewise."""
    backward: Int64[Tensor, " n"]
    zero_gradient: Bool[Tensor, " n"]
    """The first gradient of the row was exactly zero everywhere: the model gives the attack nothing to go by."""


@contextmanager
def evaluated(model: Model, channels_last: bool = False) -> Iterator[None]:
    """The model as an attack needs it - evaluation mode, no parameter gradients - then as it was.

    `channels_last`: with convolutions in that memory order, which makes them up to twice as fast. Sums are then taken
    in another order, so that values differ in the last bit, and signs of gradients that are almost zero with them.
    """
    if not isinstance(model, nn.Module):
        yield
        return
    modes = [(module, module.training) for module in model.modules()]
    parameters = [(p, p.requires_grad, p.data) for p in model.parameters()]
    try:
        with suppress(NotImplementedError):  # torch.export programs are fixed in the mode they were exported in
            model.eval()
        for parameter, _, values in parameters:
            parameter.requires_grad_(False)
            if channels_last and values.dim() == 4:
                # the parameter object stays, only its storage is swapped, and the original storage is put back below
                parameter.data = values.to(memory_format=torch.channels_last)
        yield
    finally:
        for module, training in modes:
            module.training = training
        for parameter, requires_grad, values in parameters:
            parameter.data = values
            parameter.requires_grad_(requires_grad)


Progress = Callable[[int], None]
"""Called with the number of inputs just settled."""


@dataclass(frozen=True, kw_only=True)
class Attack(ABC):
    """An attack is its configuration; calling it changes nothing but its result. Subclasses write `_run` alone.

    `threat`: what is allowed. `objective`: what is wanted; `y` in a call is then the true label, or the target label
    for a targeted objective. `seed`: of all random choices, which belong to samples, not to places in a batch.
    `batch_size`: how many rows go through the model at once, None = what suits the device; the result does not depend
    on it.
    """

    channels_last: ClassVar[bool] = True
    """Whether the attack takes many passes, so that the faster memory order pays."""

    threat: ThreatModel
    objective: Objective = field(default_factory=Misclassify)
    seed: int = 0
    batch_size: int | None = None

    def __post_init__(self) -> None:
        if self.batch_size is not None and self.batch_size < 1:
            raise UsageError(f"batch_size must be at least 1, but {self.batch_size} came")

    @final
    def rows_at_once(self, x: Float[Tensor, "n *shape"]) -> int:
        """`batch_size`, or what suits inputs like `x`: on a CPU what its cache holds, elsewhere what keeps it busy."""
        if self.batch_size is not None:
            return self.batch_size
        most, values = (256, torch.get_num_threads() << 16) if x.device.type == "cpu" else (1024, 1 << 25)
        return max(16, min(most, values // max(1, math.prod(x.shape[1:]))))

    @final
    def __call__(self, model: Model, x: Float[Tensor, "n *shape"], y: Int64[Tensor, " n"]) -> Float[Tensor, "n *shape"]:
        """The adversarial inputs alone."""
        return self.run(model, x, y, verify=False).x_adv

    @final
    def run(
        self,
        model: Model,
        x: Float[Tensor, "n *shape"],
        y: Int64[Tensor, " n"],
        progress: Progress | None = None,
        verify: bool = True,
    ) -> AttackResult:
        """Attack all rows of `x` (n, *shape) in [low, high] with labels `y` (n,) int64, on the device where `x` is.

        Without `verify` a method may spare the pass that only tells whether it succeeded: `success` then means nothing.
        Raises `UsageError` when `x` and `y` do not fit each other, or `x` is not floating-point, finite and inside the
        box.
        """
        check_inputs(self.threat, x, y)
        with evaluated(model, self.channels_last):
            result = self._run(model, x.detach(), y, progress or (lambda _: None), verify=verify)
        return replace(result, x_adv=result.x_adv.contiguous())

    @abstractmethod
    def _run(self, model: Model, x: Tensor, y: Tensor, progress: Progress, verify: bool) -> AttackResult:
        """Attack valid inputs. Without `verify` only `x_adv` will be used: a method may spare passes that tell no more
        than success.
        """


def check_inputs(threat: ThreatModel, x: Tensor, y: Tensor) -> None:
    """Raise `UsageError` unless `x` and `y` are what an attack works on."""
    if not x.is_floating_point():
        raise UsageError(
            f"an attack needs floating-point inputs in [{threat.low:g}, {threat.high:g}], but {x.dtype} came: divide "
            "uint8 images by 255"
        )
    if x.dim() < 2 or y.shape != x.shape[:1] or y.dtype != torch.int64:
        raise UsageError(
            f"an attack needs x of shape (n, ...) and int64 labels y of shape (n,), but x {tuple(x.shape)} and "
            f"y {tuple(y.shape)} {y.dtype} came"
        )
    if not len(x):
        return
    if not torch.isfinite(x).all():
        raise UsageError("the inputs hold NaN or infinite values: drop or fill those rows before an attack")
    lowest, highest = x.min().item(), x.max().item()
    if lowest < threat.low or highest > threat.high:
        raise UsageError(
            f"the inputs lie in [{lowest:g}, {highest:g}], outside the box [{threat.low:g}, {threat.high:g}]: scale "
            "them, or "
            f"let the model normalise inside, so that eps is in input units"
        )
