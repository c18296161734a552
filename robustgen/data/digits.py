"""The small set of handwritten digits that ships with scikit-learn: enough to try everything without a download."""

from __future__ import annotations

import hashlib

import numpy as np

from robustgen.data.array_source import ArraySource, image_source
from robustgen.data.source import split_rows


def digits() -> ArraySource:
    """1,797 digits of 8x8 in 17 greys (0 to 16, here divided by 16), split 60 / 20 / 20 %.

    Source: E. Alpaydin, C. Kaynak, "Optical Recognition of Handwritten Digits", UCI, 1998 (the test part of it).
    """
    from sklearn.datasets import load_digits

    data = load_digits()
    x = (data.images / 16).astype(np.float32)
    y = data.target.astype(np.int64)
    splits = split_rows(len(x), {"train": 0.6, "calibration": 0.2, "test": 0.2})
    sha256 = hashlib.sha256(x.tobytes() + y.tobytes()).hexdigest()
    return image_source("digits", [x], y, splits, tuple("0123456789"), sha256)
