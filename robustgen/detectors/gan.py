"""A plain generative adversarial network as a detector."""

from __future__ import annotations

from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from robustgen.detectors.adversarial import AdversarialDetector, check_drawn
from robustgen.models.gan import Generator


@final
class GANDetector(AdversarialDetector):
    """A generative adversarial network (Goodfellow et al. 2014; Radford et al. 2016) whose discriminator judges inputs:
    see `AdversarialDetector` for the options.
    """

    def _generator(self, shape: tuple[int, ...]) -> nn.Module:
        return Generator(shape, self.code, width=self.width, bounded=len(shape) == 3)

    def _made(self, code: Tensor) -> Tensor:
        made: Tensor = self.generator(code)
        return made

    def sample(self, n: int, seed: int) -> Float[Tensor, "n *shape"]:
        """`n` new inputs: codes drawn from N(0, I) by `seed`, through the generator."""
        return self.sample_truncated(n, seed, 1.0)

    def sample_truncated(self, n: int, seed: int, truncation: float) -> Float[Tensor, "n *shape"]:
        """The same with codes times `truncation`: below 1 nearer to the usual, and more alike."""
        check_drawn(n, truncation)
        code = torch.randn(n, self.code, generator=torch.Generator().manual_seed(seed)).to(self._device)
        return self.decode(truncation * code.to(next(self.generator.parameters()).dtype))
