"""From an attack's name and options to the attack."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from robustgen.attacks import ATTACKS
from robustgen.attacks.base import Attack
from robustgen.errors import UsageError
from robustgen.objectives import LOSSES, Misclassify
from robustgen.registry import resolve
from robustgen.threat import ThreatModel


def make(name: str, threat: ThreatModel, options: Mapping[str, Any] | None = None) -> Attack:
    """The attack `name` under `threat`; `options` are its fields. Raises `UsageError` for an unknown name or option."""
    kind = resolve(ATTACKS, name, "attack")
    known = [field.name for field in fields(kind) if field.name != "threat"]
    for option in options or {}:
        if option not in known:
            raise UsageError(f"{name} has no option {option!r}: it has {', '.join(known)}")
    attack: Attack = kind(threat=threat, **(options or {}))
    return attack


def aimed(name: str, loss: str | None = None, targeted: bool = False) -> dict[str, Any]:
    """The option `objective` of the attack `name`: its own, with another `loss` (None = its own) and `targeted`.

    Empty where nothing differs. Raises `UsageError` for an unknown loss, or where the attack's objective is its own.
    """
    if loss is None and not targeted:
        return {}
    kind = resolve(ATTACKS, name, "attack")
    default = next(field.default_factory() for field in fields(kind) if field.name == "objective")  # type: ignore[operator]
    if not isinstance(default, Misclassify):
        raise UsageError(f"{name} has an objective of its own, which takes no other loss and no target: leave them out")
    changed = replace(default, targeted=targeted)
    return {"objective": changed if loss is None else replace(changed, loss=resolve(LOSSES, loss, "loss"))}
