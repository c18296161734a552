"""A layer of a classifier as ART's detectors ask for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from robustgen.attacks.passes import evaluated
from robustgen.detectors.layers import Layers
from robustgen.errors import MissingPackageError, UsageError

_AT_ONCE = 2**28  # numbers of a layer held at a time (1 GiB as float32)


@final
class ArtLayer:
    """One layer of `network` behind the two names that ART's detectors use of an estimator.

    ART's own estimator leaves a hook in the network for good and switches its mode. `layer`: a module's name, "first"
    or "last" = that activation; see `Layers`. Raises `UsageError` unless it is one.
    """

    def __init__(self, network: Callable[[Tensor], Tensor], layer: str, device: torch.device) -> None:
        if layer == "auto" or "," in layer:
            raise UsageError(f"ART looks at one layer, but {layer!r} came: name one module, first or last")
        self._layers, self._device = Layers(network, layer), device
        (self.name,) = self.layer_names = self._layers.names

    def __call__(self, x: Tensor) -> Tensor:
        """What the layer makes of `x` (n, *shape), with all its places, differentiable."""
        (made,) = self._layers.whole(x)
        return made

    def get_activations(
        self, x: npt.NDArray[Any], layer: str | int, batch_size: int, framework: bool = False
    ) -> npt.NDArray[Any]:
        """The same of arrays, `batch_size` inputs at a time."""
        parts = []
        with torch.no_grad(), evaluated(self._layers.network):
            for start in range(0, len(x), batch_size):
                made = self(torch.from_numpy(x[start : start + batch_size]).to(self._device))
                if made[:1].numel() * len(x) > _AT_ONCE:
                    raise UsageError(
                        f"layer {self.name!r} gives {made[:1].numel()} values an input, too many to hold of {len(x)}: "
                        "keep fewer inputs (most), or name another layer"
                    )
                parts.append(made.cpu().numpy())
        return np.concatenate(parts)


def art_detectors() -> Any:
    """ART's module of detectors. Raises `MissingPackageError` without ART."""
    try:
        import art.defences.detector.evasion as found
    except ModuleNotFoundError as error:
        raise MissingPackageError(
            f"this needs ART, and {error.name} is not installed: pip install adversarial-robustness-toolbox"
        ) from error
    return found
