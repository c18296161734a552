"""A classifier asked several times, each time with other units left out."""

from __future__ import annotations

from collections.abc import Callable
from typing import final

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from robustgen.errors import UsageError

_DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)


@final
class Thinned:
    """`passes` smaller networks out of `network`: in each, the units that its dropout layers leave out are drawn once,
    by `seed`, for all inputs, where dropout in training draws them for every input. So what they say of an input is the
    same in any batch and has gradients. All other layers are as they are.

    Raises `UsageError` for a network without dropout layers (`nn.Dropout` and its forms for channels).
    """

    def __init__(self, network: Callable[[Tensor], Tensor], passes: int, seed: int) -> None:
        modules = network.modules() if isinstance(network, nn.Module) else iter(())
        self._dropouts = [module for module in modules if isinstance(module, _DROPOUTS) and module.p > 0]
        if not self._dropouts:
            raise UsageError(
                "uncertainty by dropout needs a classifier with dropout layers (nn.Dropout), and this one has none: "
                "leave out passes, or give a classifier that was trained with dropout"
            )
        self.network, self.passes, self.seed = network, passes, seed

    def __call__(self, x: Float[Tensor, "n *shape"]) -> Float[Tensor, "passes n classes"]:
        """The logits of each."""
        return torch.stack([self._once(x, number) for number in range(self.passes)])

    def _once(self, x: Tensor, number: int) -> Tensor:
        # NumPy's numbers are constants of an exported program, where torch's would be drawn when it runs
        generator = np.random.default_rng([self.seed % 2**32, number])

        def thin(module: nn.Module, given: tuple[Tensor, ...], made: object) -> Tensor:
            units = given[0]
            rate = float(module.p)  # type: ignore[arg-type]
            each = units.shape[1:] if type(module) is nn.Dropout else (units.shape[1], *[1] * (units.ndim - 2))
            kept = torch.tensor(generator.random((1, *each)) >= rate)
            return units * kept.to(units) / (1 - rate) if rate < 1 else units * 0

        hooks = [module.register_forward_hook(thin) for module in self._dropouts]
        try:
            return self.network(x)
        finally:
            for hook in hooks:
                hook.remove()


def spread(logits: Float[Tensor, "passes n classes"]) -> Float[Tensor, " n"]:
    """How far apart probabilities lie: their variance over passes, summed over classes."""
    said = logits.softmax(2)
    return (said - said.mean(0)).square().mean(0).sum(1)
