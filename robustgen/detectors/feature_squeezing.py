"""How much the classifier's answer changes when the input is squeezed."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from robustgen.data.rows import Rows
from robustgen.detectors.squeezers import squeezer
from robustgen.detectors.watching import WatchingDetector
from robustgen.errors import UsageError
from robustgen.training.descent import TrainingProgress


@final
class FeatureSqueezingDetector(WatchingDetector):
    """max over squeezers q of ||softmax(f(x)) - softmax(f(q(x)))||_1, from 0 to 2, with f the classifier's logits (Xu,
    Evans, Qi 2018, "Feature squeezing: detecting adversarial examples in deep neural networks").

    `squeezers`: joined by "+", each `bits:DEPTH`, `median:WIDTH` or `means:WINDOW:PATCH:STRENGTH` (see `squeezers`);
    the authors' are "bits:1+median:2" for MNIST, "bits:5+median:2+means:13:3:2" for CIFAR-10 and
    "bits:5+median:2+means:11:3:4" for ImageNet (their code, EvadeML-Zoo). "auto": "bits:3+median:2" for images,
    "bits:3" for other inputs. Values range from the lesser of 0 and the least training value to the larger of 1 and the
    greatest. With "bits" the gradient is a stand-in, which takes rounding for the identity.
    """

    range: Tensor

    def __init__(self, squeezers: str = "auto") -> None:
        super().__init__()
        self.squeezers = squeezers
        names = ("bits:3" if squeezers == "auto" else squeezers).split("+")
        for name in names:
            squeezer(name, 0.0, 1.0)
        self.surrogate = any(name.startswith("bits") for name in names)
        self.register_buffer("range", torch.tensor([0.0, 1.0]))

    def _chosen(self) -> list[str]:
        image = self.shape is not None and len(self.shape) == 3
        names = (("bits:3+median:2" if image else "bits:3") if self.squeezers == "auto" else self.squeezers).split("+")
        for name in names:
            if not image and not name.startswith("bits"):
                raise UsageError(f"the squeezer {name!r} needs images, but inputs have shape {self.shape}: use bits")
        return names

    def _build(self, shape: tuple[int, ...]) -> None:
        self._chosen()

    def _fit(self, rows: Rows, progress: TrainingProgress | None) -> None:
        low, high = 0.0, 1.0
        for number, x in enumerate(rows.batches(4096)):
            low, high = min(low, float(x.min())), max(high, float(x.max()))
            if not number:
                with torch.no_grad():
                    self.logits(x[:8].to(self._device))
        self.range = torch.tensor([low, high], device=self._device)

    def _score(self, x: Tensor, condition: Tensor | None) -> Tensor:
        low, high = self.range.unbind()
        said = self.logits(x).softmax(1)
        found = [(said - self.logits(squeezer(name, low, high)(x)).softmax(1)).abs().sum(1) for name in self._chosen()]
        return torch.stack(found).amax(0)
