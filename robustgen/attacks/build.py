"""From an attack's name and options to the attack."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from robustgen.attacks import ATTACKS
from robustgen.attacks.base import Attack
from robustgen.errors import UsageError
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
