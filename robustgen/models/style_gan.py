"""A generator of styles: one vector, mapped from the code, modulates every stage, and each stage gets fresh noise."""

from __future__ import annotations

from itertools import pairwise
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import conv2d, conv_transpose2d, leaky_relu

from robustgen.errors import UsageError
from robustgen.models.gan import sides, widths_of

_SLOPE = 0.2
_LOUDEST = 0.1  # bound on a stage's noise: without it, noise alone comes to paint the texture
_MIXED = 0.5  # share of training inputs made of two styles (Karras et al. 2019, section 3.1)
_USUAL = 0.99  # what a step keeps of the mean style


@final
class Mapping(nn.Module):
    """Code -> style, by three dense layers on the normalised code."""

    def __init__(self, code: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(code, code),
            nn.LeakyReLU(_SLOPE),
            nn.Linear(code, code),
            nn.LeakyReLU(_SLOPE),
            nn.Linear(code, code),
        )
        for layer in self.layers:  # by default each layer would shrink the styles to a third
            if isinstance(layer, nn.Linear):
                nn.init.kaiming_normal_(layer.weight, _SLOPE)
                nn.init.zeros_(layer.bias)

    def forward(self, z: Float[Tensor, "n k"]) -> Float[Tensor, "n k"]:
        style: Tensor = self.layers(z * (z.square().mean(1, keepdim=True) + 1e-8).rsqrt())
        return style


@final
class Stage(nn.Module):
    """A convolution whose inputs are scaled by the style and whose outputs are brought back to unit variance (Karras et
    al. 2020, section 2.2), then noise, bias, leaky ReLU. It keeps the size (3 x 3), or with `odd` doubles it (4 x 4,
    transposed) and adds `odd` rows and columns.
    """

    def __init__(self, inputs: int, outputs: int, code: int, odd: tuple[int, int] | None = None) -> None:
        super().__init__()
        size = (outputs, inputs, 3, 3) if odd is None else (inputs, outputs, 4, 4)
        self.weight = nn.Parameter(torch.randn(size))
        self.style = nn.Linear(code, inputs)
        nn.init.normal_(self.style.weight, std=code**-0.5)
        nn.init.ones_(self.style.bias)
        self.bias = nn.Parameter(torch.zeros(outputs, 1, 1))
        self.loudness = nn.Parameter(torch.zeros(()))
        self.odd = odd

    def forward(self, x: Tensor, style: Tensor, noise: torch.Generator | None, fresh: bool) -> Tensor:
        scale = self.style(style)
        x = x * scale[:, :, None, None]
        if self.odd is None:
            out = conv2d(x, self.weight, None, 1, 1)
            power = scale.square() @ self.weight.square().sum((2, 3)).T
        else:
            out = conv_transpose2d(x, self.weight, None, 2, 1, self.odd)
            power = scale.square() @ self.weight.square().sum((2, 3)) / 4  # each output sees a quarter of the taps
        out = out * (power + 1e-8).rsqrt()[:, :, None, None]
        if fresh:
            size = (len(out), 1, *out.shape[2:])
            drawn = torch.randn(size, generator=noise, dtype=out.dtype, device="cpu" if noise else out.device)
            out = out + _LOUDEST * self.loudness.tanh() * drawn.to(out.device)
        made: Tensor = leaky_relu(out + self.bias, _SLOPE) * 2**0.5
        return made


@final
class StyleGenerator(nn.Module):
    """A learnt constant, a `Stage` that keeps its size, one for each doubling up to images of `shape`, one more at the
    full size of small images, and a 1 x 1 convolution to values in [0, 1] (Karras, Laine, Aila 2019; Karras et al.
    2020). Raises `UsageError` for inputs that are no images.
    """

    usual: Tensor

    def __init__(self, shape: tuple[int, ...], code: int = 64, *, width: int = 32) -> None:
        super().__init__()
        if len(shape) != 3 or min(shape[1:]) < 6:
            raise UsageError(f"style-gan needs images of at least 6 x 6, but inputs have shape {shape}: use gan")
        self.code = code
        places = sides(shape)[::-1]
        channels = [*widths_of(len(places) - 1, width)[::-1], max(8, width // 2)]
        self.mapping = Mapping(code)
        self.constant = nn.Parameter(torch.randn(1, channels[0], *places[0]))
        stages = [Stage(channels[0], channels[0], code)]
        for (inputs, outputs), (small, large) in zip(pairwise(channels), pairwise(places), strict=True):
            stages.append(Stage(inputs, outputs, code, (large[0] - 2 * small[0], large[1] - 2 * small[1])))
        if len(places) < 4:  # at full size of larger images it would cost as much as all other stages
            stages.append(Stage(channels[-1], channels[-1], code))
        self.stages = nn.ModuleList(stages)
        self.out = nn.Conv2d(channels[-1], shape[0], 1)
        self.register_buffer("usual", torch.zeros(code))

    def forward(self, z: Float[Tensor, "n k"]) -> Float[Tensor, "n c h w"]:
        """Inputs of codes from N(0, I), with fresh noise from the global generator; in training some get the later
        stages' style from another code of the batch, and the mean style is kept.
        """
        style = self.mapping(z)
        if not self.training:
            return self.synthesise(style, fresh=True)
        with torch.no_grad():
            self.usual.lerp_(style.mean(0).to(self.usual.dtype), 1 - _USUAL)
        steps = len(self.stages)
        crossed = torch.randint(1, steps + 1, (len(z), 1), device=z.device)
        crossed = torch.where(torch.rand(len(z), 1, device=z.device) < _MIXED, crossed, steps)
        late = torch.arange(steps, device=z.device)[None] >= crossed
        return self.synthesise(torch.where(late[:, :, None], style.roll(1, 0)[:, None], style[:, None]), fresh=True)

    def synthesise(
        self, style: Float[Tensor, "n *stages k"], *, noise: torch.Generator | None = None, fresh: bool = False
    ) -> Float[Tensor, "n c h w"]:
        """Inputs of styles: (n, k), or (n, stages, k) with one for each stage. Without `fresh` noise they depend on the
        styles alone; `noise` draws it, on the CPU.
        """
        if style.ndim == 2:
            style = style[:, None].expand(-1, len(self.stages), -1)
        x = self.constant.to(style.dtype).expand(len(style), -1, -1, -1)
        for number, stage in enumerate(self.stages):
            x = stage(x, style[:, number], noise, fresh)
        made: Tensor = torch.sigmoid(self.out(x))
        return made

    def truncated(self, style: Float[Tensor, "n k"], truncation: float) -> Float[Tensor, "n k"]:
        """Styles brought nearer to the mean style (Karras et al. 2019, section B); 1 = as they are."""
        usual = self.usual.to(style.dtype)
        return usual + truncation * (style - usual)
