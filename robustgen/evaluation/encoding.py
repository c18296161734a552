"""The codes of many inputs at once, with what is known of each input beside them."""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from robustgen.data.source import Indices, Source
from robustgen.detectors.calibrated import CalibratedDetector
from robustgen.errors import DataError
from robustgen.evaluation.detection import harmless
from robustgen.metrics import Array


@dataclass(frozen=True)
class Encoded:
    """n inputs: their `code` (n, k) on the CPU, row number in the source, class (None without labels) and score."""

    code: Float[Tensor, "n k"]
    index: Int64[Tensor, " n"]
    y: Int64[Tensor, " n"] | None
    score: Array


def encode(
    detector: CalibratedDetector,
    source: Source,
    rows: Indices | None = None,
    batch_size: int = 500,
    progress: Callable[[float], object] = lambda done: None,
) -> Encoded:
    """Encode and score the readable inputs of `rows`, by default all test rows. Raises `UsageError` for a detector
    without a code, `DataError` if nothing could be read.
    """
    codes = detector.codes()
    rows = source.rows("test") if rows is None else rows
    parts: list[tuple[Tensor, Tensor, Tensor | None, Array]] = []
    for start in range(0, len(rows), batch_size):
        batch = source.read(rows[start : start + batch_size])
        if len(batch):
            with torch.no_grad():
                code = codes(batch.x.to(detector.device)).cpu()
            parts.append((code, batch.index, batch.y, detector.judge(batch.x).score))
        progress(len(rows[start : start + batch_size]))
    if not parts:
        raise DataError("none of the inputs could be read: give others")
    labels = [y for _, _, y, _ in parts if y is not None]
    return Encoded(
        torch.cat([code for code, _, _, _ in parts]),
        torch.cat([index for _, index, _, _ in parts]),
        torch.cat(labels) if labels else None,
        np.concatenate([score for _, _, _, score in parts]),
    )


def write_codes(path: Path, found: Encoded, source: Source, form: str) -> None:
    """As `npz`: x (n, k), index, input (names), score, and y and classes where there are labels; `--data` takes it.

    As `csv`: input, label (where there are some), score, code_0, code_1, ... In CSV a name that a spreadsheet would run
    as a formula is given a leading apostrophe.
    """
    names = [source.label(row) for row in found.index.tolist()]
    classes = source.spec.classes
    if form == "npz":
        arrays: dict[str, Any] = {"x": found.code.numpy(), "index": found.index.numpy(), "score": found.score}
        arrays["input"] = np.array([name.encode(errors="backslashreplace").decode() for name in names])
        if found.y is not None:
            arrays |= {"y": found.y.numpy(), "classes": np.array(classes)}
        with path.open("wb") as file:
            np.savez_compressed(file, **arrays)
        return
    with path.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file:
        writer = csv.writer(file)
        head = ["input", *([] if found.y is None else ["label"]), "score"]
        writer.writerow([*head, *(f"code_{place}" for place in range(found.code.shape[1]))])
        for row, name in enumerate(names):
            label = [] if found.y is None else [harmless(classes[int(found.y[row])] if classes else "")]
            values = [repr(value) for value in (float(found.score[row]), *found.code[row].tolist())]
            writer.writerow([harmless(name), *label, *values])
