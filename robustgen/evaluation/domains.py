"""The second domain that a command names: other data, or what an attack makes of the data."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from typing import cast

import numpy as np

from robustgen.attacks import ATTACKS
from robustgen.attacks.build import kind_of, make
from robustgen.data.array_source import ArraySource
from robustgen.data.domains import DomainSource, two_domains
from robustgen.data.load import load
from robustgen.data.source import Source
from robustgen.detectors.base import Detector
from robustgen.errors import UsageError
from robustgen.evaluation.quantise import check_box, quantise
from robustgen.models.load import LoadedModel
from robustgen.objectives import Model
from robustgen.registry import suggestion
from robustgen.threat import Norm, ThreatModel

PREFIX = "attack:"
MOST = 6000
"""Training inputs that are attacked, evenly spread."""


def check_other(detector: Detector, name: str, other: str | None) -> None:
    """Raise `UsageError` unless there is a second domain for a detector of two domains, and for no other."""
    if detector.labelled and other is None:
        raise UsageError(
            f"{name} learns from two domains: name the second with --other, such as --other usps or --other "
            "attack:pgd:0.1"
        )
    if other is not None and not detector.labelled:
        raise UsageError(f"{name} learns from normal inputs alone: leave out --other (it is for cycle-gan)")


def with_other(
    source: Source, other: str, model: LoadedModel | None, seed: int, progress: Callable[[float], None]
) -> DomainSource:
    """`source` and a second domain for its training split: `other` names data, or an attack on `model`,
    attack:NAME:EPS or attack:NAME:EPS:NORM.

    Raises `UsageError` for what is neither, or an attack without a model.
    """
    if not other.startswith(PREFIX):
        return two_domains(source, load(other))
    if model is None:
        raise UsageError(f"--other {other} attacks a classifier: give it with --model")
    return two_domains(source, adversarial(source, model.network, _threat(other, source), seed, progress, model.sha256))


def adversarial(
    source: Source,
    network: Model,
    attack: tuple[str, ThreatModel],
    seed: int = 0,
    progress: Callable[[float], None] = lambda done: None,
    identity: str = "",
) -> ArraySource:
    """What the attack (name, threat) makes of labelled training inputs, at most `MOST` of them, each value at one of
    256 levels as in an image file; all of the training split.
    """
    name, threat = attack
    check_box(threat)
    made = make(name, threat, {"seed": seed})
    parts = []
    for rows in np.array_split(source.spread("train", MOST), max(1, -(-min(MOST, len(source.rows("train"))) // 500))):
        batch = source.read(rows)
        if batch.y is None:
            raise UsageError(f"an attack needs labels, but {source.spec.name!r} has none")
        x_adv = quantise(threat, made(network, batch.x, batch.y), batch.x)
        parts.append(((x_adv - threat.low) / (threat.high - threat.low) * 255).round().byte().numpy())
        progress(len(batch))
    said = f"{name}:{threat.eps:g}:{threat.norm}"
    sha256 = hashlib.sha256(f"{source.spec.sha256} {identity} {said} {seed}".encode()).hexdigest()
    spec = replace(source.spec, name=said, classes=(), sha256=sha256)
    nothing = np.empty(0, np.int64)
    splits = {"train": np.arange(sum(map(len, parts)), dtype=np.int64), "calibration": nothing, "test": nothing}
    return ArraySource(spec, splits, parts, None)


def _threat(other: str, source: Source) -> tuple[str, ThreatModel]:
    parts = other.removeprefix(PREFIX).split(":")
    hint = "write it as attack:pgd:0.1, attack:pgd:8/255 or attack:apgd-ce:1.5:l2"
    if not 2 <= len(parts) <= 3:
        raise UsageError(f"--other {other} does not name an attack and the size of its change: {hint}")
    name, eps = parts[0], parts[1].partition("/")
    if name not in ATTACKS:
        raise UsageError(suggestion(name, ATTACKS, "attack"))
    try:
        size = float(eps[0]) / (float(eps[2]) if eps[1] else 1.0)
    except (ValueError, ZeroDivisionError) as error:
        raise UsageError(f"--other {other}: {parts[1]!r} is not a number: {hint}") from error
    norm = parts[2] if len(parts) == 3 else kind_of(name).norms[0]
    return name, ThreatModel(cast(Norm, norm), size, source.spec.low, source.spec.high)
