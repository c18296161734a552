"""Which inputs a model is to be tried on."""

from __future__ import annotations

from typing import cast, get_args

from robustgen.data import DATA
from robustgen.data.load import load
from robustgen.data.source import Source, Split
from robustgen.errors import UsageError
from robustgen.models.load import LoadedModel
from robustgen.registry import suggestion


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
