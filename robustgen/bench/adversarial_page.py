"""The sections of a page about guards under attack: from ranking to masking checks, in the order of a reader's
questions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from robustgen.bench.attacks_section import attack_by_attack, precision
from robustgen.bench.blocks import as_markdown
from robustgen.bench.certified_section import proven
from robustgen.bench.figures import METRICS, SHORT, bare, figure_of, written
from robustgen.bench.ranking import Board, Row
from robustgen.report.page import Block, Kind, Mark, Marks, Notice, Number, Paragraph, Picture, Section, Table
from robustgen.report.rankings import Reach, frontier, success_curves

_NAMED = 8  # lines of a chart that have a colour and a name
_RANKED = (
    "success_worst",
    "success_oblivious",
    "success_adaptive",
    "robust_accuracy",
    "fc",
    "useful",
    "noise_flagged",
    "worst_auroc",
)
_GLOSSARY = (
    "Worst, oblivious, adaptive: the share of attacked inputs that end with a wrong label and accepted, by any "
    "attacker, by those who do not know the detector, and by those who do. Believed: masking checks, see below; green"
    " where all were tried and passed. RA_D: inputs for which no attack found a wrong label that is accepted; FC: of "
    "these, those also classified rightly and accepted unchanged. Useful: clean inputs classified rightly and "
    "accepted. Noise flagged: of harmless changes. Worst AUROC: against the oblivious attack that is hardest to "
    "detect."
)
_CLEAN = (
    "accuracy",
    "useful",
    "false_alarms",
    "false_rejects_right",
    "false_rejects_wrong",
    "ms_per_input",
    "fit_seconds",
)


def adversarial_numbers(board: Board) -> list[Number]:
    """The best row that was attacked by someone who knows it."""
    best = next((row for row in board.rows if not row.unverified), None)
    if best is None:
        return []
    remark = f"{best.name}, {board.title}"
    return [
        Number(written(best.figures["success_worst"], "percent", False), "lowest success of the worst case", remark),
        Number(written(best.figures["robust_accuracy"], "percent", False), "robust accuracy with rejection", remark),
    ]


def adversarial_sections(boards: Sequence[Board]) -> list[Section]:
    """All sections, one part for each board where they differ by victim."""
    if not boards:
        return []
    parts: list[tuple[str, Callable[[Board], Sequence[Block]]]] = [
        ("Ranking", _ranking),
        ("What attackers reach", _curves),
        ("Attack by attack", attack_by_attack),
        ("Precision where attacks are rare", precision),
        ("Clean inputs and cost", _clean),
        ("Harmless noise", _noise),
        ("Small changes, and the bound that no system should pass", _small),
        ("Can these figures be believed?", _checks),
        ("What is proven", proven),
        ("What may be quoted", _quotes),
    ]
    sections = []
    for title, make in parts:
        blocks: list[Block] = [Paragraph(boards[0].note), Paragraph(_GLOSSARY)] if make is _ranking else []
        for board in boards:
            made = make(board)
            if made and len(boards) > 1:
                blocks.append(Paragraph(f"{board.title[:1].upper()}{board.title[1:]}:"))
            blocks += made
        if blocks:
            sections.append(Section(title, blocks))
    drawn = _frontiers(boards)
    return [*sections[:2], *([Section("Classify or reject", drawn)] if drawn else []), *sections[2:]]


def adversarial_text(board: Board) -> list[str]:
    """What stands behind one board's ranking, as lines of Markdown: all but its pictures and cost."""
    parts: list[tuple[str, Callable[[Board], Sequence[Block]]]] = [
        ("What may be quoted", _quotes),
        ("Can these figures be believed?", _checks),
        ("Attack by attack", attack_by_attack),
        ("Precision where attacks are rare", precision),
    ]
    made = [(title, make(board)) for title, make in parts]
    return [line for title, blocks in made if blocks for line in ("", f"### {title}", *as_markdown(blocks))]


def _ranking(board: Board) -> list[Block]:
    rows, whole = [], []
    for rank, row in enumerate(board.rows, start=1):
        name = row.name + (f" ({row.done} of {row.of} cells)" if row.done < row.of else "")
        found = [written(row.figures.get(word), METRICS[word].form, False) for word in _RANKED]
        whole.append([name, *(written(row.figures.get(word), METRICS[word].form) for word in _RANKED)])
        rows.append([f"{rank}. {name}", *found[:3], "✕ unverified" if row.unverified else _marked(row), *found[3:]])
    heads = [SHORT.get(word, METRICS[word].words) for word in _RANKED]
    return [
        Table(["", *heads[:3], "believed?", *heads[3:]], rows),
        Table(["", *heads], whole, "The same with 95 % intervals"),
        *([Paragraph(board.lacks)] if board.missing else []),
    ]


