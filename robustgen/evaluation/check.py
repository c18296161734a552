"""One thing that must hold where a figure of a guarded classifier is to be believed."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Check:
    """`passed`: whether it holds, None where it cannot be told. `found`: a sentence with numbers. `means`: what it
    means where it does not hold, and what to do.
    """

    name: str
    passed: bool | None
    found: str
    means: str

    def to_json(self) -> dict[str, Any]:
        """Plain values; `Check(**values)` gives it back."""
        return asdict(self)
