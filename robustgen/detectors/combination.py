"""A score made of several parts, in one unit."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from robustgen.detectors.attribution import attribute
from robustgen.detectors.parts import PARTS, Part, View, Views
from robustgen.errors import UsageError


class Combination(nn.Module):
    """The sum of several parts, each measured in robust deviations from its median on held-out normal inputs.

    One part alone keeps its own unit. `names`: parts of `table` joined by "+", such as "ssim+knn". Raises `UsageError`
    for parts that do not exist or do not fit inputs of `shape`.
    """

    centre: Tensor
    scale: Tensor

    def __init__(self, names: str, shape: tuple[int, ...], table: Mapping[str, type[Part]] = PARTS) -> None:
        super().__init__()
        chosen = names.split("+")
        for name in chosen:
            if name not in table:
                raise UsageError(
                    f"a score is made of {', '.join(table)}, joined by +, but {name!r} came: for example "
                    f"{'+'.join(list(table)[:2])}"
                )
            if table[name].images and len(shape) != 3:
                raise UsageError(f"the score {name!r} needs images, but inputs have shape {shape}: use l2 or knn")
        if len(set(chosen)) < len(chosen):
            raise UsageError(f"each part of a score counts once, but {names!r} came")
        self.parts = nn.ModuleDict({name: table[name]() for name in chosen})
        self.register_buffer("centre", torch.zeros(len(chosen)))
        self.register_buffer("scale", torch.ones(len(chosen)))

    def prepare(self, training: Views, held_out: Views, seed: int) -> None:
        """Fit the parts to `training` views, and their units to `held_out` ones."""
        for part in self._all():
            part.prepare(training, seed)
        if len(self.parts) > 1:
            self.centre, self.scale = robust_units(torch.cat([self.apart(view) for view in held_out()], 1))

    def _all(self) -> list[Part]:
        return [part for part in self.parts.values() if isinstance(part, Part)]

    def apart(self, view: View) -> Tensor:
        """(parts, n) each part's own number."""
        return torch.stack([part(view) for part in self._all()])

    def forward(self, view: View) -> Tensor:
        apart = self.apart(view)
        if len(apart) == 1:
            return apart[0]
        deviations = (apart - self.centre.to(apart.dtype)[:, None]) / self.scale.to(apart.dtype)[:, None]
        return deviations.sum(0)

    def explain(self, view: View, look: Callable[[Tensor], View]) -> Tensor:
        """(n, *shape) what each value adds to the score: the parts' own maps, and for parts that depend on the code
        alone, what `attribute` makes of the way from the reconstruction to the input. `look` gives the views of points
        on this way, in which what is given back does not count.
        """
        maps = [part.map(view) for part in self._all()]
        units = self.scale.to(view.x.dtype)
        total = sum((found / unit for found, unit in zip(maps, units, strict=True) if found is not None), view.x * 0)
        rest = [(part, unit) for part, found, unit in zip(self._all(), maps, units, strict=True) if found is None]
        if not rest:
            return total

        def score(x: Tensor) -> Tensor:
            seen = look(x)
            return torch.stack([part(seen) / unit for part, unit in rest]).sum(0)

        return total + attribute(score, view.x, view.back)


def robust_units(scores: Tensor) -> tuple[Tensor, Tensor]:
    """The median and the robust deviation of each kind of score over inputs: (kinds, n) -> (kinds,) both."""
    centre = scores.median(1).values
    deviation = 1.4826 * (scores - centre[:, None]).abs().median(1).values
    # more than half of the inputs alike: then the spread of all, and where all are alike any unit does
    deviation = torch.where(deviation > 0, deviation, scores.std(1, unbiased=False))
    return centre, torch.where(deviation > 0, deviation, 1)
