"""A code as lossy compression: how many bits it takes at a stated precision, and how far off it leads back.

Bits are those of one input, on average where the inputs are packed together. Pixels count as 8 bits a channel, other
values as 32.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from robustgen.data.source import DataSpec
from robustgen.detectors.codes import Codec
from robustgen.detectors.image_differences import dissimilarity
from robustgen.errors import UsageError
from robustgen.metrics import Array

PRECISIONS = (*range(1, 17), 32)


@dataclass(frozen=True)
class Quantiser:
    """`2**bits` evenly spaced values for each of k code values; 32 bits keep them as they are.

    `low`, `high`: (k,) the ends of the range, float32. They are stored once for all inputs, 64 bits a code value.
    """

    bits: int
    low: Float[Tensor, " k"]
    high: Float[Tensor, " k"]

    @classmethod
    def of(cls, codes: Float[Tensor, "n k"], bits: int) -> Quantiser:
        """For the range of `codes`. Raises `UsageError` for a precision that there is not."""
        if bits not in PRECISIONS:
            raise UsageError(f"a code value takes 1 to 16 bits, or 32 (as it is), but {bits} came")
        return cls(bits, codes.amin(0), codes.amax(0))

    def levels(self, codes: Float[Tensor, "n k"]) -> Tensor:
        """The number of each value's level, (n, k) int32; the codes themselves at 32 bits."""
        if self.bits == 32:
            return codes
        span = torch.where(self.high > self.low, self.high - self.low, 1)
        return ((codes - self.low) / span * self._most).round().clamp(0, self._most).to(torch.int32)

    def values(self, levels: Tensor) -> Float[Tensor, "n k"]:
        """What the levels stand for: half a step off at most."""
        if self.bits == 32:
            return levels
        return self.low + levels.to(self.low.dtype) / self._most * (self.high - self.low)

    @property
    def _most(self) -> int:
        return int(2**self.bits - 1)

    def packed(self, levels: Tensor) -> bytes:
        """The levels without gaps between their bits, value by value: code value 1 of all inputs, then 2, ..."""
        array = levels.T.contiguous().cpu().numpy()
        if self.bits == 32:
            return array.astype("<f4").tobytes()
        bits = (array[..., None] >> np.arange(self.bits - 1, -1, -1)) & 1
        return np.packbits(bits.astype(np.uint8)).tobytes()


@dataclass(frozen=True)
class Loss:
    """What one precision leaves of n inputs, and what it costs: everything per input, (n,).

    `ssim` is None for inputs that are not images. `bits`: of a code value. `rate`: bits an input, packed, with its
    share of the ranges. `deflated`: the same after zlib went over all codes together.
    """

    bits: int
    rate: float
    deflated: float
    mse: Array
    ssim: Array | None

    @property
    def psnr(self) -> float:
        """Of the mean squared error over all inputs, in dB, for values in [0, 1]; infinite without error."""
        return psnr(float(self.mse.mean()))


def psnr(mse: float) -> float:
    """10 log10(1 / mse), in dB, for values in [0, 1]."""
    return float(-10 * np.log10(mse)) if mse > 0 else float("inf")


def lossless(x: Float[Tensor, "n *shape"], spec: DataSpec) -> dict[str, NDArray[np.int64]]:
    """Bits of each input as it is (`raw`), by zlib at its highest level, and as PNG where it is a grey or RGB image."""
    values = unit(x, spec).cpu().numpy()
    images = spec.kind == "image"
    whole = np.rint(values * 255).clip(0, 255).astype(np.uint8) if images else values.astype(np.float32)
    found: dict[str, Any] = {
        "raw": [8 * one.nbytes for one in whole],
        "zlib": [8 * len(zlib.compress(one.tobytes(), 9)) for one in whole],
    }
    if images and spec.shape[0] in (1, 3):
        found["png"] = [8 * len(_png(one)) for one in whole]
    return {name: np.array(bits, dtype=np.int64) for name, bits in found.items()}


def _png(pixels: NDArray[np.uint8]) -> bytes:
    from PIL import Image

    buffer = BytesIO()
    Image.fromarray(pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0)).save(buffer, "png", optimize=True)
    return buffer.getvalue()


def unit(x: Tensor, spec: DataSpec) -> Tensor:
    """Inputs with the legal range [low, high] brought to [0, 1]."""
    return (x - spec.low) / (spec.high - spec.low)


def decoded(codec: Codec, quantiser: Quantiser, code: Float[Tensor, "n k"]) -> Float[Tensor, "n *shape"]:
    """What is left of inputs after their `code` went through the quantiser, without gradients."""
    with torch.no_grad():
        return codec.decode(quantiser.values(quantiser.levels(code)))


def distortion(
    x: Float[Tensor, "n *shape"], back: Float[Tensor, "n *shape"], spec: DataSpec
) -> tuple[Array, Array | None]:
    """(mean squared error, structural similarity over windows of 7 x 7 or None) of each input, for values in [0, 1].

    What is decoded is cut off at the legal range of images first, as any viewer would.
    """
    before, after = unit(x, spec), unit(back, spec)
    images = spec.kind == "image"
    if images:
        after = after.clamp(0, 1)
    mse = (before - after).double().square().flatten(1).mean(1).cpu().numpy()
    if not images:
        return mse, None
    return mse, (1 - dissimilarity(before, after).flatten(1).mean(1)).double().cpu().numpy()


def compress(codec: Codec, x: Tensor, code: Tensor, bits: int, spec: DataSpec, batch_size: int = 500) -> Loss:
    """What `bits` a code value leave of inputs `x` (n, *shape) with the codes `code` (n, k)."""
    quantiser = Quantiser.of(code, bits)
    parts = [
        distortion(inputs, decoded(codec, quantiser, codes), spec)
        for inputs, codes in zip(x.split(batch_size), code.split(batch_size), strict=True)
    ]
    side = 0 if bits == 32 else 64 * code.shape[1]
    packed = quantiser.packed(quantiser.levels(code))
    return Loss(
        bits,
        (side + bits * code.numel()) / len(code),
        (side + 8 * len(zlib.compress(packed, 9))) / len(code),
        np.concatenate([mse for mse, _ in parts]),
        np.concatenate([ssim for _, ssim in parts if ssim is not None]) if spec.kind == "image" else None,
    )
