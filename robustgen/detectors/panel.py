"""The scores of a variational autoencoder by name, and the sum of those chosen."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import final

import torch
from torch import Tensor, nn

from robustgen.detectors.inferred import Inferences, Inferred
from robustgen.detectors.parts import AbsoluteError, Dissimilarity, NearestCodes, SquaredError
from robustgen.detectors.units import Units
from robustgen.detectors.vae_parts import (
    ComplexityCorrected,
    Density,
    Divergence,
    Gap,
    ImportanceWeighted,
    LowerBound,
    OfReconstruction,
    Reading,
    ReconstructionError,
    Regret,
    Typicality,
)
from robustgen.errors import UsageError

READINGS: dict[str, Callable[[], Reading]] = {
    "elbo": LowerBound,
    "iwae": ImportanceWeighted,
    "reconstruction": ReconstructionError,
    "kl": Divergence,
    "regret": Regret,
    "complexity": ComplexityCorrected,
    "typicality": Typicality,
    "density": Density,
    "gap": Gap,
    "l1": lambda: OfReconstruction(AbsoluteError()),
    "l2": lambda: OfReconstruction(SquaredError()),
    "ssim": lambda: OfReconstruction(Dissimilarity()),
    "knn": lambda: OfReconstruction(NearestCodes()),
}


@final
class Panel(nn.Module):
    """Every reading that inputs of `shape` allow (costly ones only if they are chosen), and
    the sum of the chosen ones, each in robust deviations from its
    median on held-out normal inputs. One alone keeps its own unit.

    `names`: readings joined by "+". `labelled`: whether each input comes with a label. Raises `UsageError` for names
    that do not exist or do not fit such inputs.
    """

    def __init__(self, names: str, shape: tuple[int, ...], *, labelled: bool = False) -> None:
        super().__init__()
        every = {name: make() for name, make in READINGS.items()}
        self.units = Units(names, every)
        self.chosen = self.units.chosen
        for name in self.chosen:
            if every[name].images and len(shape) != 3:
                raise UsageError(f"the score {name!r} needs images, but inputs have shape {shape}: use density or elbo")
            if every[name].labels and not labelled:
                raise UsageError(f"the score {name!r} needs labels: use the conditional-vae")
        self.readings = nn.ModuleDict(
            {
                name: reading
                for name, reading in every.items()
                if (labelled or not reading.labels) and (len(shape) == 3 or not reading.images)
                if name in self.chosen or not reading.costly
            }
        )

    def prepare(self, training: Inferences, held_out: Inferences, seed: int) -> None:
        """Fit all readings to shuffled `training` inputs, and the units of the chosen ones to `held_out` ones."""
        for reading in self.readings.values():
            if isinstance(reading, Reading):
                reading.prepare(training, held_out, seed)
        self.units.prepare(torch.cat([self._apart(seen) for seen in held_out()], 1))

    def each(self, seen: Inferred, names: Iterable[str] | None = None) -> dict[str, Tensor]:
        """(n,) of every reading by itself, or of those named. Raises `UsageError` for one that is not there."""
        for name in names or ():
            if name not in self.readings:
                raise UsageError(
                    f"this detector cannot give the score {name!r}: fit it with scores={name}, alone or with +"
                )
        return {name: self.readings[name](seen) for name in names or self.readings}

    def _apart(self, seen: Inferred) -> Tensor:
        return torch.stack(list(self.each(seen, self.chosen).values()))

    def forward(self, seen: Inferred) -> Tensor:
        """(n,) the score."""
        found: Tensor = self.units(self._apart(seen))
        return found
