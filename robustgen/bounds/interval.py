"""What a network can make of any input in a box: interval bound propagation.

Each layer maps a box around its inputs to a box around its outputs (Gowal et al. 2018, "On the effectiveness of
interval bound propagation for training verifiably robust models", equations 5 to 9). A last affine layer is folded into
the differences of its outputs that are asked for (the same, section 3: elision), which is tighter than to bound them
one by one.

A box may carry a bound on rounding: then what comes out holds for the network as float32 (or float64) computes it, in
whatever order it sums (Higham 2002, "Accuracy and stability of numerical algorithms", section 3.1), for any input in
the box. That is worked out in float64. Reduced precision (TF32, bfloat16) is not covered.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar, cast, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from robustgen.errors import UsageError
from robustgen.models.cnn import SmallCNN
from robustgen.models.mlp import MLP
from robustgen.models.normalise import Normalised
from robustgen.models.resnet import Block, SmallResNet

SINGLE, DOUBLE = 2.0**-24, 2.0**-50
"""By what a network computed in float32 or float64 errs in one operation, relatively. The second is 8 times what
float64 does, since the bounds themselves are worked out in no more than that."""

_SPARE = 16  # roundings more than a sum has terms: what is added to it, and float64's own


class Box(NamedTuple):
    """All points within `radius` of `centre`, value by value, both (n, *shape); `rounding`: how far from such a point
    a network that starts there may have ended by rounding, `unit` for each operation, or None where that is not asked.
    """

    centre: Tensor
    radius: Tensor
    rounding: Tensor | None = None
    unit: float = SINGLE

    @property
    def size(self) -> Tensor:
        """The largest absolute value in the box, value by value."""
        return self.centre.abs() + self.radius

    def each(self, change: Callable[[Tensor], Tensor]) -> Box:
        """The same rearrangement of values for all of them."""
        rounding = None if self.rounding is None else change(self.rounding)
        return self._replace(centre=change(self.centre), radius=change(self.radius), rounding=rounding)


def box(lower: Float[Tensor, "n *shape"], upper: Float[Tensor, "n *shape"], rounding: bool = False) -> Box:
    """The points between `lower` and `upper`; with `rounding`, float32 inputs to a network that is to be followed as
    float32 computes it.
    """
    if rounding:
        lower, upper = lower.double(), upper.double()
    centre = (lower + upper) / 2
    return Box(centre, (upper - lower) / 2, torch.zeros_like(centre) if rounding else None)


def _gamma(terms: int, unit: float) -> float:
    """The relative error of a sum of so many products, in any order."""
    product = (terms + _SPARE) * unit
    return product / (1 - product)


def _rounded(rounding: Tensor | None, size: Tensor, unit: float, terms: int = 1) -> Tensor | None:
    """With the error of operations on values of `size`, so many one after another."""
    return None if rounding is None else rounding + _gamma(terms, unit) * size


Layer = TypeVar("Layer", bound=nn.Module)


def _linear(layer: nn.Linear, x: Box) -> Box:
    return _affine(nn.functional.linear, layer, x)


def _conv(layer: nn.Conv2d, x: Box) -> Box:
    if layer.padding_mode != "zeros":
        raise UsageError(f"no bounds are known of a convolution padded by {layer.padding_mode}")
    return _affine(layer._conv_forward, layer, x)


def _affine(apply: Callable[..., Tensor], layer: nn.Linear | nn.Conv2d, x: Box) -> Box:
    weight, bias = layer.weight.to(x.centre.dtype), None if layer.bias is None else layer.bias.to(x.centre.dtype)
    absolute, rounding = weight.abs(), None
    if x.rounding is not None:
        gamma = _gamma(weight[0].numel(), x.unit)
        rounding = apply(
            x.rounding + gamma * (x.size + x.rounding), absolute, None if bias is None else gamma * bias.abs()
        )
    return Box(apply(x.centre, weight, bias), apply(x.radius, absolute, None), rounding, x.unit)


def _leaky(layer: nn.ReLU | nn.LeakyReLU, x: Box) -> Box:
    slope = layer.negative_slope if isinstance(layer, nn.LeakyReLU) else 0.0
    if not 0 <= slope <= 1:
        raise UsageError(f"no bounds are known of a leaky ReLU of slope {slope:g}: from 0 to 1 is")
    low, high = (nn.functional.leaky_relu(part, slope) for part in (x.centre - x.radius, x.centre + x.radius))
    rounding = x.rounding if slope in (0.0, 1.0) else _rounded(x.rounding, x.size, x.unit)
    return Box((low + high) / 2, (high - low) / 2, rounding, x.unit)


def _max_pool(layer: nn.MaxPool2d, x: Box) -> Box:
    low, high = layer(x.centre - x.radius), layer(x.centre + x.radius)
    return Box((low + high) / 2, (high - low) / 2, None if x.rounding is None else layer(x.rounding), x.unit)


def _mean(layer: nn.AvgPool2d | nn.AdaptiveAvgPool2d, x: Box) -> Box:
    found = x.each(layer)
    return found._replace(rounding=_rounded(found.rounding, layer(x.size), x.unit, x.centre[0].numel()))


def _batch_norm(layer: nn.BatchNorm1d | nn.BatchNorm2d, x: Box) -> Box:
    if layer.training or layer.running_mean is None or layer.running_var is None:
        raise UsageError("bounds are those of a network in evaluation mode, with the statistics of its training")
    dtype, places = x.centre.dtype, [1, -1, *[1] * (x.centre.dim() - 2)]
    mean = layer.running_mean.to(dtype)
    scale = 1 / torch.sqrt(layer.running_var.to(dtype) + layer.eps)
    shift = torch.zeros_like(mean)
    if layer.affine:
        scale, shift = scale * layer.weight.to(dtype), layer.bias.to(dtype)
    scale, shift, mean = scale.reshape(places), shift.reshape(places), mean.reshape(places)
    size = (x.size + mean.abs()) * scale.abs() + shift.abs()
    rounding = (
        None if x.rounding is None else _rounded(x.rounding * scale.abs(), size + x.rounding * scale.abs(), x.unit, 8)
    )
    return Box((x.centre - mean) * scale + shift, x.radius * scale.abs(), rounding, x.unit)


@final
class Scaled(nn.Module):
    """(x - centre) / deviation as a layer, for what does it without one: by channel, or value by value."""

    def __init__(self, centre: Tensor, deviation: Tensor) -> None:
        super().__init__()
        self.centre, self.deviation = centre, deviation

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.fitting(self.centre, x)) / self.fitting(self.deviation, x)

    def fitting(self, value: Tensor, x: Tensor) -> Tensor:
        by_channel = value.dim() == 1 and x.dim() > 2
        return value.to(x.dtype).reshape(-1, *[1] * (x.dim() - 2)) if by_channel else value.to(x.dtype)


def _scaled(layer: Scaled, x: Box) -> Box:
    deviation, centre = layer.fitting(layer.deviation, x.centre), layer.fitting(layer.centre, x.centre)
    size = (x.size + centre.abs()) / deviation
    rounding = (
        None if x.rounding is None else _rounded(x.rounding / deviation, size + x.rounding / deviation, x.unit, 4)
    )
    return Box((x.centre - centre) / deviation, x.radius / deviation, rounding, x.unit)


def _block(layer: Block, x: Box) -> Box:
    one, other = through(layer.shortcut, x), through(layer.residual, x)
    rounding = None
    if one.rounding is not None and other.rounding is not None:
        either = one.rounding + other.rounding
        rounding = _rounded(either, one.size + other.size + either, x.unit)
    return Box(one.centre + other.centre, one.radius + other.radius, rounding, x.unit)


def _unchanged(layer: nn.Identity | nn.Dropout | nn.Dropout2d, x: Box) -> Box:
    if layer.training and not isinstance(layer, nn.Identity):
        raise UsageError("bounds are those of a network in evaluation mode, without dropout")
    return x


_RULES: dict[type[nn.Module], Callable[[Any, Box], Box]] = {
    nn.Linear: _linear,
    nn.Conv2d: _conv,
    nn.ReLU: _leaky,
    nn.LeakyReLU: _leaky,
    nn.MaxPool2d: _max_pool,
    nn.AvgPool2d: _mean,
    nn.AdaptiveAvgPool2d: _mean,
    nn.BatchNorm1d: _batch_norm,
    nn.BatchNorm2d: _batch_norm,
    Scaled: _scaled,
    Block: _block,
    **dict.fromkeys((nn.Flatten, nn.Unflatten, nn.PixelUnshuffle, nn.ZeroPad2d), lambda layer, x: x.each(layer)),
    **dict.fromkeys((nn.Identity, nn.Dropout, nn.Dropout2d), _unchanged),
}


def layers(network: nn.Module) -> list[nn.Module]:
    """What the network does, one after another. Raises `UsageError` if no bounds are known of some of it."""
    kind = type(network)
    if kind is nn.Sequential:
        parts: Iterable[nn.Module] = cast(nn.Sequential, network)
    elif isinstance(network, SmallCNN | SmallResNet):
        parts = (network.features, network.classifier)
    elif isinstance(network, MLP):
        parts = (network.layers,)
    elif isinstance(network, Normalised) and network.channels in (None, 1):
        parts = (Scaled(network.mean, network.std), network.network)
    elif _kind(network) in _RULES:
        return [network]
    else:
        known = ", ".join(sorted(known.__name__ for known in _RULES if known.__module__.startswith("torch")))
        raise UsageError(f"no bounds are known of {kind.__name__}: they are of {known}")
    return [layer for part in parts for layer in layers(part)]


def _kind(layer: nn.Module) -> type[nn.Module]:
    """Its class without what torch puts before it for a spectral norm."""
    kind = type(layer)
    return cast(type[nn.Module], kind.__bases__[0]) if kind.__name__.startswith("Parametrized") else kind


def through(network: nn.Module | Iterable[nn.Module], x: Box) -> Box:
    """A box around what the network, or layers one after another, make of any point of the box `x`. Differentiable;
    rows do not mix.
    """
    for layer in layers(network) if isinstance(network, nn.Module) else network:
        x = _RULES[_kind(layer)](layer, x)
    return x


@final
@dataclass(frozen=True)
class Head:
    """A last layer that gives K numbers: weight (K, f), bias (K,). `size`: (K, f) sums of absolute weights, where the
    weight is a sum of several.
    """

    weight: Tensor
    bias: Tensor
    size: Tensor

    @classmethod
    def of(cls, layer: nn.Linear) -> Head:
        """That of one linear layer."""
        bias = layer.weight.new_zeros(len(layer.weight)) if layer.bias is None else layer.bias
        return cls(layer.weight, bias, layer.weight.abs())

    def to(self, dtype: torch.dtype) -> Head:
        return Head(self.weight.to(dtype), self.bias.to(dtype), self.size.to(dtype))


class Outputs(NamedTuple):
    """For each input of n boxes: `upper` (n, K) bounds of the K numbers from above, and `lead` (n, K, K) bounds of
    number j minus number k from below at [:, j, k].
    """

    upper: Tensor
    lead: Tensor


def outputs(features: Box, head: Head) -> Outputs:
    """What K numbers can be, and by how much they lead one another, for features (n, f) in a box."""
    head = head.to(features.centre.dtype)
    middle = features.centre @ head.weight.T + head.bias
    upper = middle + features.radius @ head.weight.abs().T
    pairs = (head.weight[:, None] - head.weight[None]).abs().flatten(0, 1)
    apart = (features.radius @ pairs.T).unflatten(1, (len(head.bias), len(head.bias)))
    lead = middle[:, :, None] - middle[:, None] - apart
    if features.rounding is not None:
        gamma = _gamma(head.weight.shape[1], features.unit)
        error = features.rounding + gamma * (features.size + features.rounding)
        rounding = error @ head.size.T + gamma * head.bias.abs()
        upper, lead = upper + rounding, lead - rounding[:, :, None] - rounding[:, None]
    return Outputs(upper, lead)