def _marked(row: Row) -> str:
    """How many masking checks passed: green only where none is without an answer."""
    checks = row.detail.get("checks", [])
    passed, failed = (sum(check["passed"] is wanted for check in checks) for wanted in (True, False))
    untried = len(_untried(row))
    settled = passed + failed
    open_ = [(untried, "not tried"), (len(checks) - settled - untried, "undecided")]
    rest = "".join(f", {count} {word}" for count, word in open_ if count)
    if not settled:
        return rest.removeprefix(", ") or "-"
    if failed:
        return f"✕ {failed} of {settled} failed{rest}"
    return f"{passed} passed{rest}" if rest else f"✓ {passed}"


def _untried(row: Row) -> list[Mapping[str, Any]]:
    return [
        check
        for check in row.detail.get("checks", [])
        if check["passed"] is None and str(check["found"]).startswith("not tried")
    ]


def _quotes(board: Board) -> list[Block]:
    items = [
        Mark(_kind(row), f"{row.name}:", row.detail["sentence"]) for row in board.rows if row.detail.get("sentence")
    ]
    return [Marks(items)] if items else []


def _kind(row: Row) -> Kind:
    if row.unverified:
        return "warning"
    return "bad" if any(check["passed"] is False for check in row.detail.get("checks", [])) else "info"


def _curves(board: Board) -> list[Block]:
    norms = list(dict.fromkeys(system["norm"] for row in board.rows for system in row.detail.get("systems", [])))
    blocks: list[Block] = []
    for norm in norms:
        lines: list[Reach] = []
        for row in board.rows:
            systems = sorted((s for s in row.detail.get("systems", []) if s["norm"] == norm), key=lambda s: s["eps"])
            if systems:
                lines.append(_reach(row.name, systems, len(lines) < _NAMED))
        if not lines or max(len({*line.oblivious, *line.adaptive}) for line in lines) < 3:
            continue  # two sizes are no curve: they are in the table
        alt = f"{board.title}: the share of attacks that succeed as the change allowed grows, a line for each detector."
        blocks.append(Picture(success_curves(lines, f"eps ({norm})"), alt=alt, caption=_drawn(lines)))
    return [*blocks, _reached(board)]


def _drawn(lines: Sequence[Reach]) -> str:
    """What the lines and dots are, of those that are drawn."""
    tried = {len(line.adaptive) for line in lines}
    said = ["dashed: attackers who do not know the detector"] if any(line.oblivious for line in lines) else []
    if max(tried) > 1:
        said.append("solid, with dots: attackers who do")
    if 1 in tried:
        said.append("a single dot: attackers who do, at the one size that they tried")
    if tried == {0}:
        said.append("no attacker who knows the detector was tried")
    if len(lines) > _NAMED:
        said.append(f"{len(lines) - _NAMED} lower-ranked in grey")
    words = "; ".join(said)
    return f"{words[:1].upper()}{words[1:]}."


def _reach(name: str, systems: Sequence[Mapping[str, Any]], shown: bool) -> Reach:
    def points(word: str) -> list[tuple[float, float]]:
        found = [(float(system["eps"]), figure_of(system.get(word))) for system in systems]
        return [(eps, figure.value) for eps, figure in found if figure is not None]

    return Reach(name, points("success_oblivious"), points("success_adaptive"), shown)


def _reached(board: Board) -> Table:
    """Oblivious and adaptive success side by side, by size of change."""
    sizes = sorted({(s["norm"], s["eps"]) for row in board.rows for s in row.detail.get("systems", [])})
    rows = []
    for row in board.rows:
        found = {(s["norm"], s["eps"]): s for s in row.detail.get("systems", [])}
        rows.append([row.name, *(_before_after(found.get(size, {})) for size in sizes)])
    heads = ["", *(f"{norm} {eps:g}" for norm, eps in sizes)]
    note = "The share of attacked inputs that end with a wrong label and accepted, in per cent."
    return Table(heads, rows, "Success: oblivious → adaptive", note)


def _before_after(system: Mapping[str, Any]) -> str:
    before, after = figure_of(system.get("success_oblivious")), figure_of(system.get("success_adaptive"))
    return f"{bare(before)} → {bare(after)}"


def _frontiers(boards: Sequence[Board]) -> list[Block]:
    blocks: list[Block] = []
    for data in dict.fromkeys(str(board.detail["data"]) for board in boards):
        groups: dict[str, list[tuple[str, float, float]]] = {}
        reference: list[tuple[float, float]] = []
        own = [board for board in boards if board.detail["data"] == data]
        for board in own:
            for row in board.rows:
                useful, robust = row.figures.get("useful"), row.figures.get("robust_accuracy")
                if useful is None or robust is None or row.unverified:
                    continue
                about = board.detail
                to_beat = about["victim"] == about["reference_victim"]
                if to_beat and row.name.partition(" at ")[0] == about["reference"]:
                    reference.append((useful.value, robust.value))
                groups.setdefault(f"classifier trained {about['victim']}", []).append(
                    (row.name, useful.value, robust.value)
                )
        if not groups:
            continue
        about = own[0].detail
        said = f"to beat: {about['reference_victim']} training and {about['reference']}"
        title = f"{data}, {about['norm']} eps {about['eps']:g}"
        blocks.append(
            Picture(
                frontier(groups, reference, said, title),
                alt=f"{data}: robust accuracy with rejection against clean inputs classified rightly and accepted; "
                "named are systems that no other beats on both.",
                caption="Up and right is better. Named: systems that no other beats on both axes. "
                + (
                    "A system below the dashed line is no better than an adversarially trained classifier that rejects "
                    "what it is least sure of."
                    if reference
                    else "The reference (an adversarially trained classifier that "
                    "rejects what it is least sure of) is not among the cells that are done."
                ),
            )
        )
    return blocks


