"""Two leaderboards of the same suite: what differs by more than the intervals allow."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, final

from robustgen.bench.figures import METRICS, Figure, figure_of
from robustgen.bench.leaderboard import JSON
from robustgen.errors import ArtifactError, UsageError

Verdict = Literal["better", "worse"]


@final
@dataclass(frozen=True)
class Difference:
    """A metric of a row whose intervals before and after do not overlap (or, without intervals, of other value)."""

    row: str
    metric: str
    old: Figure
    new: Figure
    verdict: Verdict


@final
@dataclass(frozen=True)
class Comparison:
    """What differs, how many figures were compared, and which rows only one of the two has."""

    differences: list[Difference]
    compared: int
    only_old: list[str]
    only_new: list[str]

    def to_json(self) -> dict[str, Any]:
        return {
            "differences": [
                {
                    "row": one.row,
                    "metric": one.metric,
                    "old": one.old.to_json(),
                    "new": one.new.to_json(),
                    "verdict": one.verdict,
                }
                for one in self.differences
            ],
            "compared": self.compared,
            "only_old": self.only_old,
            "only_new": self.only_new,
        }


def compared(old: Path, new: Path) -> Comparison:
    """Compare two result folders (or their leaderboard.json). Times are left out: they say more of the machine.

    Raises `ArtifactError` for what is no leaderboard, `UsageError` where they have no row in common.
    """
    before, after = read_rows(old), read_rows(new)
    if before.keys().isdisjoint(after):
        raise UsageError(
            f"{old} and {new} have no row in common, such as {next(iter(before), 'none')!r} and "
            f"{next(iter(after), 'none')!r}: give two results of one suite"
        )
    differences, count = [], 0
    for name in before.keys() & after.keys():
        for metric, described in METRICS.items():
            first, second = (rows[name].get(metric) for rows in (before, after))
            if first is None or second is None or described.form in ("milliseconds", "seconds"):
                continue
            count += 1
            if _apart(first, second):
                up = second.value > first.value
                verdict: Verdict = "better" if up == (described.better == "high") else "worse"
                differences.append(Difference(name, metric, first, second, verdict))
    order = {name: number for number, name in enumerate(before)}
    differences.sort(key=lambda one: order[one.row])
    return Comparison(
        differences,
        count,
        [name for name in before if name not in after],
        [name for name in after if name not in before],
    )


def _apart(first: Figure, second: Figure) -> bool:
    if first.low is None or first.high is None or second.low is None or second.high is None:
        return first.value != second.value
    return first.high < second.low or second.high < first.low


def read_rows(path: Path) -> dict[str, Mapping[str, Figure | None]]:
    """The rows of a result folder (or its leaderboard.json), as gates take them. Raises `ArtifactError`."""
    file = path / JSON if path.is_dir() else path
    try:
        boards = json.loads(file.read_text(encoding="utf-8"))["boards"]
        return {
            f"{board['title']} / {row['name']}": {word: figure_of(value) for word, value in row["metrics"].items()}
            for board in boards
            for row in board["rows"]
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ArtifactError(
            f"{path} is no leaderboard ({type(error).__name__}: {error}): give a folder that 'robustgen bench' wrote, "
            f"or its {JSON}"
        ) from error
