"""What detectors share that compare what a classifier makes of an input inside with a fixed bank of training inputs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import final

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from robustgen.data.labelled import LabelledRows, unpacked
from robustgen.data.rows import Rows
from robustgen.detectors.labels import labels_for
from robustgen.detectors.neighbours import kept_rows
from robustgen.detectors.units import robust_units
from robustgen.detectors.watching import LayeredDetector
from robustgen.errors import DataError, UsageError
from robustgen.training.descent import TrainingProgress

_HELD = 1000  # training inputs at most, of which units and widths are taken


class BankDetector(LayeredDetector, ABC):
    """Readings of an input from the training inputs around it in layers of the classifier, each in robust deviations
    from its median, summed; one alone keeps its own unit.

    `layers`: see `Layers`. `most`: training inputs in the bank, drawn by `seed`. Medians and deviations are taken on
    other training inputs: a tenth more, at most 1,000, or on the bank where that would be fewer than 8. Raises
    `DataError` if a conditional detector has fewer than 2 inputs of a class in its bank.
    """

    labels: Tensor
    counts: Tensor
    centre: Tensor
    deviation: Tensor

    def __init__(self, layers: str, most: int, seed: int) -> None:
        super().__init__()
        if most < 4:
            raise UsageError(f"a bank has at least 4 training inputs, but most={most} came")
        self.layers, self.most, self.seed = layers, most, seed

    @property
    @abstractmethod
    def _name(self) -> str:
        """In the registry."""

    @abstractmethod
    def _widths(self, held: Float[Tensor, "n d"], label: Int64[Tensor, " n"], number: int) -> Tensor:
        """() what distances of layer `number` are compared with, from features that are not in its bank."""

    @abstractmethod
    def _readings(self, h: Float[Tensor, "n d"], label: Int64[Tensor, " n"], number: int) -> list[Float[Tensor, " n"]]:
        """What counts of features `h` of layer `number`; labels are 0 where the detector is not conditional."""

    def _beside(self, x: Float[Tensor, "n *shape"]) -> list[Float[Tensor, " n"]]:
        """Readings besides those of layers."""
        return []

    @final
    def _build(self, shape: tuple[int, ...]) -> None:
        device = self._device
        for number in range(len(self._layers.names)):
            self.register_buffer(f"bank_{number}", torch.empty(0, 0, device=device))
            self.register_buffer(f"width_{number}", torch.ones((), device=device))
        self.register_buffer("labels", torch.empty(0, dtype=torch.int64, device=device))
        self.register_buffer("counts", torch.empty(0, dtype=torch.int64, device=device))
        self.register_buffer("centre", torch.empty(0, device=device))
        self.register_buffer("deviation", torch.empty(0, device=device))

    @final
    def _fit(self, rows: Rows, progress: TrainingProgress | None) -> None:
        with torch.no_grad():
            classes = self.logits(next(rows.batches(8)).to(self._device)).shape[1]
        n = min(len(rows), self.most + min(_HELD, self.most // 9))
        x, y = self._drawn(rows, n)
        order = torch.randperm(n, generator=torch.Generator().manual_seed(self.seed))
        held = min(_HELD, n // 10)
        kept, apart = (order[held:], order[:held]) if held >= 8 else (order, order)
        self.labels = y[kept].to(self._device)
        self.counts = torch.bincount(self.labels, minlength=classes)
        if self.conditional and (len(self.counts) > classes or int(self.counts.min()) < 2):
            raise DataError(
                f"{self._name} needs at least 2 training inputs of each of the classifier's {classes} classes in its "
                f"bank, and none of others, but there are {self.counts.tolist()}"
            )
        with torch.no_grad():
            x, known = x[apart], x[kept]
            banks, others = self._features(known), self._features(x)
            label = y[apart].to(self._device)
            for number, bank in enumerate(banks):
                setattr(self, f"bank_{number}", bank)
                setattr(self, f"width_{number}", self._widths(others[number], label, number))
            found = [
                self._apart(x[part].to(self._device), [h[part] for h in others], label[part])
                for part in torch.arange(len(label)).split(250)
            ]
            self.centre, self.deviation = robust_units(torch.cat(found, 1))
        if len(self.centre) == 1:
            self.centre, self.deviation = torch.zeros_like(self.centre), torch.ones_like(self.deviation)

    def _drawn(self, rows: Rows, n: int) -> tuple[Tensor, Tensor]:
        """`n` inputs and their labels, or zeros."""
        shape = tuple(rows.shape)
        if self.conditional:
            return unpacked(kept_rows(LabelledRows(rows), n, self.seed), shape)
        x = kept_rows(rows, n, self.seed).reshape(-1, *shape)
        return x, torch.zeros(len(x), dtype=torch.int64)

    def _features(self, x: Tensor) -> list[Tensor]:
        parts = [self._layers(part.to(self._device)) for part in x.split(500)]
        return [torch.cat(list(layer)) for layer in zip(*parts, strict=True)]

    @final
    def bank(self, number: int) -> Float[Tensor, "m d"]:
        """What layer `number` makes of the bank's inputs."""
        return self.get_buffer(f"bank_{number}")

    @final
    def width(self, number: int) -> Float[Tensor, ""]:
        """What distances in layer `number` are compared with."""
        return self.get_buffer(f"width_{number}")

    def _apart(self, x: Tensor, features: list[Tensor], label: Tensor) -> Tensor:
        """(readings, n) in their own units, layer by layer."""
        inside = [r for number, h in enumerate(features) for r in self._readings(h, label, number)]
        return torch.stack([*inside, *self._beside(x)])

    @final
    def _score(self, x: Tensor, condition: Tensor | None) -> Tensor:
        label = x.new_zeros(x.shape[:1], dtype=torch.int64)
        if self.conditional:
            label = labels_for(x, condition, len(self.counts), self._name)
        found = self._apart(x, self._layers(x), label)
        return ((found - self.centre.to(x.dtype)[:, None]) / self.deviation.to(x.dtype)[:, None]).sum(0)
