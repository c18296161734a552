"""A detector that looks at inputs through a classifier's eyes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from robustgen.data.rows import Rows
from robustgen.errors import UsageError
from robustgen.registry import suggestion


@final
class Features(nn.Module):
    """What enters one layer of `network`: (n, *shape) -> (n, d). `layer`: a module's name, or None for the last linear
    layer.

    For most classifiers that is the penultimate representation. Raises `UsageError` if there is no such layer.
    """

    def __init__(self, network: nn.Module, layer: str | None = None) -> None:
        super().__init__()
        names = dict(network.named_modules())
        if layer is None:
            linear = [name for name, module in names.items() if isinstance(module, nn.Linear)]
            if not linear:
                raise UsageError(
                    "the model has no linear layer to take features from: name one with --layer, of "
                    f"{', '.join(list(names)[1:12])}"
                )
            layer = linear[-1]
        if layer not in names or not layer:
            raise UsageError(suggestion(layer, [name for name in names if name], "layer"))
        self.network, self.layer = network, layer

    def forward(self, x: Float[Tensor, "n *shape"]) -> Float[Tensor, "n d"]:
        caught: list[Tensor] = []
        hook = self.network.get_submodule(self.layer).register_forward_pre_hook(
            lambda _, inputs: caught.append(inputs[0])
        )
        try:
            self.network(x)
        finally:
            hook.remove()
        if not caught:
            raise UsageError(f"layer {self.layer!r} is not used when the model runs: name another with --layer")
        return caught[-1].flatten(1)


@final
class FeatureRows(Rows):
    """Rows seen through `features`, a classifier's layer or a detector's code, computed batch by batch on `device`."""

    def __init__(self, rows: Rows, features: Callable[[Tensor], Tensor], device: torch.device) -> None:
        with torch.no_grad():
            example = features(torch.zeros(1, *rows.shape, device=device))
        super().__init__(tuple(example.shape[1:]), None)
        self.rows, self.features, self.device = rows, features, device

    def _count(self) -> int:
        return len(self.rows)

    def _batches(self, batch_size: int, generator: torch.Generator | None) -> Iterator[Tensor]:
        for batch in self.rows.batches(batch_size, generator):
            with torch.no_grad():
                yield self.features(batch.to(self.device))
