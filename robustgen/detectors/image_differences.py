"""How images differ: structural similarity, gradients, edges."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, conv2d, pad


def dissimilarity(x: Tensor, back: Tensor) -> Tensor:
    """(n, c, h', w'): 1 - SSIM of each window of 7 x 7 (or what the image holds), for values in [0, 1]."""
    side = min(7, *x.shape[2:])
    mean_x, mean_back = avg_pool2d(x, side, 1), avg_pool2d(back, side, 1)
    variance_x = avg_pool2d(x * x, side, 1) - mean_x * mean_x
    variance_back = avg_pool2d(back * back, side, 1) - mean_back * mean_back
    covariance = avg_pool2d(x * back, side, 1) - mean_x * mean_back
    brightness = (2 * mean_x * mean_back + 1e-4) / (mean_x * mean_x + mean_back * mean_back + 1e-4)
    structure = (2 * covariance + 9e-4) / (variance_x + variance_back + 9e-4)
    return 1 - brightness * structure


def gradient_dissimilarity(x: Tensor, back: Tensor) -> Tensor:
    """(n, c, h, w): 1 - the gradient magnitude similarity at each place, by Prewitt's filters, for values in [0, 1].

    (2 a b + c) / (a^2 + b^2 + c) with c = 0.0026, the authors' 170 for values up to 255.
    """
    a, b = _slope(x), _slope(back)
    return 1 - (2 * a * b + 0.0026) / (a * a + b * b + 0.0026)


def _slope(x: Tensor) -> Tensor:
    across = x.new_tensor([[1.0, 0.0, -1.0]] * 3) / 3
    filters = torch.stack([across, across.T])[:, None]
    n, c, h, w = x.shape
    slopes = conv2d(pad(x.reshape(n * c, 1, h, w), (1, 1, 1, 1), mode="replicate"), filters)
    return (slopes.square().sum(1) + 1e-8).sqrt().reshape(n, c, h, w)


def half(x: Tensor) -> Tensor:
    return avg_pool2d(x, 2, ceil_mode=True)


def edges(x: Tensor) -> Tensor:
    """(n, places): the square roots of the gradients' lengths, channels averaged, of images of about 16 x 16."""
    factor = max(1, -(-max(x.shape[2:]) // 16))
    small = avg_pool2d(x, factor, ceil_mode=True) if factor > 1 else x
    return _slope(small).mean(1).flatten(1).sqrt()


def spread_over(windows: Tensor, height: int, width: int) -> Tensor:
    """(n, c, height, width): for each pixel, the sum over the windows (n, c, h', w') that hold it."""
    side_h, side_w = height - windows.shape[2] + 1, width - windows.shape[3] + 1
    padded = pad(windows, (side_w - 1, side_w - 1, side_h - 1, side_h - 1))
    return avg_pool2d(padded, (side_h, side_w), 1) * (side_h * side_w)
