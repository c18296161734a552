"""What can be read off a GAN: what the discriminator says, and how well the generator can make an input."""

from __future__ import annotations

from typing import final

from torch import Tensor

from robustgen.detectors.parts import PARTS, Part, View
from robustgen.errors import RobustgenError


@final
class Unreal(Part):
    """Minus what the discriminator says: high where it takes an input for a fake."""

    def forward(self, view: View) -> Tensor:
        return -_there(view.number)


@final
class FeatureResidual(Part):
    """Mean (f(x) - f(x'))^2 with f the discriminator's features and x' the generator's nearest input: the second term
    of f-AnoGAN's score (Schlegl et al. 2019), of which "l2" is the first.
    """

    def forward(self, view: View) -> Tensor:
        return (view.code - _there(view.again)).square().mean(1)


def _there(value: Tensor | None) -> Tensor:
    if value is None:
        raise RobustgenError("this part of a score needs a discriminator")
    return value


GAN_PARTS: dict[str, type[Part]] = {"discriminator": Unreal, "features": FeatureResidual} | PARTS
"""Of an autoencoder's parts, those of the code look at the discriminator's features, those of the error at what the
generator makes of the encoder's code."""
