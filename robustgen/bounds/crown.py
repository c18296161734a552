"""Linear bounds carried back from the outputs to the input (CROWN: Zhang, Weng, Chen, Hsieh, Daniel 2018, "Efficient
neural network robustness certification with general activation functions"), between interval bounds of what enters each
layer (CROWN-IBP: Zhang et al. 2020, "Towards stable and efficient training of verifiably robust neural networks").
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from robustgen.bounds.interval import Box, Head, Outputs, outputs, through
from robustgen.models.resnet import Block

_AT_ONCE = 1500  # linear functions carried back together


@torch.no_grad()
def tightened(found: Outputs, body: Sequence[nn.Module], head: Head, x: Box) -> Outputs:
    """The better of interval bounds `found` and linear ones, of the numbers that `head` makes of what the layers `body`
    make of a box. No gradients. What float32 may err by is that of the interval bounds.
    """
    head = head.to(x.centre.dtype)
    classes = len(head.bias)
    wanted = torch.cat([-head.weight, (head.weight[:, None] - head.weight[None]).flatten(0, 1)])
    shift = torch.cat([-head.bias, (head.bias[:, None] - head.bias[None]).flatten()])
    doubled = [_double(layer) for layer in body]
    rows = max(1, _AT_ONCE // len(wanted))
    parts = [
        _least(doubled, wanted, Box(x.centre[i : i + rows], x.radius[i : i + rows]))
        for i in range(0, len(x.centre), rows)
    ]
    least = torch.cat(parts) + shift
    upper, lead = -least[:, :classes], least[:, classes:].unflatten(1, (classes, classes))
    if x.rounding is not None:
        exact = outputs(through(body, x)._replace(rounding=None), head)
        upper, lead = upper + (found.upper - exact.upper), lead - (exact.lead - found.lead)
    return Outputs(torch.minimum(found.upper, upper), torch.maximum(found.lead, lead))


def _double(layer: nn.Module) -> nn.Module:
    return copy.deepcopy(layer).double().requires_grad_(False)


def _least(body: Sequence[nn.Module], wanted: Tensor, x: Box) -> Tensor:
    """(n, wanted) what the linear functions `wanted` (m, f) of the layers' features are at least."""
    n = len(x.centre)
    slope, rest = _back(body, wanted.expand(n, *wanted.shape), x)
    slope = slope.flatten(2)
    centre, radius = (part.flatten(1)[:, :, None] for part in (x.centre, x.radius))
    return (slope @ centre - slope.abs() @ radius)[:, :, 0] + rest


def _back(body: Sequence[nn.Module], slope: Tensor, x: Box) -> tuple[Tensor, Tensor]:
    """Slopes (n, m, *input) and constants (n, m) of linear functions below the functions `slope` (n, m, *output) of
    what the layers make of any point of the box.
    """
    entering, rest = [x], slope.new_zeros(slope.shape[:2])
    for layer in body[:-1]:
        entering.append(through([layer], entering[-1]))
    for layer, seen in zip(reversed(body), reversed(entering), strict=False):
        slope, more = _one_back(layer, slope, seen)
        rest = rest + more
    return slope, rest


def _one_back(layer: nn.Module, slope: Tensor, x: Box) -> tuple[Tensor, Tensor]:
    if isinstance(layer, Block):
        (one, first), (other, second) = (_back(_listed(part), slope, x) for part in (layer.shortcut, layer.residual))
        return one + other, first + second
    if isinstance(layer, nn.ReLU | nn.LeakyReLU):
        return _relu_back(layer.negative_slope if isinstance(layer, nn.LeakyReLU) else 0.0, slope, x)
    if isinstance(layer, nn.MaxPool2d):
        return _pool_back(layer, slope, x)
    return _affine_back(layer, slope, x)


def _listed(part: nn.Module) -> list[nn.Module]:
    return list(part) if isinstance(part, nn.Sequential) else [part]


def _affine_back(layer: nn.Module, slope: Tensor, x: Box) -> tuple[Tensor, Tensor]:
    """Through its transposed matrix, which is what a gradient is multiplied by."""
    n, m = slope.shape[:2]
    with torch.enable_grad():
        at = torch.zeros(n * m, *x.centre.shape[1:], dtype=slope.dtype, device=slope.device, requires_grad=True)
        out = layer(at)
        (found,) = torch.autograd.grad(out, at, slope.reshape(out.shape))
    rest = (out.detach().flatten(1) * slope.reshape(n * m, -1)).sum(1)
    return found.unflatten(0, (n, m)), rest.unflatten(0, (n, m))


def _relu_back(negative: float, slope: Tensor, x: Box) -> tuple[Tensor, Tensor]:
    """Where the sign is not known: above by the chord, below by whichever of both branches wastes less."""
    low, high = x.centre - x.radius, x.centre + x.radius
    unsure = (low < 0) & (high > 0)
    width = torch.where(unsure, high - low, 1)
    known = torch.where(low >= 0, 1.0, negative).to(slope)
    chord = torch.where(unsure, (high - negative * low) / width, known)
    below = torch.where(unsure, torch.where(high > -low, 1.0, negative).to(slope), known)
    above = torch.where(unsure, high * (1 - chord), 0)
    positive, other = slope.clamp(min=0), slope.clamp(max=0)
    rest = (other * above[:, None]).flatten(2).sum(2)
    return positive * below[:, None] + other * chord[:, None], rest


def _pool_back(layer: nn.MaxPool2d, slope: Tensor, x: Box) -> tuple[Tensor, Tensor]:
    """The largest of a window is at least the one with the highest lower bound, and at most the highest upper bound."""
    low, high = x.centre - x.radius, x.centre + x.radius
    _, place = nn.functional.max_pool2d(
        low, layer.kernel_size, layer.stride, layer.padding, layer.dilation, layer.ceil_mode, return_indices=True
    )
    positive, other = slope.clamp(min=0), slope.clamp(max=0)
    n, m = slope.shape[:2]
    back = slope.new_zeros(n, m, low.shape[1], low[0, 0].numel())
    back.scatter_add_(3, place.flatten(2)[:, None].expand(n, m, -1, -1), positive.flatten(3))
    rest = (other * cast(Tensor, layer(high))[:, None]).flatten(2).sum(2)
    return back.reshape(n, m, *low.shape[1:]), rest
