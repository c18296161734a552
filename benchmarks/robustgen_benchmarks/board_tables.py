"""The tables of benchmarks/README.md from the leaderboard of `adversarial-standard`.

python -m robustgen_benchmarks.board_tables benchmarks/results/adversarial_standard.json
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from robustgen.bench.ranking import markdown
from robustgen_benchmarks.breaks import PROTOTYPE

EPS = 0.1


def tables(found: Mapping[str, Any]) -> Iterator[tuple[str, list[str]]]:
    """(title, lines) of each board."""
    for board in found["boards"]:
        plain = board["detail"]["victim"] == "plain"
        prototype = ["prototype"] if plain else []
        turned = " / rotated and shifted" if plain else ""
        head = ["", "seeds", "success, not knowing it", "all but its weights", "by verdicts alone", "**knowing it**"]
        head += ["the same in image files", *prototype, "robust accuracy with detector"]
        head += ["clean, right and accepted", "noise flagged"]
        head += [f"AUROC, not knowing it: PGD .1 / never touching the background / DDN{turned}", "checks failed"]
        yield board["title"], list(markdown(head, [_row(row, plain) for row in board["rows"]]))


def _row(row: Mapping[str, Any], plain: bool) -> list[str]:
    detail, figures = row["detail"], row["metrics"]
    blind = [("pgd", EPS), ("pgd-object", EPS), ("ddn", None), *([("rotate-shift", None)] if plain else [])]
    aurocs = [_said(at(detail, "Z", attack, eps), "auroc") for attack, eps in blind]
    failed = [check["name"] for check in detail["checks"] if check["passed"] is False]
    bundle = "adaptive-standard"
    return [
        row["name"],
        str(row["cells_done"]),
        figure(figures["success_oblivious"]),
        _said(at(detail, "T", "transfer", EPS), "success"),
        _said(at(detail, "Q", "square", EPS), "success"),
        f"**{figure(figures['success_adaptive'])}**",
        _said(at(detail, "W", f"{bundle}, 8 bit", EPS), "success"),
        *([f"{PROTOTYPE[row['name']]:.2f}" if row["name"] in PROTOTYPE else "-"] if plain else []),
        figure(figures["robust_accuracy"]),
        figure(figures["useful"]),
        figure(figures["noise_flagged"]),
        " / ".join(aurocs),
        ", ".join(failed) or "0",
    ]


def at(found: Mapping[str, Any], threat: str, attack: str, eps: float | None) -> Mapping[str, Any]:
    """What one attack did to a row or a cell, at one size where `eps` says so; nothing where it was not run."""
    rows = [row for row in found["rows"] if (row["threat"], row["attack"]) == (threat, attack)]
    return next((row for row in rows if eps is None or math.isclose(row["eps"], eps)), {})


def _said(row: Mapping[str, Any], word: str) -> str:
    return figure(row.get(word))


def figure(found: Mapping[str, Any] | None) -> str:
    """Its value, or a dash where there is none."""
    return "-" if found is None else f"{found['value']:.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("leaderboard", type=Path)
    found = json.loads(parser.parse_args().leaderboard.read_text(encoding="utf-8"))
    sys.stdout.write(f"{found['cells']['done']} of {found['cells']['of']} cells\n")
    for title, lines in tables(found):
        sys.stdout.write("\n".join([f"\n{title}:\n", *lines, ""]))


if __name__ == "__main__":
    main()
