"""The model that a command line names."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from robustgen.errors import UsageError
from robustgen_cli.options import Numbers
from robustgen_cli.output import working

if TYPE_CHECKING:
    from robustgen.evaluation.detection import Judge
    from robustgen.models.load import LoadedModel


def load_named(model: str, weights: Path | None, mean: Numbers | None, std: Numbers | None, trust: bool) -> LoadedModel:
    """`--model`, `--weights`, `--mean`, `--std` and `--trust` as a loaded model."""
    from robustgen.models.load import load_model

    with working():
        return load_model(model, weights=weights, mean=mean, std=std, trust=trust)


def load_optional(
    model: str | None,
    weights: Path | None,
    mean: Numbers | None,
    std: Numbers | None,
    trust: bool,
    layer: str | None = None,
) -> LoadedModel | None:
    """The same where a model need not be given. Raises `UsageError` for options that would then say nothing."""
    if model is not None:
        return load_named(model, weights, mean, std, trust)
    given = {"--weights": weights, "--mean": mean, "--std": std, "--trust": trust or None, "--layer": layer}
    idle = [name for name, value in given.items() if value is not None]
    if idle:
        raise UsageError(f"{' and '.join(idle)} came without --model, whose options they are: give --model too")
    return None


def load_judge(path: Path, model: LoadedModel | None, kind: str | None = None) -> Judge:
    """The detector or guard saved at `path`; `kind`: which of them it has to be, None = either."""
    from robustgen.artifacts import read_artifact
    from robustgen.detectors.calibrated import CalibratedDetector
    from robustgen.guard import Guard

    found = read_artifact(path, kind).kind
    return Guard.load(path, model) if found == "guard" else CalibratedDetector.load(path, model)
