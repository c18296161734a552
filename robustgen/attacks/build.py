"""From an attack's name and options to the attack: one of ours, or "art:NAME" for one of ART's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from robustgen.attacks import ATTACKS
from robustgen.attacks.art_names import PREFIX, art_name
from robustgen.attacks.base import Attack
from robustgen.errors import UsageError
from robustgen.objectives import LOSSES, Misclassify
from robustgen.registry import resolve
from robustgen.threat import ThreatModel


def make(name: str, threat: ThreatModel, options: Mapping[str, Any] | None = None) -> Attack:
    """The attack `name` under `threat`; `options` are its fields, and of an attack of ART its parameters too.

    Raises `UsageError` for an unknown name or option.
    """
    kind = kind_of(name)
    known = [field.name for field in fields(kind) if field.init and field.name != "threat"]
    chosen = dict(options or {})
    if name.startswith(PREFIX):
        theirs = {option: chosen.pop(option) for option in [*chosen] if option not in known}
        chosen |= {"name": name, "parameters": theirs | dict(chosen.get("parameters", {}))}
    for option in chosen:
        if option not in known:
            raise UsageError(f"{name} has no option {option!r}: it has {', '.join(known)}")
    attack: Attack = kind(threat=threat, **chosen)
    return attack


def kind_of(name: str) -> type[Attack]:
    """The class of the attack `name`. Raises `UsageError` for an unknown name."""
    if name.startswith(PREFIX):
        from robustgen.attacks.art_attack import ArtAttack

        art_name(name)
        return ArtAttack
    kind: type[Attack] = resolve(ATTACKS, name, "attack")
    return kind


def declared(name: str) -> type[Attack] | dict[str, Any]:
    """Where the options of `name` are declared: its class, or for an attack of ART their types by name (loads ART)."""
    kind = kind_of(name)
    if name.startswith(PREFIX):
        from robustgen.attacks.art_attack import parameters_of

        return parameters_of(name)
    return kind


def aimed(name: str, loss: str | None = None, targeted: bool = False) -> dict[str, Any]:
    """The option `objective` of the attack `name`: its own, with another `loss` (None = its own) and `targeted`.

    Empty where nothing differs. Raises `UsageError` for an unknown loss, where the attack's objective is its own, or
    for an attack that aims at a class by its nature and is given none.
    """
    kind = kind_of(name)
    default = next(field.default_factory() for field in fields(kind) if field.name == "objective")  # type: ignore[operator]
    if loss is not None and (name.startswith(PREFIX) or not isinstance(default, Misclassify)):
        raise UsageError(f"{name} has an objective of its own, which takes no other loss: leave it out")
    if not isinstance(default, Misclassify):
        by_nature = bool(getattr(default, "targeted", False))
        if by_nature and not targeted:
            raise UsageError(f"{name} aims at a class: say which (--targeted next)")
        if targeted and not by_nature:
            raise UsageError(f"{name} has an objective of its own, which takes no target: leave it out")
        return {}
    if loss is None and not targeted:
        return {}
    changed = replace(default, targeted=targeted)
    return {"objective": changed if loss is None else replace(changed, loss=resolve(LOSSES, loss, "loss"))}
