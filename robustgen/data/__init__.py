"""Where inputs come from. `DATA` lists the built-in sets; `robustgen.data.load.load` opens those and the user's own
files."""

from __future__ import annotations

from robustgen.registry import Entry

DATA: dict[str, Entry] = {
    "digits": Entry(
        "robustgen.data.digits:digits", "handwritten digits, 1x8x8, 10 classes, 1,797 images, ships with scikit-learn"
    ),
    "mnist": Entry(
        "robustgen.data.published:mnist",
        "handwritten digits, 1x28x28, 10 classes, 60,000 + 10,000 images, downloads 11 MB",
    ),
    "fashion-mnist": Entry(
        "robustgen.data.published:fashion_mnist",
        "clothes, 1x28x28, 10 classes, 60,000 + 10,000 images, downloads 30 MB",
    ),
    "kmnist": Entry(
        "robustgen.data.published:kmnist",
        "cursive Japanese characters, 1x28x28, 10 classes, 60,000 + 10,000 images, downloads 21 MB",
    ),
    "cifar10": Entry(
        "robustgen.data.published:cifar10",
        "photographs of objects, 3x32x32, 10 classes, 50,000 + 10,000 images, downloads 170 MB",
    ),
    "cifar100": Entry(
        "robustgen.data.published:cifar100",
        "photographs of objects, 3x32x32, 100 classes, 50,000 + 10,000 images, downloads 169 MB",
    ),
    "svhn": Entry(
        "robustgen.data.published:svhn", "house numbers, 3x32x32, 10 classes, 73,257 + 26,032 images, downloads 246 MB"
    ),
    "usps": Entry(
        "robustgen.data.published:usps",
        "handwritten digits from letters, 1x16x16, 10 classes, 7,291 + 2,007 images, downloads 8 MB",
    ),
}
