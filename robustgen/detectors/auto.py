"""Which detector to take where none is named."""

from __future__ import annotations

AUTO = "auto"
AUTO_HELP = "fusion for tables and features, autoencoder for images"


def choice(shape: tuple[int, ...]) -> str:
    """The detector for inputs of `shape`: what did best over the benchmarks of tables (vectors) and of images."""
    return "fusion" if len(shape) == 1 else "autoencoder"
