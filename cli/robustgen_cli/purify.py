"""`--purify` of `robustgen attack`: the classifier behind a detector that rebuilds its inputs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from robustgen.errors import UsageError

if TYPE_CHECKING:
    from robustgen.guard.purified import Purified
    from robustgen.models.load import LoadedModel

Purify = Annotated[
    Path | None,
    typer.Option(
        "--purify",
        metavar="DETECTOR",
        help="Attack the classifier and this detector together: it rebuilds each input before the classifier sees it. "
        "A directory made by 'robustgen fit' with an autoencoder, vae, magnet, pca, cycle-gan or the like.",
        show_default=False,
    ),
]
Oblivious = Annotated[
    bool | None,
    typer.Option(
        "--purify-oblivious/--no-purify-oblivious",
        help="With --purify: run the attack on the bare classifier too, and judge that by both.",
        show_default="on",
    ),
]


def check_purify(purify: Path | None, oblivious: bool | None) -> None:
    """Raise `UsageError` for an option that would say nothing."""
    if purify is None and oblivious is not None:
        raise UsageError("--purify-oblivious came without --purify, whose option it is: give --purify too")


def load_purified(purify: Path | None, model: LoadedModel) -> tuple[LoadedModel, Purified | None, str | None]:
    """The model, its purified form if one is asked for, and the purifier's hash. A model that does not know its data is
    taken for one of the purifier's.
    """
    from robustgen.artifacts import read_artifact
    from robustgen.detectors.calibrated import CalibratedDetector
    from robustgen.guard.purified import Purified

    if purify is None:
        return model, None, None
    artifact = read_artifact(purify, "detector")
    beside = artifact.config.get("model")
    unknown = beside is not None and beside.get("rebuild") is None  # the user's own code is not stored with it
    detector = CalibratedDetector.load(purify, model if unknown else None)
    return replace(model, spec=model.spec or detector.spec), Purified(model.network, detector), artifact.sha256


def oblivious_rows(found: dict[str, Any] | None) -> list[tuple[str, str, str]]:
    """Rows of the table, of `Oblivious.to_json()`."""
    if found is None:
        return []
    names = {
        "clean": "bare classifier: clean accuracy",
        "robust": "bare classifier: robust accuracy",
        "purified_robust": "purified, attacked without knowing it",
    }
    return [
        (label, f"{found[name]['value']:.2%}", f"{found[name]['low']:.2%} to {found[name]['high']:.2%}")
        for name, label in names.items()
    ]
