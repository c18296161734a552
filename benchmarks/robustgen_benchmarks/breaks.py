"""How far attackers who know a detector get with it: this suite's figures beside the published and the prototypes'.

    robustgen bench adversarial-standard --out board --only 'plain / NAME / seed 0'
    python -m robustgen_benchmarks.breaks board/leaderboard.json

Published breaks are of other networks, data and sizes of change (each is told with its own); those of the prototypes
are of this data, this size and another small network (100 inputs, 40 steps, four attacks).
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any, NamedTuple


class Break(NamedTuple):
    """The share of attacked inputs that ended wrong and accepted, at about 5 % false alarms unless told; `by`: on what,
    and who says so.
    """

    success: str
    by: str


PUBLISHED = {
    "magnet": Break("about 1", "MNIST and CIFAR-10, slightly longer changes; Carlini, Wagner 2017, on MagNet"),
    "pca": Break("0.38 at 37 %", "false alarms, on convolutional layers, not even knowing it; Carlini, Wagner 2017"),
    "kernel-density": Break("over 0.80", "CIFAR-10, not even knowing it; Carlini, Wagner 2017, on ten detectors"),
    "conditional-vae": Break("0.993", "Deep Bayes: caught .004 of what fools .997, CIFAR-10 8/255; Tramer et al. 2020"),
    "gat": Break("0.640", "CIFAR-10, 8/255, towards all classes; Tramer et al. 2020"),
}
PROTOTYPE = {
    "autoencoder": 1.00,
    "magnet": 0.94,
    "pca-tail": 1.00,
    "gan": 0.99,
    "conditional-vae": 0.95,
    "coverage": 0.93,
    "deep-mahalanobis": 0.97,
    "deep-knn": 0.96,
    "gat": 0.44,
    "guard": 0.48,
}
TARGET = 0.95


def rows(board: dict[str, Any], hardened: tuple[str, ...]) -> list[str]:
    """A Markdown row for each detector that somebody who knows it has attacked, the best broken first."""
    found = []
    for row in board["rows"]:
        knowing, blind = row["metrics"].get("success_adaptive"), row["metrics"].get("success_oblivious")
        if knowing is None or blind is None:
            continue
        name = row["name"]
        published = PUBLISHED.get(name)
        mark = "" if name in hardened else "yes" if knowing["value"] >= TARGET else "**no**"
        cells = [
            name,
            f"{blind['value']:.3f}",
            f"{knowing['value']:.3f} [{knowing['low']:.3f}, {knowing['high']:.3f}]",
            mark,
            f"{PROTOTYPE[name]:.2f}" if name in PROTOTYPE else "-",
            "-" if published is None else f"{published.success} ({published.by})",
        ]
        found.append((knowing["value"], f"| {' | '.join(cells)} |"))
    return [line for _, line in sorted(found, reverse=True)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("leaderboards", type=Path, nargs="+", help="leaderboard.json of an adversarial suite")
    parser.add_argument(
        "--hardened", nargs="*", default=["gat", "certified-gat", "guard"], help="trained against attacks: no target"
    )
    given = parser.parse_args()
    for path in given.leaderboards:
        for board in json.loads(path.read_text())["boards"]:
            detail = board["detail"]
            sys.stdout.write(f"{board['title']}, {detail['norm']} eps {detail['eps']:g}\n\n")
            sys.stdout.write(f"| | not knowing it | knowing it | at least {TARGET:g} | prototype | published |\n")
            sys.stdout.write("|---|---|---|---|---|---|\n" + "\n".join(rows(board, tuple(given.hardened))) + "\n\n")


if __name__ == "__main__":
    main()
