"""What Livernoche et al. 2024 publish for kNN and LOF: AUROC in percent, table 1 of their repository vicliv/DTE.

Only sets of at least 1,000 rows: the others they draw to 1,000 with replacement, from generators whose state is not
published with the table.
"""

from __future__ import annotations

PUBLISHED: dict[str, tuple[float, float]] = {
    "annthyroid": (92.81, 88.63),
    "cardio": (92.0, 92.21),
    "fault": (58.73, 47.42),
    "letter": (35.43, 44.83),
    "mammography": (87.58, 85.52),
    "musk": (100.0, 100.0),
    "optdigits": (93.72, 96.65),
    "PageBlocks": (89.65, 91.3),
    "pendigits": (99.87, 99.05),
    "satellite": (82.24, 80.3),
    "satimage-2": (99.71, 99.38),
    "shuttle": (99.91, 99.98),
    "thyroid": (98.68, 92.72),
    "vowels": (82.21, 86.3),
    "Waveform": (75.21, 76.0),
    "yeast": (44.74, 45.79),
}
"""Set -> (kNN, LOF), as ADBench names the sets."""

KNN, LOF = "knn:method=largest:bank=100000", "lof:bank=100000"
"""Ours, as they ran PyOD's: the distance to the fifth neighbour; 20 neighbours."""
