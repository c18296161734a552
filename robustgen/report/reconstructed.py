"""Pictures of what a code leaves of inputs."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from robustgen.evaluation.compression import psnr
from robustgen.evaluation.rate import RateDistortion, shown, telling
from robustgen.report.strips import reconstruction_maps


def reconstructed_strip(found: RateDistortion) -> Figure:
    """Inputs over their reconstructions at the most bits over the error, from those that came back best to the worst;
    under each its PSNR.
    """
    groups = telling(found)
    rows = np.concatenate(list(groups.values()))
    before, after = shown(found, rows)
    return reconstruction_maps(
        before,
        after,
        (before - after).abs().mean(1),
        [title for title, members in groups.items() for _ in members],
        [f"{psnr(float(found.losses[-1].mse[row])):.1f} dB" for row in rows],
    )
