"""What networks can say of any input in a box, by interval bounds or by linear ones."""

from __future__ import annotations

from typing import Literal, get_args

from torch import nn

from robustgen.bounds.crown import tightened
from robustgen.bounds.interval import DOUBLE, Box, Head, Outputs, Scaled, box, layers, outputs, through
from robustgen.errors import UsageError
from robustgen.models.gan import Discriminator
from robustgen.registry import suggestion

__all__ = [
    "DOUBLE",
    "METHODS",
    "Box",
    "Head",
    "Method",
    "Outputs",
    "Scaled",
    "box",
    "check_method",
    "layers",
    "logit_bounds",
    "outputs",
    "pair_bounds",
    "through",
]

Method = Literal["interval", "crown"]
"""Interval bounds, or the better of them and linear bounds carried back to the input, a hundred times as dear."""

METHODS: tuple[Method, ...] = get_args(Method)


def check_method(method: str) -> Method:
    """`method`, if there is such a one. Raises `UsageError` if not."""
    if method not in METHODS:
        raise UsageError(suggestion(method, METHODS, "method"))
    return method


def logit_bounds(network: nn.Module, x: Box, method: Method = "interval") -> Outputs:
    """Bounds of a classifier's logits. Raises `UsageError` if its last layer is not linear or another is unknown."""
    *body, last = layers(network)
    if not isinstance(last, nn.Linear):
        raise UsageError(f"bounds are of networks that end in a linear layer, and this ends in {type(last).__name__}")
    return _bounds(body, Head.of(last), x, method)


def pair_bounds(discriminator: Discriminator, x: Box, method: Method = "interval") -> Outputs:
    """Bounds of D(x, k), what a discriminator with classes says of an input with each label. Differentiable."""
    head, labels = discriminator.head, discriminator.labels
    if not (isinstance(head, nn.Linear) and isinstance(labels, nn.Linear)):
        raise UsageError("this discriminator knows no labels")
    weight, size = head.weight + labels.weight, head.weight.abs() + labels.weight.abs()
    return _bounds(layers(discriminator.body), Head(weight, head.bias.expand(len(weight)), size), x, method)


def _bounds(body: list[nn.Module], head: Head, x: Box, method: Method) -> Outputs:
    found = outputs(through(body, x), head)
    return found if method == "interval" else tightened(found, body, head, x)