def _clean(board: Board) -> list[Block]:
    rows = [
        [row.name, *(written(row.figures.get(word), METRICS[word].form) for word in _CLEAN)]
        for row in board.rows
        if row.done
    ]
    return [Table(["", *(METRICS[word].words for word in _CLEAN)], rows)] if rows else []


def _noise(board: Board) -> list[Block]:
    kinds = list(dict.fromkeys(_change(r) for row in board.rows for r in row.detail.get("noise", [])))
    rows = []
    for row in board.rows:
        found = {_change(r): r for r in row.detail.get("noise", [])}
        if found:
            rows.append([row.name, *(bare(figure_of(found.get(kind, {}).get("flagged"))) for kind in kinds)])
    if not rows:
        return []
    note = (
        "Changes of a size that attackers use, after which the classifier says what it said before. A detector that "
        "flags these as often as attacks detects changes, not attacks."
    )
    return [Table(["", *kinds], rows, "Harmless changes flagged, in per cent", note)]


def _change(row: Mapping[str, Any]) -> str:
    """A harmless change in words; those without a size of their own are stored with 0."""
    plain = {"blur": "blur, 3 x 3", "shift": "shift by a pixel", "round": "round to 256 levels"}
    kind = str(row["kind"])
    return f"{kind} {row['eps']:g}" if row["eps"] else plain.get(kind, kind)


def _small(board: Board) -> list[Block]:
    about, rows = board.detail, []
    for row in board.rows:
        systems = row.detail.get("systems", [])
        at = next((s for s in systems if s["norm"] == about["norm"] and math.isclose(s["eps"], about["eps"])), None)
        if at is None:
            continue
        small, bound = at.get("rejected_small") or {}, at.get("tramer") or {}
        passed, limit = bound.get("passed"), bound.get("bound")
        if not small and limit is None:
            continue
        sign = {True: "✓ at most", False: "✕ above", None: "above"}[passed]
        said = "-" if limit is None else f"{sign} {100 * limit:.1f} %, {bound['of']}"
        sizes = (bare(figure_of(small.get(size))) for size in ("eps/8", "eps/4", "eps/2"))
        reached = (bare(figure_of(at.get(word))) for word in ("robust_accuracy", "fc"))
        rows.append([row.name, *sizes, *reached, said])
    if not rows:
        return []
    heads = ["", "rejected at eps/8", "at eps/4", "at eps/2", "RA_D", "FC", "Tramèr's check of FC"]
    note = (
        "To reject a tiny change of a clean input is an error too. Tramèr's check: a detector that holds at eps gives "
        "a classifier that holds at eps / 2, so robust accuracy above that of the best known classifier at eps / 2 "
        "would be a breakthrough, or a sign of masked gradients. It is put to FC, since to reject everything reaches "
        "an RA_D of 1. The classifiers of this suite are measured by the attacks of those who know them alone, on the "
        "same inputs; published figures are of the whole test set. Above a classifier that was not made robust there "
        "is nothing to conclude."
    )
    caption = f"Changes smaller than {about['norm']} eps {about['eps']:g}, in per cent"
    return [Table(heads, rows, caption, note)]


def _checks(board: Board) -> list[Block]:
    names = list(dict.fromkeys(check["name"] for row in board.rows for check in row.detail.get("checks", [])))
    if not names:
        return []
    means = {check["name"]: check["means"] for row in board.rows for check in row.detail.get("checks", [])}
    signs = {True: "✓", False: "✕", None: "-"}
    rows, failed = [], []
    for row in board.rows:
        found = {check["name"]: check for check in row.detail.get("checks", [])}
        if found:
            rows.append([row.name, *(signs[found[name]["passed"]] if name in found else "-" for name in names)])
        failed += [
            Mark("bad", f"{row.name}, {name}:", check["found"], check["means"])
            for name, check in found.items()
            if check["passed"] is False
        ]
    blocks: list[Block] = [Table(["", *names], rows, "Masking checks")]
    if failed:
        blocks += [Notice("bad", "Figures of rows with a red mark say less than they seem to."), Marks(failed)]
    untried = [
        Mark("warning", f"{row.name}:", f"{', '.join(check['name'] for check in left)}: {left[0]['found']}")
        for row in board.rows
        if (left := _untried(row))
    ]
    if untried:
        blocks += [Paragraph("Where a check was not tried, nothing is known of what it looks for:"), Marks(untried)]
    known = [Mark("info", f"{name}:", means[name]) for name in names]
    return [*blocks, Paragraph("What each check means:"), Marks(known)]
