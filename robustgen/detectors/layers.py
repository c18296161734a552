"""What several layers of a classifier make of an input, in one pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from robustgen.data.rows import Rows
from robustgen.detectors.neighbours import kept_rows
from robustgen.errors import UsageError
from robustgen.recall import layers_of
from robustgen.registry import suggestion

_MOST = 6  # layers taken where none is named
_ACTIVATIONS = (
    nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Tanh, nn.Sigmoid, nn.Softplus, nn.Hardswish,
    nn.Mish,
)  # fmt: skip


@final
class Layers:
    """The outputs of modules of `network`, each (n, d): those of convolutions (n, d, height, width) and of tokens
    (n, tokens, d) are averaged over places.

    `names`: modules' names joined by ","; "auto" = all activations (the linear layers and convolutions of a network
    whose activations are no modules), at most six of them, evenly spaced and the last among them; "last" and "first" =
    the last and the first of all. It is no module: the network is no part of any state. Raises `UsageError` for layers
    that are not there or are not used.
    """

    def __init__(self, network: Callable[[Tensor], Tensor], names: str = "auto") -> None:
        if not isinstance(network, nn.Module):
            raise UsageError(f"layers are those of a torch.nn.Module, but the classifier is a {type(network).__name__}")
        self.network = network
        known = {name: module for name, module in network.named_modules() if name}
        if names in ("auto", "last", "first"):
            found = [name for name, module in known.items() if isinstance(module, _ACTIVATIONS)]
            found = found or [name for name, module in known.items() if isinstance(module, nn.Linear | nn.Conv2d)][:-1]
            if not found:
                raise UsageError(f"the classifier has no usual layers: name some of {', '.join(list(known)[:12])}")
            count = min(_MOST, len(found))
            places = [round((i + 1) * len(found) / count) - 1 for i in range(count)]
            one = found[-1:] if names == "last" else found[:1]
            self.names = [found[place] for place in places] if names == "auto" else one
        else:
            self.names = names.split(",")
        for name in self.names:
            if name not in known:
                raise UsageError(suggestion(name, known, "layer of the classifier"))

    def __call__(self, x: Float[Tensor, "n *shape"]) -> list[Float[Tensor, "n d"]]:
        return [_flat(made) for made in self.whole(x)]

    def whole(self, x: Float[Tensor, "n *shape"]) -> list[Float[Tensor, "n ..."]]:
        """The same, with all their places."""
        found = layers_of(self.network, self.names, x)
        for name in self.names:
            if name not in found:
                raise UsageError(f"layer {name!r} gives no tensor when the classifier runs: name another")
        return [found[name] for name in self.names]


def _flat(made: Tensor) -> Tensor:
    if made.ndim == 3:
        return made.mean(1)
    return made.flatten(2).mean(2) if made.ndim > 3 else made


def banks(
    rows: Rows, layers: Layers, most: int, seed: int, device: torch.device
) -> tuple[list[Float[Tensor, "m d"]], Tensor]:
    """Per layer what it makes of at most `most` labelled rows, drawn by `seed` where there are more; and the labels."""
    from robustgen.data.labelled import LabelledRows, unpacked

    x, y = unpacked(kept_rows(LabelledRows(rows), most, seed), tuple(rows.shape))
    with torch.no_grad():
        parts = [layers(part.to(device)) for part in x.split(500)]
    return [torch.cat(list(layer)) for layer in zip(*parts, strict=True)], y.to(device)
