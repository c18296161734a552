"""Attack by attack: what each does without a detector, how well its results are told from clean inputs, what attackers
reach who know something of the detector, and what they spent. A section of the page about guards under attack.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from robustgen.bench.figures import Figure, bare, figure_of, written
from robustgen.bench.ranking import Board, Row
from robustgen.report.page import Block, Notice, Paragraph, Table

_THREATS = {"T": "transfer", "W": "white-box", "Q": "queries"}

Told = Mapping[str, Any]
"""What is known of one attack on one row's system"""


def attack_by_attack(board: Board) -> list[Block]:
    """All attacks, those first whose attacker does not know the detector."""
    blind = [r for row in board.rows for r in _rows(row) if r["threat"] == "Z"]
    knowing = [r for row in board.rows for r in _rows(row) if r["threat"] != "Z"]
    if not blind:
        return []
    names = list(dict.fromkeys(_name(r) for r in blind))
    fooled = ["without a detector", *(bare(_fooled(blind, name)) for name in names)]
    blocks: list[Block] = [Table(["", *names], [fooled], "Attacks on the classifier alone that succeed, in per cent")]

    def table(tell: Callable[[Told], str], caption: str, note: str = "") -> Table:
        return _side_by_side(board, {("Z", name): name for name in names}, tell, caption, note)

    auroc = "AUROC of attackers who do not know the detector"
    note = (
        "Clean test inputs, others than were attacked where there are enough, against successful attacks; failed "
        "attempts are not counted as caught."
    )
    blocks.append(table(lambda r: written(figure_of(r.get("auroc")), "number", False), auroc, note))
    if any(figure.low is not None for r in blind if (figure := figure_of(r.get("auroc"))) is not None):
        blocks.append(table(lambda r: written(figure_of(r.get("auroc")), "number"), "The same with 95 % intervals"))
    blocks.append(table(_three, "Caught at 0.1 / 1 / 5 % false alarms, in per cent"))
    spent = _spent_blindly(blind, names)
    return [*blocks, *([] if spent is None else [spent]), *_knowing(board, knowing)]


def _rows(row: Row) -> Sequence[Told]:
    found: Sequence[Told] = row.detail.get("rows", [])
    return found


def _name(row: Told) -> str:
    return f"{row['attack']} {row['norm']} {row['eps']:g}"


def _fooled(rows: Sequence[Told], name: str) -> Figure | None:
    return next((figure_of(row.get("fooled")) for row in rows if _name(row) == name), None)


def _three(row: Told) -> str:
    tpr = row.get("tpr")
    return " / ".join(bare(figure_of(tpr.get(rate))) for rate in ("0.001", "0.01", "0.05")) if tpr else "-"


def _side_by_side(
    board: Board, keys: Mapping[tuple[str, str], str], tell: Callable[[Told], str], caption: str, note: str = ""
) -> Table:
    """What `tell` makes of each attack, by (threat, name) -> head of the column, on each row's system."""
    rows = []
    for row in board.rows:
        found = {(r["threat"], _name(r)): r for r in _rows(row)}
        rows.append([row.name, *(tell(found.get(key, {})) for key in keys)])
    return Table(["", *keys.values()], rows, caption, note)


def _knowing(board: Board, others: Sequence[Told]) -> list[Block]:
    """Success, detection and cost of every attack that knows something of the detector."""
    if not others:
        return []
    about = board.detail
    first = [r for r in others if r["norm"] == about["norm"] and math.isclose(r["eps"], about["eps"])]
    everything = [*first, *others]  # what ranks stands on the left
    keys = {(r["threat"], _name(r)): f"{_THREATS.get(r['threat'], r['threat'])}: {_name(r)}" for r in everything}
    success = "Attackers who know something of the detector: success by attack, in per cent"
    gaps = "A dash: not run on this detector."
    blocks: list[Block] = [_side_by_side(board, keys, lambda r: bare(figure_of(r.get("success"))), success, gaps)]
    if any(r.get("tpr") for r in others):
        blocks.append(_side_by_side(board, keys, _three, "Caught of these at 0.1 / 1 / 5 % false alarms, in per cent"))
    stood_in = [row.name for row in board.rows if any(r.get("surrogate") for r in _rows(row))]
    if stood_in:
        said = "attacked through a stand-in for the gradient, since the score has none: a stronger attack may exist"
        blocks.append(Notice("warning", f"{', '.join(stood_in)}: {said}."))
    timed = {key: head for key, head in keys.items() if any(_took(r) for r in others if (r["threat"], _name(r)) == key)}
    if timed:
        caption, note = "Seconds that these attacks took", "On all inputs that they were run on, mean over seeds."
        blocks.append(_side_by_side(board, timed, lambda r: f"{_took(r):.1f}" if _took(r) else "-", caption, note))
    held = _held(board)
    blocks += [held] if held is not None else []
    spent = _spent(others)
    return [*blocks, spent] if spent is not None else blocks


