"""The guard that is made where no detectors are named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch

from robustgen.artifacts import is_artifact, staged
from robustgen.data.source import DataSpec, Source
from robustgen.detectors.calibrated import CalibratedDetector
from robustgen.detectors.making import accepts
from robustgen.models.load import LoadedModel

PERTURBED, ADVERSARIAL = "perturbed", "adversarial"
"""The channels: changed as no normal input is, and meant to be taken for another class."""

SHARES = {PERTURBED: 0.3, ADVERSARIAL: 0.7}
"""Of the false alarms. Attackers who know the detector are stopped by the second channel alone. Of those who do not,
equal shares would find more FGSM of .05 (.959 instead of .943) and DDN (.951, .943), as much PGD of .05 (.983) and less
Auto-PGD in L2 (.914, .925; calibration images of Fashion-MNIST, means of two classifiers)."""

_SEVERAL = 3
"""Discriminators trained against attackers in the guard of the preset "best"."""


class Wanted(NamedTuple):
    """A detector to be fitted: its name, its options, its share of the whole time."""

    name: str
    options: dict[str, Any]
    share: float


def members(spec: DataSpec, preset: str = "default", seed: int = 0) -> dict[str, list[Wanted]]:
    """The detectors of the default guard by channel, with `preset` and `seed` as options of those that have them.

    What changes inputs at all is looked for by members that fail on different attacks: what the classifier says of an
    input and of its reconstruction (middle-sized changes), its margin (those that are just large enough), what it says
    of the input in fewer levels (small ones), and directions in which normal inputs do not vary (large ones). What is
    meant to be taken for another class is left to a discriminator trained against attackers, alone, as a sum with
    others would dilute it; with the preset "best" to three of them that differ in their seeds, since one that is
    trained three times as long holds less (see `GATDetector`).
    """
    trained = [("gat", {"seed": seed + number}, 20.0) for number in range(_SEVERAL if preset == "best" else 1)]
    chosen: dict[str, list[tuple[str, dict[str, Any], float]]] = {
        PERTURBED: _perturbed(spec),
        ADVERSARIAL: trained,
    }
    return {
        channel: [Wanted(name, _common(name, preset, seed) | options, share) for name, options, share in entries]
        for channel, entries in chosen.items()
    }


def _perturbed(spec: DataSpec) -> list[tuple[str, dict[str, Any], float]]:
    bits = ("feature-squeezing", {"squeezers": "bits:3"}, 0.1)
    return [("magnet", {}, 1.0), ("margin", {}, 0.1), bits, ("pca", {"scores": "tail"}, 0.1)]


def _common(name: str, preset: str, seed: int) -> dict[str, Any]:
    given = {"preset": preset, "seed": seed}
    return {option: value for option, value in given.items() if accepts(name, option)}


def fit_members(
    wanted: dict[str, list[Wanted]],
    model: LoadedModel,
    source: Source,
    *,
    folder: Path,
    device: torch.device,
    fpr: float = 0.05,
    told: Callable[[str, float], None] = lambda what, share: None,
) -> dict[str, list[CalibratedDetector]]:
    """Fit the members, each kept in `folder` once it is whole, where a run that was killed finds it again.

    `told` is called with what is going on and the share of all that is done.
    """
    total, done = sum(one.share for part in wanted.values() for one in part), 0.0
    grouped: dict[str, list[CalibratedDetector]] = {}
    folder.mkdir(exist_ok=True)
    for channel, part in wanted.items():
        for number, one in enumerate(part):
            place = folder / f"{channel}.{number}.{one.name}"
            told(f"fitting {one.name}", done / total)
            if not is_artifact(place):
                fitted = CalibratedDetector.fit(
                    one.name,
                    source,
                    fpr=fpr,
                    options=one.options,
                    model=model if needs_model(one.name) else None,
                    device=device,
                    checkpoint=folder.parent / f"{place.name}.checkpoint.pt",
                    progress=_within(told, f"fitting {one.name}", done / total, one.share / total),
                )
                with staged(place) as directory:
                    fitted.save(directory)
                (folder.parent / f"{place.name}.checkpoint.pt").unlink(missing_ok=True)
            stored = CalibratedDetector.load(place, model if needs_model(one.name) else None).to(device)
            grouped.setdefault(channel, []).append(stored)
            done += one.share
    return grouped


def _within(
    told: Callable[[str, float], None], what: str, start: float, share: float
) -> Callable[[int, int, float], None]:
    return lambda now, of, loss: told(f"{what}: epoch {now}/{of}, loss {loss:.4g}", start + share * now / max(1, of))


def needs_model(name: str) -> bool:
    """Whether detector `name` judges inputs by what a classifier says of them."""
    from robustgen.detectors.making import kind_of
    from robustgen.detectors.through import Watcher

    kind = kind_of(name)
    return kind.conditional or issubclass(kind, Watcher)
