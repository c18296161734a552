"""A style-based GAN as a detector."""

from __future__ import annotations

from typing import ClassVar, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from robustgen.detectors.adversarial import AdversarialDetector, check_drawn
from robustgen.models.style_gan import StyleGenerator


@final
class StyleGANDetector(AdversarialDetector):
    """A style-based generator (Karras, Laine, Aila 2019) and its discriminator: see `AdversarialDetector` for the
    options. Images from 6 x 6 up. The code of an input is its style, found by an encoder with the noise left out: noise
    could make what the styles cannot, and so make anomalies look normal.
    """

    by_default: ClassVar[str] = "discriminator+features+knn+edges"

    def __init__(
        self,
        loss: str = "hinge",
        penalty: float | None = None,
        network: str = "auto",
        spectral: bool | None = None,
        negatives: str = "auto",
        contest: float = 0.2,
        history: float = 0.0,
        fence: float = 1.0,
        diversity: float = 1.0,
        augment: str = "auto",
        code: int = 64,
        width: int = 32,
        scores: str = "auto",
        preset: str = "default",
        steps: int | None = None,
        batch_size: int = 64,
        learning_rate: float = 1e-3,
        seed: int = 0,
    ) -> None:
        super().__init__(
            loss,
            penalty,
            network,
            spectral,
            negatives,
            contest,
            history,
            fence,
            diversity,
            augment,
            code,
            width,
            scores,
            preset,
            steps,
            batch_size,
            learning_rate,
            seed,
        )

    def _generator(self, shape: tuple[int, ...]) -> nn.Module:
        return StyleGenerator(shape, self.code, width=self.width)

    def _made(self, code: Tensor) -> Tensor:
        return self._styled().synthesise(code)

    def _styled(self) -> StyleGenerator:
        assert isinstance(self.generator, StyleGenerator)
        return self.generator

    def sample(self, n: int, seed: int) -> Float[Tensor, "n *shape"]:
        """`n` new inputs: codes and noise drawn by `seed`."""
        return self.sample_truncated(n, seed, 1.0)

    def sample_truncated(self, n: int, seed: int, truncation: float) -> Float[Tensor, "n *shape"]:
        """The same, each style brought towards the mean one: by `truncation` 0 to it, by 1 not at all."""
        check_drawn(n, truncation)
        style, random = self._styles(n, seed)
        network = self._styled()
        return self.restored(network.synthesise(network.truncated(style, truncation), noise=random, fresh=True))

    def mixed(self, n: int, seed: int) -> Float[Tensor, "n n *shape"]:
        """Row i, column j: the first half of the stages has the style of sample i, the rest that of sample j (Karras et
        al. 2019, figure 3). Without noise; the diagonal holds the samples themselves.
        """
        check_drawn(n, 1.0)
        style, _ = self._styles(n, seed)
        network = self._styled()
        stages = len(network.stages)
        late = (torch.arange(stages, device=style.device) >= (stages + 1) // 2)[None, None, :, None]
        grid = torch.where(late, style[None, :, None], style[:, None, None])
        made = network.synthesise(grid.expand(n, n, stages, -1).flatten(0, 1))
        return self.restored(made).reshape(n, n, *made.shape[1:])

    def _styles(self, n: int, seed: int) -> tuple[Tensor, torch.Generator]:
        network, random = self._styled(), torch.Generator().manual_seed(seed)
        code = torch.randn(n, self.code, generator=random).to(network.usual)
        return network.mapping(code), random
