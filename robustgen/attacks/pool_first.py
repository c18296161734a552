"""How stacks of layers run while they are attacked.

ReLU after max pooling instead of before: the same values and gradients, bit for bit, over a quarter of the values. The
largest of a window is rectified to the same as the largest of the rectified window, and a gradient reaches the same
place: none where no value of the window is positive.

In bfloat16 where a search asks for it (`lowered`), each stack by itself: what is computed from a network's answers,
such as distances and p-values, keeps its precision.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor, nn
from torch.func import functional_call

_FRESH = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)  # nobody else has its output
_POOLS = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)


_low = ContextVar("low", default=False)


@contextmanager
def lowered() -> Iterator[None]:
    """While it is entered, stacks that are `pooled_first` compute in bfloat16 and return their input's type."""
    token = _low.set(True)
    try:
        yield
    finally:
        _low.reset(token)


class _PoolFirst(nn.Sequential):
    """What a plain `nn.Sequential` is made for a while; its modules stay where they are."""

    def forward(self, input: Tensor) -> Tensor:
        device = input.device.type
        if not _low.get() or torch.is_autocast_enabled(device):  # a stack in a stack
            return self._run(input)
        with torch.autocast(device, torch.bfloat16):
            if input.dtype is torch.float64:  # which autocast leaves alone
                return self._in_single(input).to(input.dtype)
            return self._run(input).to(input.dtype)

    def _in_single(self, input: Tensor) -> Tensor:
        """What a stack of float64 makes of its input in float32."""
        state = itertools.chain(self.named_parameters(), self.named_buffers())
        single = {name: value.float() for name, value in state if value.dtype is torch.float64}
        found: Tensor = functional_call(self, single, (input.float(),))
        return found

    def _run(self, input: Tensor) -> Tensor:
        for module in _reordered(list(self)):
            input = module(input)
        return input


def _reordered(modules: list[nn.Module]) -> list[nn.Module]:
    """With each ReLU between a layer and a max pooling moved behind the pooling, unless a hook looks at one of them."""
    for place in range(len(modules) - 2):
        layer, relu, pool = modules[place : place + 3]
        fits = type(layer) in _FRESH and type(relu) is nn.ReLU and type(pool) in _POOLS and not pool.return_indices
        if fits and not any(_hooked(module) for module in (layer, relu, pool)):
            modules[place + 1 : place + 3] = pool, relu
    return modules


def _hooked(module: nn.Module) -> bool:
    hooks = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks)
    return any(hooks) or "forward" in vars(module)


@contextmanager
def pooled_first(modules: Iterable[nn.Module]) -> Iterator[None]:
    """While it is entered, plain `nn.Sequential`s among `modules` pool first. The order is chosen anew in each call."""
    changed = [module for module in modules if type(module) is nn.Sequential and "forward" not in vars(module)]
    for module in changed:
        module.__class__ = _PoolFirst
    try:
        yield
    finally:
        for module in changed:
            module.__class__ = nn.Sequential
