"""Which inputs a model is to be tried on, and what an attacker may do to them."""

from __future__ import annotations

import math
from typing import cast, get_args

from robustgen.data import DATA
from robustgen.data.load import load
from robustgen.data.source import DataSpec, Source, Split
from robustgen.errors import UsageError
from robustgen.models.load import LoadedModel
from robustgen.registry import suggestion
from robustgen.threat import Norm, ThreatModel


def data_for(
    data: str, model: LoadedModel, split: str = "auto", size: tuple[int, int] | None = None
) -> tuple[Source, Split]:
    """The data and the split to attack `model` on.

    `auto`: the test split of data that the model was (or, for a public set, may have been) trained on; every input of
    data that it has never seen. Raises `UsageError` for an unknown split.
    """
    splits = (*get_args(Split), "auto")
    if split not in splits:
        raise UsageError(suggestion(split, splits, "split"))
    source = load(data, size=size)
    if split != "auto":
        return source, cast(Split, split)
    if source.spec.name in DATA or (model.spec is not None and model.spec.sha256 == source.spec.sha256):
        return source, "test"
    return (source if model.spec is None or size is not None else load(data, like=model.spec)), "all"


def threat_on(spec: DataSpec, norm: str, eps: float) -> ThreatModel:
    """Changes of size `eps` that such inputs can have. Raises `UsageError` if there are none.

    A table has no box: [0, 1] is where its training rows lie, and any other row may lie outside.
    """
    low, high = (spec.low, spec.high) if spec.kind == "image" else (-math.inf, math.inf)
    return ThreatModel(cast(Norm, norm), eps, low, high)


def whole_box(spec: DataSpec, norm: str) -> float:
    """The eps that allows every change of such inputs. Raises `UsageError` for a table, whose rows have no box."""
    if spec.kind != "image":
        raise UsageError("a row of a table can change by any amount, so that an attack on it needs --eps, such as 0.1")
    values, width = math.prod(spec.shape), spec.high - spec.low
    return {"linf": width, "l2": width * math.sqrt(values), "l1": width * values}.get(norm, float(values))


def label_doubts(model: LoadedModel, spec: DataSpec) -> list[str]:
    """A warning if the data's class numbers need not mean what they meant in the model's training; else nothing."""
    if model.spec is None or not spec.classes or spec.classes == model.spec.classes:
        return []
    ours, theirs = (", ".join(names[:5]) + ", ..." * (len(names) > 5) for names in (model.spec.classes, spec.classes))
    return [
        f"the model was trained on the classes {ours}, but the data has the classes {theirs}: they are compared by "
        "their number, so make sure that they come in the same order"
    ]
