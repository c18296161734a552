"""A residual classifier for small images."""

from __future__ import annotations

from typing import final

from jaxtyping import Float
from torch import Tensor, nn

from robustgen.errors import UsageError


@final
class Block(nn.Module):
    """Pre-activation block: batch norm - ReLU - conv, twice, beside a shortcut (He, Zhang, Ren, Sun 2016, "Identity
    mappings").
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            nn.BatchNorm2d(inputs),
            nn.ReLU(),
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False),
        )
        same = inputs == outputs and stride == 1
        self.shortcut: nn.Module = nn.Identity() if same else nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.shortcut(x) + self.residual(x)
        return out


@final
class SmallResNet(nn.Module):
    """A wide residual network with three stages of `blocks` blocks (Zagoruyko, Komodakis 2016), first stage `width`
    channels.
    """

    def __init__(self, shape: tuple[int, ...], classes: int, width: int = 32, blocks: int = 1) -> None:
        super().__init__()
        if len(shape) != 3 or min(shape[1:]) < 8:
            raise UsageError(
                f"small-resnet needs images (channels, height, width) of at least 8 x 8, but inputs are {shape}: use "
                "mlp"
            )
        stages: list[nn.Module] = [nn.Conv2d(shape[0], width, 3, 1, 1, bias=False)]
        before = width
        for stage in range(3):
            for block in range(blocks):
                stages.append(Block(before, width * 2**stage, stride=2 if stage and not block else 1))
                before = width * 2**stage
        self.features = nn.Sequential(*stages, nn.BatchNorm2d(before), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.classifier = nn.Linear(before, classes)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n classes"]:
        logits: Tensor = self.classifier(self.features(x))
        return logits
