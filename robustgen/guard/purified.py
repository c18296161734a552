"""A classifier that looks at inputs as a detector rebuilds them."""

from __future__ import annotations

from typing import Protocol, final, runtime_checkable

from jaxtyping import Float
from torch import Tensor, nn

from robustgen.data.source import DataSpec
from robustgen.detectors import DETECTORS
from robustgen.detectors.base import Detector
from robustgen.detectors.calibrated import CalibratedDetector
from robustgen.detectors.cycle_gan import CycleGANDetector
from robustgen.errors import UsageError
from robustgen.registry import resolve


@runtime_checkable
class Reconstructor(Protocol):
    """What makes a normal input that is near each input."""

    def reconstruct(self, x: Float[Tensor, "n *shape"]) -> Float[Tensor, "n *shape"]: ...


@final
class Purified(nn.Module):
    """classifier(purify(x)): inputs in the data's range -> logits, differentiable from end to end, so that every attack
    can be run on both together.

    Purification as in Meng, Chen 2017, "MagNet" (the reformer) and Samangouei, Kabkab, Chellappa 2018,
    "Defense-GAN": what was added to an input is not among what the detector has learned to make. `detector`: one that
    rebuilds its inputs without a label, or a cycle GAN, which translates them to normal. An attacker who knows of it
    undoes most of the gain (Athalye, Carlini, Wagner 2018): measure it through this module. Raises `UsageError` for a
    detector that cannot rebuild an input.
    """

    def __init__(self, classifier: nn.Module, detector: CalibratedDetector) -> None:
        super().__init__()
        if detector.features is not None:
            raise UsageError(
                f"this {detector.name} looks at inputs through a model or a code, so it cannot rebuild the inputs "
                "themselves: fit it without --model"
            )
        if not _rebuilds(type(detector.detector)):
            those = ", ".join(name for name in DETECTORS if _rebuilds(resolve(DETECTORS, name, "detector")))
            raise UsageError(f"{detector.name} cannot rebuild an input without its label: use one of {those}")
        self.classifier, self.detector = classifier, detector.detector
        self.name, self.spec = detector.name, detector.spec

    def purify(self, x: Float[Tensor, "n *shape"]) -> Float[Tensor, "n *shape"]:
        """The inputs as the detector rebuilds them. They may leave the box by a little: cutting them off there would
        cost the gradient.
        """
        if isinstance(self.detector, CycleGANDetector):
            return self.detector.translate(x, "normal")
        assert isinstance(self.detector, Reconstructor)  # the constructor has seen to it
        return self.detector.reconstruct(x)

    def forward(self, x: Float[Tensor, "n *shape"]) -> Float[Tensor, "n classes"]:
        logits: Tensor = self.classifier(self.purify(x))
        return logits

    def check(self, spec: DataSpec) -> None:
        """Raise `UsageError` unless inputs of `spec` are of the form that the detector was fitted on."""
        ours = self.spec
        if (ours.shape, ours.low, ours.high, ours.columns) != (spec.shape, spec.low, spec.high, spec.columns):
            raise UsageError(
                f"the purifier {self.name} was fitted on inputs of {ours.name!r}, of shape {ours.shape} in "
                f"[{ours.low:g}, {ours.high:g}], but {spec.name!r} has inputs of shape {spec.shape} in [{spec.low:g}, "
                f"{spec.high:g}]: fit it on data of that form"
            )


def _rebuilds(kind: type[Detector]) -> bool:
    return issubclass(kind, CycleGANDetector) or (issubclass(kind, Reconstructor) and not kind.conditional)