def _held(board: Board) -> Paragraph | None:
    """What was left out because the classifier holds it on its own."""
    found = dict[float, tuple[float, float]]()
    for row in board.rows:
        for told in _rows(row):
            if told.get("held") is not None:
                found.setdefault(told["eps"], (told["held"], told["n"]))
    if not found:
        return None
    shares = ", ".join(f"{100 * held / n:.0f} % at eps {eps:g}" for eps, (held, n) in sorted(found.items()))
    return Paragraph(
        f"Not attacked, and counted as held: inputs for which Auto-Attack on the classifier alone finds no wrong label "
        f"({shares}), since nothing gets past a guard without one. Its own points are tried on every guard."
    )


def _took(row: Told) -> float:
    return float(row.get("seconds") or 0.0)


def _spent_blindly(rows: Sequence[Told], names: Sequence[str]) -> Table | None:
    """What each attack on the classifier alone took, and may spend on one input, as far as it is known."""
    took, spent = dict[str, str](), dict[str, Told]()
    for row in rows:  # the same for every detector beside one classifier
        name = _name(row)
        if _took(row):
            took.setdefault(name, f"{_took(row):.1f}")
        for effort in (row.get("effort") or {}).values():
            spent.setdefault(name, effort)
    kinds = list(dict.fromkeys(kind for effort in spent.values() for kind in effort))
    lines = [[kind.replace("_", " "), *(str(spent.get(name, {}).get(kind, "-")) for name in names)] for kind in kinds]
    if took:
        lines.append(["seconds for all inputs", *(took.get(name, "-") for name in names)])
    caption = "What attacks on the classifier alone may spend on one input"
    return Table(["", *names], lines, caption) if lines else None


def _spent(others: Sequence[Told]) -> Table | None:
    """What each attack on classifier and detector together may spend on one input."""
    members: dict[str, Told] = {}
    for row in others:
        members |= row.get("effort") or {}
    if not members:
        return None
    kinds = list(dict.fromkeys(kind for spent in members.values() for kind in spent))
    rows = [
        [name, *(f"{spent[kind]:g}" if kind in spent else "-" for kind in kinds)] for name, spent in members.items()
    ]
    heads = ["", *(kind.replace("_", " ") for kind in kinds)]
    return Table(heads, rows, "What these attacks may spend on one input", "Steps are for each restart and target.")


def precision(board: Board) -> list[Block]:
    """How much of what is flagged was attacked, by attackers who do not know the detector and by those who do."""
    whose = {"Z": "attackers who do not know the detector", "W": "attackers who know the detector"}
    return [made for threat, who in whose.items() if (made := _precision(board, threat, who)) is not None]


def _precision(board: Board, threat: str, who: str) -> Table | None:
    rows, about = [], board.detail
    shares = ("0.5", "0.1", "0.01", "0.001")
    attack = ""
    for row in board.rows:
        at = [r for r in _rows(row) if r["threat"] == threat and r["norm"] == about["norm"]]
        found = [r for r in at if math.isclose(r["eps"], about["eps"]) and r.get("precision")]
        chosen = next((r for r in found if r["attack"] == "pgd"), next(iter(found), None))
        if chosen is not None:
            attack = _name(chosen)
            rows.append([row.name, *(bare(figure_of(chosen["precision"].get(share))) for share in shares)])
    if not rows:
        return None
    heads = ["", *(f"{100 * float(share):g} % attacks" for share in shares)]
    note = f"Of what is flagged, the share that was attacked ({attack}), by how common attacks are among all inputs."
    return Table(heads, rows, f"Precision against {who}, in per cent", note)
