"""Rate and distortion of a detector's code on a set of inputs: everything that `robustgen reconstruct` writes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from robustgen.data.source import DataSpec, Indices, Source
from robustgen.detectors.calibrated import CalibratedDetector
from robustgen.detectors.codes import as_codec
from robustgen.errors import DataError, UsageError
from robustgen.evaluation.compression import PRECISIONS, Loss, Quantiser, compress, decoded, lossless, psnr, unit
from robustgen.runtime import versions


@dataclass(frozen=True)
class RateDistortion:
    """n inputs `x` (n, *shape), their codes (n, k), and `back` (n, *shape), what is left at the most bits.

    `files`: bits of each input without loss, by form. `losses`: one for each precision, fewest bits first.
    """

    detector: str
    spec: DataSpec
    x: Tensor
    code: Tensor
    back: Tensor
    index: NDArray[np.int64]
    files: dict[str, NDArray[np.int64]]
    losses: tuple[Loss, ...]

    @property
    def pictures(self) -> bool:
        """Whether the inputs can be shown: grey or RGB images."""
        return self.spec.kind == "image" and self.spec.shape[0] in (1, 3)

    def summary(self) -> dict[str, Any]:
        """Means over the inputs, as plain values for JSON. PSNR is that of the mean squared error."""
        return {
            "detector": self.detector,
            "data": self.spec.name,
            "data_sha256": self.spec.sha256,
            "n": len(self.x),
            "width": self.code.shape[1],
            "lossless": {name: float(bits.mean()) for name, bits in self.files.items()},
            "precisions": [
                {
                    "bits": loss.bits,
                    "rate": loss.rate,
                    "deflated": loss.deflated,
                    "mse": float(loss.mse.mean()),
                    "psnr": psnr(float(loss.mse.mean())),
                    "ssim": None if loss.ssim is None else float(loss.ssim.mean()),
                }
                for loss in self.losses
            ],
            "versions": versions(),
        }


def rate_distortion(
    detector: CalibratedDetector,
    source: Source,
    rows: Indices,
    bits: Sequence[int],
    batch_size: int = 500,
    progress: Callable[[float], object] = lambda done: None,
) -> RateDistortion:
    """Compress the readable inputs of `rows` at each number of `bits` a code value.

    The inputs are held in memory. Raises `UsageError` for a detector without a code or a precision that there is not,
    `DataError` if nothing could be read.
    """
    codec = as_codec(detector.codes().detector, detector.name)
    chosen = sorted(set(bits))
    if not chosen or set(chosen) - set(PRECISIONS):
        raise UsageError(f"a code value takes 1 to 16 bits, or 32 (as it is), but {list(bits)} came")
    xs: list[Tensor] = []
    codes: list[Tensor] = []
    index: list[Tensor] = []
    for start in range(0, len(rows), batch_size):
        batch = source.read(rows[start : start + batch_size])
        if len(batch):
            x = batch.x.to(detector.device)
            with torch.no_grad():
                codes.append(codec.encode(x))
            xs.append(x)
            index.append(batch.index)
        progress(len(rows[start : start + batch_size]))
    if not xs:
        raise DataError("none of the inputs could be read: give others")
    x, code = torch.cat(xs), torch.cat(codes)
    best = Quantiser.of(code, chosen[-1])
    back = torch.cat([decoded(codec, best, part) for part in code.split(batch_size)])
    return RateDistortion(
        detector.name,
        source.spec,
        x.cpu(),
        code.cpu(),
        back.cpu(),
        torch.cat(index).numpy(),
        lossless(x, source.spec),
        tuple(compress(codec, x, code, each, source.spec, batch_size) for each in chosen),
    )


def write_arrays(directory: Path, found: RateDistortion) -> None:
    """`codes.npz` (the levels at the most bits, with the ends of their ranges), `reconstructions.npz` (x, what they
    lead back to, cut off at the legal range of images) and `samples.npz` (per input: bits and errors at each
    precision).
    """
    best = Quantiser.of(found.code, found.losses[-1].bits)
    levels = best.levels(found.code).numpy()
    if best.bits < 32:
        levels = levels.astype(np.uint8 if best.bits <= 8 else np.uint16)
    back = found.back.clamp(found.spec.low, found.spec.high) if found.spec.kind == "image" else found.back
    samples: dict[str, Any] = {"index": found.index, **{f"{name}_bits": bits for name, bits in found.files.items()}}
    for loss in found.losses:
        samples[f"mse_{loss.bits}"] = loss.mse
        if loss.ssim is not None:
            samples[f"ssim_{loss.bits}"] = loss.ssim
    np.savez_compressed(
        directory / "codes.npz", levels=levels, low=best.low.numpy(), high=best.high.numpy(), index=found.index
    )
    np.savez_compressed(directory / "reconstructions.npz", x=back.numpy(), index=found.index)
    np.savez_compressed(directory / "samples.npz", **samples)


def telling(found: RateDistortion, each: int = 3) -> dict[str, NDArray[np.int64]]:
    """Rows to look at, by what they are: `each` of the smallest, the middling and the largest errors; all if few."""
    order = np.argsort(found.losses[-1].mse, kind="stable")
    if len(order) < 3 * each:
        return {"all inputs": order[: 3 * each]}
    middle = (len(order) - each) // 2
    return {
        "smallest error": order[:each],
        "middling": order[middle : middle + each],
        "largest error": order[len(order) - each :],
    }


def shown(found: RateDistortion, rows: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
    """(inputs, reconstructions) of `rows`, in [0, 1], cut off there."""
    return tuple(unit(values[torch.from_numpy(rows)], found.spec).clamp(0, 1) for values in (found.x, found.back))  # type: ignore[return-value]
