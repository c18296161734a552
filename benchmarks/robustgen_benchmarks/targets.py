"""What the suite `adversarial-standard` set out to reach, and what its leaderboard has: as Markdown.

    python -m robustgen_benchmarks.targets benchmarks/results/adversarial_standard.json

Figures are the means of the seeds, judged unrounded. The targets are at 5 % false alarms and, of those who know the
detector, at eps .1.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from robustgen.bench.ranking import markdown
from robustgen_benchmarks.board_tables import at
from robustgen_benchmarks.breaks import TARGET
from robustgen_benchmarks.by_seed import BLIND

HARDENED = ("gat", "certified-gat", "guard")
"""Detectors that are trained against attackers, and the guard that has one of them."""
_SMALL = "PGD .02"
_SMALLEST = {_SMALL: 0.95}
_APART = ("the object alone", "rotated and shifted")  # told beside, without a target


class Target(NamedTuple):
    """`found` is to be `least` or more, or `most` or less."""

    what: str
    found: float
    least: float | None = None
    most: float | None = None

    @property
    def met(self) -> bool:
        return (self.least is None or self.found >= self.least) and (self.most is None or self.found <= self.most)


def targets(found: Mapping[str, Any]) -> Iterator[Target]:
    """Of the leaderboard of the whole suite. Raises `KeyError` or `StopIteration` where a row is missing."""
    plain, adversarial = (_rows(found, victim) for victim in ("plain", "adversarial"))
    guard, gat = plain["guard"], plain["gat"]
    yield Target("plain victims, right on", min(_metric(row, "accuracy") for row in plain.values()), least=0.91)
    for name, (attack, eps) in BLIND.items():
        if name not in _APART:
            caught = at(guard["detail"], "Z", attack, eps)
            yield Target(f"guard, AUROC of {name}", caught["auroc"]["value"], least=_SMALLEST.get(name, 0.97))
    for name, (attack, eps) in BLIND.items():
        if name not in (*_APART, _SMALL):
            caught = at(guard["detail"], "Z", attack, eps)
            yield Target(f"guard, share caught of {name}", caught["tpr"]["0.05"]["value"], least=0.95)
    yield Target("gat, success knowing it", _metric(gat, "success_adaptive"), most=0.30)
    yield Target("gat, flagged of random signs of .05", _metric(gat, "noise_flagged"), most=0.07)
    yield Target("guard, success knowing it", _metric(guard, "success_adaptive"), most=0.40)
    yield Target("guard, robust accuracy with detector", _metric(guard, "robust_accuracy"), least=0.55)
    yield Target("guard, clean, right and accepted", _metric(guard, "useful"), least=0.87)
    beside = "guard beside the adversarially trained victim"
    yield Target(f"{beside}, robust accuracy with detector", _metric(adversarial["guard"], "robust_accuracy"), 0.72)
    yield Target(f"{beside}, clean, right and accepted", _metric(adversarial["guard"], "useful"), 0.82)
    for name, row in plain.items():
        if name not in HARDENED:
            yield Target(f"bundle, success on {name}", _metric(row, "success_adaptive"), least=TARGET)
    yield Target("certified-gat, proven robust accuracy", _metric(plain["certified-gat"], "certified"), least=0.35)


def _rows(found: Mapping[str, Any], victim: str) -> dict[str, Any]:
    (board,) = [board for board in found["boards"] if board["detail"]["victim"] == victim]
    return {row["name"]: row for row in board["rows"]}


def _metric(row: Mapping[str, Any], name: str) -> float:
    return float(row["metrics"][name]["value"])


def table(found: Mapping[str, Any]) -> list[str]:
    """A line each, and those of the bundle that are met in one."""
    every = list(targets(found))
    met = [target for target in every if target.met and target.what.startswith("bundle")]
    rows = [
        [target.what, _asked(target), f"{target.found:.3f}", "yes" if target.met else "**no**"]
        for target in every
        if target not in met
    ]
    if met:
        span = f"{min(target.found for target in met):.3f} to {max(target.found for target in met):.3f}"
        rows.append([f"bundle, success on each of {len(met)} others", _asked(met[0]), span, "yes"])
    return list(markdown(["", "asked", "found", "met"], rows))


def _asked(target: Target) -> str:
    return f"at least {target.least:.2f}" if target.least is not None else f"at most {target.most:.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("leaderboard", type=Path)
    found = json.loads(parser.parse_args().leaderboard.read_text(encoding="utf-8"))
    sys.stdout.write("\n".join([*table(found), ""]))


if __name__ == "__main__":
    main()
