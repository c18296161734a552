"""A picture of an attack's successes, for its results directory."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from robustgen.data.source import Source
from robustgen.report.strips import adversarial_strip


def save_examples(directory: Path, source: Source, most: int = 8) -> Path | None:
    """Write `examples.png` into a run's `directory`: the first successes of its first block, clean, adversarial,
    difference.

    Returns its path, or None when there is nothing to show: no success, or inputs that are not grey or RGB images.
    """
    if source.spec.kind != "image" or source.spec.shape[0] not in (1, 3):
        return None
    with np.load(min(directory.glob("block-*.npz")), allow_pickle=False) as block:
        rows = np.flatnonzero(block["success"])[:most]
        if not len(rows):
            return None
        clean = source.read(block["index"][rows]).x
        y, before, after = (block[key][rows] for key in ("y", "clean_prediction", "prediction"))
        figure = adversarial_strip(clean, block["x_adv"][rows], y, before, after, names=source.spec.classes or None)
    path = directory / "examples.png"
    figure.savefig(path, dpi=150)
    return path
