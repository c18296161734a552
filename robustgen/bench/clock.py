"""How long work has taken, over all the runs that it took."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import NamedTuple, final

from robustgen.artifacts import to_json, write_atomically

_EVERY = 5.0  # seconds between two notes


class Spent(NamedTuple):
    """Seconds on the clock, and of the processor."""

    seconds: float
    cpu_seconds: float


@final
class Clock:
    """Counts on from what an earlier run, since killed, noted in the file `place`."""

    def __init__(self, place: Path) -> None:
        self._place, self._before = place, _noted(place)
        self._began = Spent(time.perf_counter(), time.process_time())
        self._last = self._began.seconds

    @property
    def spent(self) -> Spent:
        """So far."""
        now = Spent(time.perf_counter(), time.process_time())
        return Spent(*(old + new - began for old, new, began in zip(self._before, now, self._began, strict=True)))

    def tick(self) -> None:
        """Note it, if the last note is some seconds old."""
        if time.perf_counter() - self._last >= _EVERY:
            self._last = time.perf_counter()
            text = to_json(self.spent._asdict())
            write_atomically(self._place, lambda path: path.write_text(text, encoding="utf-8"), force=True)

    def stop(self) -> Spent:
        """The whole, and no file is left."""
        self._place.unlink(missing_ok=True)
        return self.spent


def _noted(place: Path) -> Spent:
    try:
        found = json.loads(place.read_text(encoding="utf-8"))
        return Spent(float(found["seconds"]), float(found["cpu_seconds"]))
    except (OSError, ValueError, TypeError, KeyError):  # none, or one that a kill has spoilt
        return Spent(0.0, 0.0)
