"""Networks and weights that others made, loaded as a user would: is the accuracy the published one?

Needs a folder with those files, which are not ours to ship: ROBUSTGEN_EXTRA_DATA names it, without it these tests skip.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

import robustgen_benchmarks.published_nets as published_nets
from robustgen.data.load import load
from robustgen.evaluation.attacked import predict
from robustgen.models.load import load_model

EXTRA = Path(os.environ.get("ROBUSTGEN_EXTRA_DATA") or "missing")

pytestmark = pytest.mark.skipif(not EXTRA.is_dir(), reason="ROBUSTGEN_EXTRA_DATA names no folder")


@pytest.mark.parametrize(
    ("function", "weights", "accuracy"),
    [
        ("advertorch_lenet5", "advertorch_mnist_lenet5_clntrained.pt", 0.9889),
        ("advertorch_lenet5", "advertorch_mnist_lenet5_advtrained.pt", 0.9864),
        ("convex_adversarial_mnist", "convex_adversarial_mnist.pth", 0.9820),
        ("ccexam_mnist", "ccexam_mnist.pth", 0.9905),
    ],
)
def test_published_networks_reach_their_accuracy(function: str, weights: str, accuracy: float) -> None:
    loaded = load_model(f"{published_nets.__file__}:{function}", weights=EXTRA / "models" / weights)
    source = load(str(EXTRA / "mnist" / "mnist.npz"))
    # every tenth, not the first thousand: the first 5,000 of MNIST's test images are the easier half
    batch = source.read(source.rows("test")[::10])
    assert batch.y is not None
    assert len(batch.y) == 1000
    measured = (predict(loaded.network, batch.x, 250).argmax(1) == batch.y).double().mean().item()
    assert measured == pytest.approx(accuracy, abs=0.01)


def test_a_published_network_takes_images_in_the_unit_box() -> None:
    loaded = load_model(
        f"{published_nets.__file__}:captum_cifar", weights=EXTRA / "models" / "captum_cifar_torchvision.pt"
    )
    assert loaded.network(torch.rand(2, 3, 32, 32)).shape == (2, 10)
