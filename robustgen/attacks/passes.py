"""Every pass of an attack through a model: the cheapest exact one, fitted to the memory there is, counted by row."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from typing import Literal, NamedTuple, final

import torch
from torch import Tensor, nn

from robustgen.attacks.input_conv import FastInputGradient
from robustgen.attacks.pool_first import lowered, pooled_first
from robustgen.objectives import Model, Objective
from robustgen.runtime import has_bfloat16

Precision = Literal["float32", "bfloat16", "mixed"]
"""What the search computes in. A verdict is always given in the model's own precision: with "bfloat16" once the search
is over, with "mixed", where gradients alone are in bfloat16, at every success on the way.
"""


class Seen(NamedTuple):
    """What one pass tells of m points: `value` and `achieved` (m,) of the objective, and the value's `gradient`."""

    value: Tensor
    achieved: Tensor
    gradient: Tensor


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
        with pooled_first(model.modules()):
            yield
    finally:
        for module, training in modes:
            module.training = training
        for parameter, requires_grad, values in parameters:
            parameter.data = values
            parameter.requires_grad_(requires_grad)


@final
class Passes:
    """The model and the objective as one run of an attack on n rows sees them.

    Methods take `row` (m,), the places among the n rows to charge, and points (m, *shape). `forward` and `backward`
    (n,) count the passes that each row has cost; `zero_gradient` (n,) marks rows whose first gradient was zero
    everywhere. `eot`: how many draws of a randomised model each pass averages (Athalye et al. 2018, "Obfuscated
    gradients", expectation over transformation); a point then achieves the objective when most draws do. `rows_at_once`
    is halved when the device runs out of memory, and the pass is repeated in two halves. `precision` "mixed" is float32
    on a device that has no bfloat16.
    """

    def __init__(
        self,
        model: Model,
        objective: Objective,
        n: int,
        device: torch.device,
        *,
        rows_at_once: int,
        channels_last: bool = True,
        eot: int = 1,
        precision: Precision = "float32",
        compiled: bool = False,
    ) -> None:
        self.objective, self.rows_at_once, self.eot = objective, rows_at_once, eot
        self._layout = torch.channels_last if channels_last else torch.contiguous_format
        self._precision: Precision = precision
        self._mixed = precision == "mixed" and has_bfloat16(device)
        self._eager = not compiled
        self._model = _padded(model) if compiled else model
        self.forward = torch.zeros(n, dtype=torch.int64, device=device)
        self.backward = torch.zeros_like(self.forward)
        self.zero_gradient = torch.zeros(n, dtype=torch.bool, device=device)

    def view(self, x: Tensor) -> Tensor:
        """The logits of one draw, differentiable, for what brings a loop of its own: not counted here."""
        return self._view(x)

    def part(self, row: Tensor, objective: Objective) -> Passes:
        """The same model for the rows `row` alone and another objective; `absorb` takes its counts back."""
        part = Passes.__new__(Passes)
        part.__dict__.update(self.__dict__)
        part.objective = objective
        part.forward, part.backward = torch.zeros_like(row), torch.zeros_like(row)
        part.zero_gradient = torch.zeros_like(row, dtype=torch.bool)
        return part

    def absorb(self, row: Tensor, part: Passes) -> None:
        """Add what `part` counted for the rows `row`."""
        fresh = self.backward[row] == 0
        self.zero_gradient[row] |= fresh & part.zero_gradient
        self.forward[row] += part.forward
        self.backward[row] += part.backward
        self.rows_at_once = min(self.rows_at_once, part.rows_at_once)

    def ascent(self, row: Tensor, point: Tensor, label: Tensor) -> Seen:
        """The objective at each point and its gradient: one forward and one backward pass a draw."""
        found = Seen(*self._fitted(self._ascent, point, label))
        self.charge(row, self.eot, self.eot, found.gradient)
        return self._confirmed(row, point, label, found) if self._mixed else found

    def _confirmed(self, row: Tensor, point: Tensor, label: Tensor, found: Seen) -> Seen:
        """`found` in bfloat16, with the successes that are some in the model's own precision."""
        won = found.achieved.nonzero()[:, 0]
        if not len(won):
            return found
        achieved = found.achieved.clone()
        achieved[won] = self.judge(row[won], point[won], label[won]).achieved
        return found._replace(achieved=achieved)

    def judge(self, row: Tensor, point: Tensor, label: Tensor) -> Seen:
        """The objective at each point, without its gradient (an empty tensor): one forward pass a draw."""
        found = Seen(*self._fitted(self._judge, point, label))
        self.forward[row] += self.eot
        return found

    def logits(self, row: Tensor, point: Tensor) -> Tensor:
        """(m, classes), the mean over the draws, without gradients."""
        (found,) = self._fitted(self._logits, point)
        self.forward[row] += self.eot
        return found

    def jacobian(self, row: Tensor, point: Tensor, classes: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
        """(logits (m, classes), gradients (m, k, *shape) of the logits that `classes` (logits -> (m, k)) chooses).

        One forward and k backward passes a draw.
        """
        logits, gradients = self._fitted(lambda part: self._jacobian(part, classes), point)
        self.charge(row, self.eot, self.eot * gradients.shape[1], gradients)
        return logits, gradients

    def charge(self, row: Tensor, forward: int, backward: int, gradient: Tensor) -> None:
        """Count passes, and look whether a row's first `gradient` is zero everywhere."""
        fresh = self.backward[row] == 0
        if fresh.any():
            self.zero_gradient[row[fresh]] = (gradient[fresh] == 0).flatten(1).all(1)
        self.forward[row] += forward
        self.backward[row] += backward

    def _fitted(self, function: Callable[..., tuple[Tensor, ...]], *inputs: Tensor) -> tuple[Tensor, ...]:
        """`function(*inputs)` in batches that fit into memory."""
        try:
            return function(*inputs)
        except RuntimeError as error:
            if len(inputs[0]) < 2 or not _out_of_memory(error):
                raise
        # out here nothing holds on to the failed pass any more, so that its memory is free again
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        half = (len(inputs[0]) + 1) // 2
        self.rows_at_once = min(self.rows_at_once, half)
        halves = [
            self._fitted(function, *parts) for parts in zip(*(value.split(half) for value in inputs), strict=True)
        ]
        return tuple(torch.cat(parts) for parts in zip(*halves, strict=True))

    def _view(self, x: Tensor) -> Tensor:
        """The model as the search sees it."""
        context: AbstractContextManager[object] = nullcontext()
        if self._precision == "bfloat16":
            context = torch.autocast(x.device.type, torch.bfloat16)
        with context:
            logits = self._model(x)
        return logits.to(torch.promote_types(logits.dtype, torch.float32))

    def _quickly(self, point: Tensor) -> AbstractContextManager[object]:
        fits = point.dim() == 4 and point.device.type == "cpu" and self._layout is torch.channels_last
        full = self._precision != "bfloat16" and not self._mixed
        return FastInputGradient() if fits and self._eager and full else nullcontext()

    def _in_order(self, point: Tensor) -> Tensor:
        point = point.detach()
        return point.contiguous(memory_format=self._layout) if point.dim() == 4 else point.contiguous()

    def _ascent(self, point: Tensor, label: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        point = self._in_order(point).requires_grad_()
        draws = []
        for _ in range(self.eot):
            with torch.enable_grad(), self._quickly(point), lowered() if self._mixed else nullcontext():
                value, achieved = self.objective(self._view, point, label)
            draws.append((value.detach(), achieved, _gradient(value, point)))
        point.requires_grad_(False)
        return _average(draws)

    def _judge(self, point: Tensor, label: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        point = self._in_order(point)
        none = point.new_zeros(len(point), 0)
        with torch.no_grad():
            return _average([(*self.objective(self._view, point, label), none) for _ in range(self.eot)])

    def _logits(self, point: Tensor) -> tuple[Tensor]:
        point = self._in_order(point)
        with torch.no_grad():
            draws = [self._view(point) for _ in range(self.eot)]
        return (draws[0] if self.eot == 1 else torch.stack(draws).mean(0),)

    def _jacobian(self, point: Tensor, classes: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
        point = self._in_order(point).requires_grad_()
        with torch.enable_grad(), self._quickly(point):
            draws = [self._view(point) for _ in range(self.eot)]
        with torch.enable_grad():
            logits = draws[0] if self.eot == 1 else torch.stack(draws).mean(0)
            chosen = logits.gather(1, classes(logits.detach()))
            columns = chosen.unbind(1)
            gradients = [
                _gradient(column, point, keep=number + 1 < len(columns)) for number, column in enumerate(columns)
            ]
        return logits.detach(), torch.stack(gradients, 1)


def _average(draws: list[tuple[Tensor, Tensor, Tensor]]) -> tuple[Tensor, Tensor, Tensor]:
    if len(draws) == 1:
        return draws[0]
    values, achieved, gradients = (torch.stack(parts) for parts in zip(*draws, strict=True))
    return values.mean(0), achieved.double().mean(0) > 0.5, gradients.mean(0)


def _gradient(value: Tensor, point: Tensor, keep: bool = False) -> Tensor:
    """Of each row's value with respect to its point; zero where the model gives none (a detached step, a NaN)."""
    if not value.requires_grad:
        return torch.zeros_like(point)
    found = torch.autograd.grad(value, point, torch.ones_like(value), allow_unused=True, retain_graph=keep)[0]
    if found is None:
        return torch.zeros_like(point)
    return found if torch.isfinite(found.sum()) else torch.nan_to_num(found, nan=0.0, posinf=0.0, neginf=0.0)


def _out_of_memory(error: RuntimeError) -> bool:
    """CUDA and MPS have a class for it, the CPU's allocator only a sentence."""
    text = str(error)
    return isinstance(error, torch.OutOfMemoryError) or "out of memory" in text or "can't allocate memory" in text


def _padded(model: Model) -> Model:
    """`model` compiled, and shown only batches whose size is a power of two, so that few sizes are ever compiled."""
    run = torch.compile(model, dynamic=False)

    def padded(x: Tensor) -> Tensor:
        missing = (1 << max(0, len(x) - 1).bit_length()) - len(x)
        full = torch.cat([x, x[-1:].expand(missing, *x.shape[1:])]) if missing else x
        with warnings.catch_warnings():  # the compiler looks at the .grad of inputs that have none
            warnings.filterwarnings("ignore", "The .grad attribute", UserWarning)
            logits: Tensor = run(full)
        return logits[: len(x)]

    return padded
