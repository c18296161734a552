"""A small convolutional classifier."""

from __future__ import annotations

from typing import final

from jaxtyping import Float
from torch import Tensor, nn

from robustgen.errors import UsageError


@final
class SmallCNN(nn.Module):
    """conv 3x3 - pool - conv 3x3 - pool - linear - linear, as in the first papers on adversarial training (Madry 2018,
    MNIST).

    About 420,000 parameters at 28 x 28; trains in minutes on a CPU.
    """

    def __init__(self, shape: tuple[int, ...], classes: int, width: int = 32) -> None:
        super().__init__()
        if len(shape) != 3 or min(shape[1:]) < 4:
            raise UsageError(
                f"small-cnn needs images (channels, height, width) of at least 4 x 4, but inputs are {shape}: use mlp"
            )
        channels, height, columns = shape
        self.features = nn.Sequential(
            nn.Conv2d(channels, width, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(width, 2 * width, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
        )
        self.classifier = nn.Sequential(
            nn.Flatten(), nn.Linear(2 * width * (height // 4) * (columns // 4), 128), nn.ReLU(), nn.Linear(128, classes)
        )

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n classes"]:
        logits: Tensor = self.classifier(self.features(x))
        return logits
