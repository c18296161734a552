"""Detectors whose training says how it went."""

from __future__ import annotations

from typing import Protocol, runtime_checkable


@runtime_checkable
class Monitored(Protocol):
    """What has kept how its training went."""

    def verdict(self) -> str: ...

    def warnings(self) -> list[str]: ...

    def course(self) -> dict[str, list[float]]:
        """What each round of training showed, by name: shares from 0 to 1."""
        ...
