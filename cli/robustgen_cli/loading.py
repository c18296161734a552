"""The model that a command line names."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from robustgen_cli.options import numbers

if TYPE_CHECKING:
    from robustgen.models.load import LoadedModel


def load_named(model: str, weights: Path | None, mean: str | None, std: str | None, trust: bool) -> LoadedModel:
    """`--model`, `--weights`, `--mean`, `--std` and `--trust` as a loaded model."""
    from robustgen.models.load import load_model

    return load_model(
        model, weights=weights, mean=numbers(mean) if mean else None, std=numbers(std) if std else None, trust=trust
    )
