"""One pass of a network where several parts of a system ask it about the same input."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple, final

import torch
from torch import Tensor, nn

_KEPT = 8


class _Pass(NamedTuple):
    """What went in, and the state in which it did; what came out, and what its layers made of it."""

    x: Tensor
    state: tuple[Any, ...]
    out: Tensor
    layers: dict[str, Tensor]


@contextmanager
def recalled(network: nn.Module, watched: set[str] | None = None) -> Iterator[None]:
    """While it is entered, `network`, given one of the last tensors again, returns what it made of it the first time,
    and `layers_of` what its layers made of it.

    For one evaluation of a system, whose members ask the same classifier: what is recalled has the graph of the first
    pass, so that no backward pass may free it in between. A tensor changed in place is another one, and
    so is one seen with or without gradients or in another precision. While a hook listens to a layer, while a program
    is being exported, and for networks that are scripted or whose `forward` is someone else's, nothing is recalled. The
    network must give the same twice. `watched`: names of layers that somebody will ask for, to which those asked for
    are added: who keeps it from one evaluation to the next has them kept from the first pass on.
    """
    if torch.compiler.is_compiling() or isinstance(network, torch.jit.ScriptModule) or "forward" in vars(network):
        yield
        return
    network.forward = _Memory(network, set() if watched is None else watched)
    try:
        yield
    finally:
        del network.forward


def layers_of(network: nn.Module, names: Sequence[str], x: Tensor) -> dict[str, Tensor]:
    """What the modules `names` of `network` make of `x` in one pass; those that do not run are left out."""
    memory = vars(network).get("forward")
    return memory.layers(x, names) if isinstance(memory, _Memory) else _watch(network, names, network, x)[1]


@final
class _Memory:
    """The last passes of a network, in place of its `forward`."""

    def __init__(self, network: nn.Module, watched: set[str]) -> None:
        self.network, self.watched = network, watched
        self.original, self.modules = network.forward, list(network.modules())
        self.passes: deque[_Pass] = deque(maxlen=_KEPT)

    def __call__(self, *given: Any, **named: Any) -> Any:
        x = given[0] if len(given) == 1 and not named else None
        if not isinstance(x, Tensor) or self._heard():
            return self.original(*given, **named)
        known = self._known(x)
        return (known or self._fresh(x)).out

    def layers(self, x: Tensor, names: Sequence[str]) -> dict[str, Tensor]:
        self.watched.update(names)
        if self._heard():
            return _watch(self.network, names, self.original, x)[1]
        known = self._known(x)
        if known is None or not known.layers.keys() >= set(names):
            known = self._fresh(x)
        return {name: known.layers[name] for name in names if name in known.layers}

    def _fresh(self, x: Tensor) -> _Pass:
        found = _Pass(x, _state(x), *_watch(self.network, sorted(self.watched), self.original, x))
        self.passes.append(found)
        return found

    def _known(self, x: Tensor) -> _Pass | None:
        state = _state(x)
        return next((known for known in reversed(self.passes) if known.x is x and known.state == state), None)

    def _heard(self) -> bool:
        """Whether somebody listens."""
        return any(module._forward_hooks or module._forward_pre_hooks for module in self.modules)


def _state(x: Tensor) -> tuple[Any, ...]:
    return x._version, x.requires_grad, torch.is_grad_enabled(), torch.is_autocast_enabled(x.device.type)


def _watch(network: nn.Module, names: Sequence[str], run: Any, x: Tensor) -> tuple[Any, dict[str, Tensor]]:
    """What `run` gives for `x`, and what the modules `names` of `network` give meanwhile."""
    caught = dict[str, Tensor]()
    with ExitStack() as hooks:
        for name in names:

            def catch(module: nn.Module, given: object, made: Any, name: str = name) -> None:
                if isinstance(made, Tensor):
                    caught[name] = made.to(x.dtype) if made.dtype is torch.bfloat16 else made  # of a lowered stack

            hooks.enter_context(network.get_submodule(name).register_forward_hook(catch))
        return run(x), caught
