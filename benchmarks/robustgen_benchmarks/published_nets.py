"""Small networks whose trained weights others have published, for `--model published_nets.py:FUNCTION --weights FILE`.

Each function takes no arguments and returns the network with fresh weights; inputs are in [0, 1], channels first, and
whatever normalisation a network was trained with happens inside. Names of layers are those of the published weights.
"""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn


class _Normalising(nn.Module):
    """Layers by name, after (x - mean) / std: plain numbers, because the published weights hold no such buffers.

    Not a subclass of `nn.Sequential`: ART would call the layers one by one and leave the normalisation out.
    """

    def __init__(self, layers: OrderedDict[str, nn.Module], mean: float = 0.0, std: float = 1.0) -> None:
        super().__init__()
        for name, layer in layers.items():
            self.add_module(name, layer)
        self.mean, self.std = mean, std

    def forward(self, x: Tensor) -> Tensor:
        x = (x - self.mean) / self.std
        for layer in self.children():
            x = layer(x)
        return x


def _layers(**layers: nn.Module) -> OrderedDict[str, nn.Module]:
    return OrderedDict(layers)


def _two_convolutions() -> list[nn.Module]:
    first, second = nn.Conv2d(1, 32, 3, padding=1), nn.Conv2d(32, 64, 3, padding=1)
    return [first, nn.ReLU(), nn.MaxPool2d(2), second, nn.ReLU(), nn.MaxPool2d(2)]


def advertorch_lenet5() -> nn.Module:
    """LeNet5 of advertorch_examples/models.py, MNIST (BorealisAI/advertorch, LGPL-3.0, commit e063e341)."""
    conv1, relu1, pool1, conv2, relu2, pool2 = _two_convolutions()
    return _Normalising(
        _layers(
            conv1=conv1,
            relu1=relu1,
            pool1=pool1,
            conv2=conv2,
            relu2=relu2,
            pool2=pool2,
            flatten=nn.Flatten(),
            linear1=nn.Linear(3136, 200),
            relu3=nn.ReLU(),
            linear2=nn.Linear(200, 10),
        )
    )


def convex_adversarial_mnist() -> nn.Module:
    """The MNIST network trained to be provably robust at Linf 0.1 (locuslab/convex_adversarial, MIT, 2cd81492).

    Wong, Kolter 2018, "Provable defenses against adversarial examples via the convex outer adversarial polytope".
    """
    return nn.Sequential(
        nn.Conv2d(1, 16, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(1568, 100),
        nn.ReLU(),
        nn.Linear(100, 10),
    )


def ccexam_mnist() -> nn.Module:
    """The MNIST network that the PyPI package ccexam 1.0.0 (MIT) ships; normalises by MNIST's mean and deviation."""
    features = nn.Sequential(*_two_convolutions())
    classifier = nn.Sequential(nn.Linear(3136, 128), nn.ReLU(), nn.Linear(128, 10))
    return _Normalising(_layers(features=features, flatten=nn.Flatten(), classifier=classifier), 0.1307, 0.3081)


def captum_cifar() -> nn.Module:
    """The CIFAR-10 network of the PyTorch tutorial, as trained for Captum's (pytorch/captum, BSD-3, faac0877)."""
    return _Normalising(
        _layers(
            conv1=nn.Conv2d(3, 6, 5),
            relu1=nn.ReLU(),
            pool1=nn.MaxPool2d(2),
            conv2=nn.Conv2d(6, 16, 5),
            relu2=nn.ReLU(),
            pool2=nn.MaxPool2d(2),
            flatten=nn.Flatten(),
            fc1=nn.Linear(400, 120),
            relu3=nn.ReLU(),
            fc2=nn.Linear(120, 84),
            relu4=nn.ReLU(),
            fc3=nn.Linear(84, 10),
        ),
        0.5,
        0.5,
    )
