"""A score made of several parts, in one unit."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from robustgen.detectors.attribution import attribute
from robustgen.detectors.parts import PARTS, Part, View, Views
from robustgen.detectors.units import Units
from robustgen.errors import UsageError


class Combination(nn.Module):
    """The sum of several parts, each measured in robust deviations from its median on held-out normal inputs.

    One part alone keeps its own unit. `names`: parts of `table` joined by "+", such as "ssim+knn". Raises `UsageError`
    for parts that do not exist or do not fit inputs of `shape`.
    """

    def __init__(self, names: str, shape: tuple[int, ...], table: Mapping[str, type[Part]] = PARTS) -> None:
        super().__init__()
        self.units = Units(names, table)
        parts = {name: table[name]() for name in self.units.chosen}
        for name, part in parts.items():
            if part.images and len(shape) != 3:
                raise UsageError(f"the score {name!r} needs images, but inputs have shape {shape}: use l2 or knn")
        self.parts = nn.ModuleDict(parts)

    def prepare(self, training: Views, held_out: Views, seed: int) -> None:
        """Fit the parts to `training` views, and their units to `held_out` ones."""
        for part in self._all():
            part.prepare(training, seed)
        self.units.prepare(torch.cat([self.apart(view) for view in held_out()], 1))

    def _all(self) -> list[Part]:
        return [part for part in self.parts.values() if isinstance(part, Part)]

    def apart(self, view: View) -> Tensor:
        """(parts, n) each part's own number."""
        return torch.stack([part(view) for part in self._all()])

    def forward(self, view: View) -> Tensor:
        found: Tensor = self.units(self.apart(view))
        return found

    def explain(self, view: View, look: Callable[[Tensor], View]) -> Tensor:
        """(n, *shape) what each value adds to the score: the parts' own maps, and for parts that depend on the code
        alone, what `attribute` makes of the way from the reconstruction to the input. `look` gives the views of points
        on this way, in which what is given back does not count.
        """
        maps = [part.map(view) for part in self._all()]
        units = self.units.scale.to(view.x.dtype)
        total = sum((found / unit for found, unit in zip(maps, units, strict=True) if found is not None), view.x * 0)
        rest = [(part, unit) for part, found, unit in zip(self._all(), maps, units, strict=True) if found is None]
        if not rest:
            return total

        def score(x: Tensor) -> Tensor:
            seen = look(x)
            return torch.stack([part(seen) / unit for part, unit in rest]).sum(0)

        return total + attribute(score, view.x, view.back)
