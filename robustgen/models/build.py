"""From an architecture's name and the data's shape to a network with fresh weights, and back from disk."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from robustgen.errors import ArtifactError, UsageError
from robustgen.models import ARCHITECTURES
from robustgen.models.normalise import Normalised
from robustgen.registry import resolve


def torchvision_names() -> list[str]:
    """Every classification network of torchvision, by its own name."""
    from torchvision import models

    # quantised ones have no gradients; the others of the main module are classifiers
    return [name for name in models.list_models(module=models) if not name.startswith("quantized")]


def build(
    arch: str,
    shape: tuple[int, ...],
    classes: int,
    *,
    mean: Sequence[float] = (0.0,),
    std: Sequence[float] = (1.0,),
    seed: int = 0,
) -> Normalised:
    """A classifier for inputs of `shape`, normalising inside. `arch`: a name of `ARCHITECTURES`, or one of
    torchvision's.

    Raises `UsageError` for an unknown name, or a network that cannot take such inputs.
    """
    from robustgen.runtime import seeded

    name = arch.removeprefix("torchvision:")
    if classes < 2:
        raise UsageError(f"a classifier needs at least 2 classes, but the data has {classes}")
    with seeded(seed):
        if name in ARCHITECTURES and name == arch:
            return Normalised(resolve(ARCHITECTURES, arch, "architecture")(shape, classes), mean, std)
        known = torchvision_names()
        if name not in known:
            raise UsageError(_unknown(name, known))
        return Normalised(_torchvision(name, shape, classes), mean, std, channels=3)


def _unknown(name: str, known: list[str]) -> str:
    """The sentence for an unknown name: the nearest names, since torchvision's whole list would fill a screen."""
    own = difflib.get_close_matches(name, ARCHITECTURES, n=1)
    theirs = [f"torchvision:{near}" for near in difflib.get_close_matches(name, known, n=3)]
    near = f"did you mean {' or '.join(repr(n) for n in own + theirs)}? " if own or theirs else ""
    return f"unknown architecture {name!r}: {near}known: {', '.join(ARCHITECTURES)}, torchvision:NAME"


def _torchvision(name: str, shape: tuple[int, ...], classes: int) -> nn.Module:
    from torchvision import models

    if len(shape) != 3 or shape[0] not in (1, 3):
        raise UsageError(
            f"torchvision's networks take images with 1 or 3 channels, but inputs are {shape}: use mlp or your own "
            "model"
        )
    extra = {"init_weights": True, "aux_logits": False} if name in ("googlenet", "inception_v3") else {}
    network: nn.Module = models.get_model(name, weights=None, num_classes=classes, **extra)
    try:
        with torch.no_grad():
            network.eval()(torch.zeros(1, 3, *shape[1:]))
    except (RuntimeError, ValueError, AssertionError) as error:
        raise UsageError(
            f"torchvision:{name} cannot take images of {shape[1]} x {shape[2]} ({str(error).splitlines()[0]}): use a "
            "network for "
            f"small images, such as small-cnn or small-resnet"
        ) from error
    return network


def load_state(network: nn.Module, state: Mapping[str, Tensor], where: str) -> None:
    """Fill `network` from a state dict. Raises `ArtifactError` naming what is missing, unexpected or of another
    shape.
    """
    wanted = network.state_dict()
    missing, unexpected = sorted(wanted.keys() - state.keys()), sorted(state.keys() - wanted.keys())
    shapes = [
        f"{k} {tuple(state[k].shape)} instead of {tuple(wanted[k].shape)}"
        for k in wanted.keys() & state.keys()
        if state[k].shape != wanted[k].shape
    ]
    problems = [
        f"{what}: {', '.join(names[:3])}{f' and {len(names) - 3} more' if len(names) > 3 else ''}"
        for what, names in (("missing", missing), ("unexpected", unexpected), ("other shape", sorted(shapes)))
        if names
    ]
    if problems:
        raise ArtifactError(
            f"the weights in {where} do not fit the network ({'; '.join(problems)}): name the architecture they were "
            "trained with"
        )
    network.load_state_dict(dict(state))


def from_config(config: Mapping[str, Any], tensors: Mapping[str, Tensor], where: str) -> Normalised:
    """The classifier of an artifact: its architecture with its weights."""
    try:
        shape, classes, arch = tuple(config["shape"]), len(config["classes"]), config["arch"]
    except (KeyError, TypeError) as error:
        raise ArtifactError(
            f"{where} does not say which architecture it holds: make it again with 'robustgen train'"
        ) from error
    width = len(tensors["mean"]) if "mean" in tensors else 1
    network = build(arch, shape, classes, mean=[0.0] * width, std=[1.0] * width)
    load_state(network, tensors, where)
    return network
