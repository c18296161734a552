"""What the values of a suite may be, by their keys: what is wrong with them is said before hours of work."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from robustgen.attacks.pgd import PGD
from robustgen.errors import UsageError
from robustgen.evaluation.adversaries import KINDS
from robustgen.evaluation.bundles import BUNDLES
from robustgen.models import ARCHITECTURES
from robustgen.models.build import torchvision_names
from robustgen.registry import suggestion


class _Limit(NamedTuple):
    """What is `wanted`, in words, and whether a number `holds` it."""

    wanted: str
    holds: Callable[[float], bool]


_COUNT = _Limit("a number from 1 up", lambda value: value >= 1)
_PLACE = _Limit("a number from 0 up", lambda value: 0 <= value < math.inf)
_SIZE = _Limit("a number above 0", lambda value: 0 < value < math.inf)
_RATE = _Limit("a share above 0 and below 1", lambda value: 0 < value < 1)
_SHARE = _Limit("a share from 0 to 1", lambda value: 0 <= value <= 1)

_NUMBERS: Mapping[str, _Limit] = {
    **dict.fromkeys(("n", "n_adaptive", "train", "samples", "steps", "queries", "epochs", "batch_size"), _COUNT),
    **dict.fromkeys(("seed", "normal", "beta"), _PLACE),
    **dict.fromkeys(("eps", "adaptive", "headline", "learning_rate"), _SIZE),
    "fpr": _RATE,
    "bound": _SHARE,
}

_NAMES: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "bundle": ("bundle of attacks", tuple(BUNDLES)),
    "adversarial": ("kind of adversarial training", ("fast", *KINDS)),
    "norm": ("norm", tuple(PGD.norms)),
}


def check(owner: str, word: str, value: Any) -> None:
    """Raises `UsageError` if `value`, of the right type already, cannot be `word` of `owner`."""
    limit = _NUMBERS.get(word)
    if limit is not None and not all(map(limit.holds, value if isinstance(value, tuple) else (value,))):
        came = list(value) if isinstance(value, tuple) else value
        raise UsageError(f"{word} of {owner}: {limit.wanted} is needed, but {came!r} came")
    what, known = _NAMES.get(word, ("", ()))
    if known and value not in known:
        raise UsageError(f"{word} of {owner}: {suggestion(value, known, what)}")
    if word == "arch" and value not in ARCHITECTURES and value.removeprefix("torchvision:") not in torchvision_names():
        known = (*ARCHITECTURES, "torchvision:NAME")
        raise UsageError(f"{word} of {owner}: {suggestion(value, known, 'architecture')}")
