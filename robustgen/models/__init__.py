"""Networks, and where a model to be tested comes from.

`ARCHITECTURES` are the names that `build` takes; any classification network of torchvision is reached as
`torchvision:NAME`.
"""

from robustgen.registry import Entry

ARCHITECTURES = {
    "small-cnn": Entry(
        "robustgen.models.cnn:SmallCNN", "two convolutions and two linear layers, for images from 8 pixels"
    ),
    "small-resnet": Entry(
        "robustgen.models.resnet:SmallResNet", "three stages of residual blocks, for 28 to 64 pixels"
    ),
    "mlp": Entry("robustgen.models.mlp:MLP", "two hidden layers, for tables and very small images"),
}
