"""A faster way back to the image on a CPU, where an attack spends its time.

Training never needs the gradient with respect to the image, and the libraries' kernels for it are slow where the image
has one to four channels: two to five times slower than one matrix product and a few shifted sums, which is what it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.overrides import TorchFunctionMode

_FEW = 4  # channels, above which the library's kernel is as fast
_POOLING = (torch.max_pool2d, torch.nn.functional.max_pool2d)  # what a module calls is the second
_CACHED = 32  # images at a time, so that the intermediate products stay in a CPU's cache


class _FewChannels(torch.autograd.Function):
    """conv2d of one group without dilation, whose weight and bias need no gradient."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, stride: tuple[int, int], padding: tuple[int, int]
    ) -> Tensor:
        ctx.save_for_backward(weight)
        ctx.shape, ctx.stride, ctx.padding = x.shape, stride, padding
        return torch.conv2d(x, weight, bias, stride, padding)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None, None]:
        (weight,) = ctx.saved_tensors
        parts = [
            _input_gradient(part, weight, ctx.shape[1:], ctx.stride, ctx.padding) for part in gradient.split(_CACHED)
        ]
        return torch.cat(parts), None, None, None, None


def _input_gradient(
    gradient: Tensor, weight: Tensor, shape: torch.Size, stride: tuple[int, int], padding: tuple[int, int]
) -> Tensor:
    """Each tap of the filter times the output's gradient, summed where the tap looked."""
    (m, out_channels, rows, columns), (channels, height, width) = gradient.shape, shape
    taps = weight.shape[2:]
    flat = gradient.permute(0, 2, 3, 1).reshape(-1, out_channels)
    products = (weight.permute(2, 3, 1, 0).reshape(-1, out_channels) @ flat.T).view(*taps, channels, m, rows, columns)
    image = gradient.new_zeros(channels, m, height + 2 * padding[0], width + 2 * padding[1])
    for i in range(taps[0]):
        for j in range(taps[1]):
            seen = image[:, :, i : i + (rows - 1) * stride[0] + 1 : stride[0]]
            seen[..., j : j + (columns - 1) * stride[1] + 1 : stride[1]] += products[i, j]
    return image[:, :, padding[0] : padding[0] + height, padding[1] : padding[1] + width].transpose(0, 1)


class FastInputGradient(TorchFunctionMode):
    """While it is entered, convolutions over few channels on the CPU take the fast way backwards.

    The values of the convolution are the library's own; its gradient differs by rounding. Convolutions that are not of
    this kind, and code that is compiled or scripted, are left alone.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func is torch.conv2d and not kwargs and _fits(*args):
            defaults = (None, (1, 1), (0, 0))
            return _FewChannels.apply(*args[:5], *defaults[len(args[:5]) - 2 :])
        result = func(*args, **(kwargs or {}))
        if func in _POOLING and _is_in_order(result):
            result.register_hook(_in_order)
        return result


def _is_in_order(pooled: Any) -> bool:
    """Whether this is a batch of images in channels-last order that a gradient will flow back through."""
    return (
        isinstance(pooled, Tensor)
        and pooled.requires_grad
        and pooled.dim() == 4
        and pooled.is_contiguous(memory_format=torch.channels_last)
    )


def _in_order(gradient: Tensor) -> Tensor:
    """A gradient that a flattened layer left in another order: pooling would copy everything twice to match it."""
    return gradient.contiguous(memory_format=torch.channels_last)


def _fits(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = (1, 1),
    padding: Any = (0, 0),
    dilation: Any = (1, 1),
    groups: int = 1,
) -> bool:
    """Whether `_FewChannels` does what was asked; sizes as `nn.Conv2d` gives them, in pairs."""
    return (
        weight.shape[1] <= _FEW
        and groups == 1
        and x.dim() == 4
        and x.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and x.requires_grad
        and not weight.requires_grad
        and (bias is None or not bias.requires_grad)
        and all(isinstance(pair, tuple) and len(pair) == 2 for pair in (stride, padding, dilation))
        and tuple(dilation) == (1, 1)
    )
