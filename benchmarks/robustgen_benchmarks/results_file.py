"""The JSON file that a benchmark writes as it goes, and goes on from."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, final

from robustgen.artifacts import to_json, write_atomically
from robustgen.errors import DataError
from robustgen_benchmarks.machine import describe_machine, versions_with


@final
class ResultsFile:
    """What one file holds: commands, date, machine, versions, further facts, and what was measured.

    Measurements are a list of dicts under "results" (`results`, `done`, `add`) or, where they have names and are filled
    bit by bit, a dict under "rows" (`rows`, `save`). A file that is there is gone on from: its measurements, its
    commands and every key that is not among today's facts stay. Older files have one "command" in place of "commands".
    """

    def __init__(
        self, path: Path | None, command: str | None, /, *packages: str, go_on: bool = True, **facts: Any
    ) -> None:
        """`path`: None keeps all in memory. `command`: what makes these measurements, None if each row says it.
        `packages`: whose versions are recorded beside torch's and others (`versions_with`). `go_on`: False begins anew,
        and the first `save` replaces what is there. `facts`: further keys, such as `data_sha256`.

        Raises `json.JSONDecodeError` if the file there is not JSON, `DataError` if it is about other data (by
        `data_sha256`); nothing is written before `save` or `add`.
        """
        self._path = path
        self._stored: dict[str, Any] = {}
        if go_on and path is not None and path.is_file():
            self._stored = json.loads(path.read_text(encoding="utf-8"))
        self._known = frozenset(self._stored)
        was, now = (held.get("data_sha256") for held in (self._stored, facts))
        if was and now and was != now:
            raise DataError(f"{path} holds what was measured on other data: choose another --out")
        before = [self._stored.pop("command", None), *self._stored.pop("commands", ())]
        commands = list(dict.fromkeys(filter(None, [*before, command])))
        if commands:
            self._stored["commands"] = commands
        self._stored |= {
            "date": datetime.now(UTC).date().isoformat(),
            "machine": describe_machine(),
            "versions": versions_with(*packages),
            **facts,
        }

    @property
    def results(self) -> list[dict[str, Any]]:
        """The measurements in the order they were made. Raises `DataError` if the file there has none of this form."""
        found: list[dict[str, Any]] = self._part("results", [])
        return found

    @property
    def rows(self) -> dict[str, Any]:
        """The measurements by name, to be changed in place. Raises `DataError` as `results` does."""
        found: dict[str, Any] = self._part("rows", {})
        return found

    def done(self, *fields: str) -> set[tuple[Any, ...]]:
        """The values of these fields in each of `results`. Raises `KeyError` if one lacks a field."""
        return {tuple(row[field] for field in fields) for row in self.results}

    def add(self, *results: dict[str, Any]) -> None:
        """Append to `results`, and save."""
        self.results.extend(results)
        self.save()

    def save(self) -> None:
        """Write the whole file, or leave the old one as it is. Raises `OutputError` if it cannot be written."""
        if self._path is not None:
            write_atomically(self._path, lambda path: path.write_text(self.text(), encoding="utf-8"), force=True)

    def text(self) -> str:
        """What the file holds, as JSON with a newline at its end."""
        return to_json(self._stored) + "\n"

    def _part(self, name: str, empty: Any) -> Any:
        if self._known and name not in self._known:
            raise DataError(f'{self._path} has no "{name}": it belongs to another benchmark: choose another --out')
        return self._stored.setdefault(name, empty)
