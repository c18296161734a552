"""Leaderboards: who stands where, with which interval, what changed, and what a gate lets through."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

import bench_toys as toys
from robustgen.bench import adversarial_page
from robustgen.bench.adversarial import merged
from robustgen.bench.attacks_section import attack_by_attack
from robustgen.bench.cell import Found, Means, config, key
from robustgen.bench.compare import compared
from robustgen.bench.figures import METRICS, Figure, over_parts, over_seeds, written
from robustgen.bench.gates import check_gates, gates, judge, rows_of
from robustgen.bench.leaderboard import Leaderboard, leaderboard, write
from robustgen.bench.places import identities
from robustgen.bench.store import Store
from robustgen.bench.suite import Board, Suite, parse
from robustgen.errors import ArtifactError, UsageError
from robustgen.report.page import Marks, Picture, Table

TEXT = """
name = "trial"
description = "Figures written by hand."
[victims.plain]
[victims.adversarial]
adversarial = "fast-fgsm"
[board]
reference = "pca"
[[cells]]
kind = "adversarial"
data = "digits"
victim = ["plain", "adversarial"]
detector = ["pca", "gat", "knn", "isolation-forest"]
seed = [0, 1]
"""
SKILLS = {"pca": 0.4, "gat": 0.9, "knn": 0.2, "isolation-forest": 0.99}


def stored(
    suite: Suite,
    root: Path,
    skills: dict[str, float],
    leave: str = "",
    edit: Callable[[dict[str, Any]], None] = lambda metrics: None,
) -> Leaderboard:
    """Hand-made metrics for the cells of `suite`, but for a detector called `leave` beside the plain classifier; nobody
    who knows the isolation forest has attacked it, and a check of knn fails. `edit`: changes what a cell stores.
    """
    store, hashes = Store(root), identities(["digits"])
    for listed in suite.cells:
        detector, victim, seed = (listed.axes[word] for word in ("detector", "victim", "seed"))
        if (detector, victim) != (leave, "plain"):
            place = store.place(key(listed.cell, hashes))
            place.mkdir(parents=True)
            found = toys.metrics(
                str(detector),
                str(victim),
                int(seed),
                skills[str(detector)],
                adaptive=detector != "isolation-forest",
                masked=detector == "knn",
            )
            edit(found)
            store.write(place, config(listed.cell, hashes), Found(found), 3.0, Means())
    return leaderboard(suite, store)


@pytest.fixture
def suite() -> Suite:
    return parse(TEXT, "trial")


def test_ranked_by_the_worst_case_and_the_unverified_last(suite: Suite, tmp_path: Path) -> None:
    found = stored(suite, tmp_path, SKILLS, leave="knn")
    plain, hard = found.boards
    assert [row.name for row in hard.rows] == ["gat", "pca", "knn", "isolation-forest"]
    assert [row.name for row in plain.rows] == ["gat", "pca", "isolation-forest"]
    assert (plain.missing, hard.missing) == (["knn"], [])
    forest = hard.rows[-1]
    assert forest.unverified  # however low the success of those who do not know it
    assert (forest.figures["success_worst"] or Figure(1)).value < (
        hard.rows[0].figures["success_worst"] or Figure(0)
    ).value
    assert (found.done, found.of) == (14, 16)
    assert found.seconds == pytest.approx(3.0 * 14)


def test_a_plain_classifier_condemns_no_system_while_the_robust_one_is_not_measured(
    suite: Suite, tmp_path: Path
) -> None:
    store, hashes = Store(tmp_path), identities(["digits"])
    for listed in suite.cells:
        if listed.axes["detector"] == "isolation-forest" and listed.axes["victim"] == "plain":
            place = store.place(key(listed.cell, hashes))
            place.mkdir(parents=True)
            found = toys.metrics("isolation-forest", "plain", int(str(listed.axes["seed"])), 0.99, adaptive=False)
            store.write(place, config(listed.cell, hashes), Found(found), 3.0, Means())
    check = leaderboard(suite, store).boards[0].rows[0].detail["checks"][-1]
    assert (check["name"], check["passed"]) == ("best known classifier", None)
    (row,) = [row for row in stored(suite, tmp_path / "whole", SKILLS).boards[0].rows if row.name == "isolation-forest"]
    assert row.detail["checks"][-1]["passed"] is False


def test_a_suite_is_ranked_by_its_headline_where_its_board_names_no_size(tmp_path: Path) -> None:
    text = TEXT.replace("seed = [0, 1]", "seed = 0\nheadline = 0.2\neps = [0.05]")
    row = stored(parse(text, "trial"), tmp_path, SKILLS).boards[0].rows[0]
    at = toys.metrics("gat", "plain", 0, SKILLS["gat"])["systems"][2]
    assert at["eps"] == 0.2
    assert row.figures["success_worst"] == Figure(**{word: at["success_worst"][word] for word in Figure._fields})
    assert not row.unverified


def test_who_was_attacked_at_another_size_alone_is_not_called_unverified(suite: Suite, tmp_path: Path) -> None:
    def elsewhere(metrics: dict[str, Any]) -> None:
        if metrics["detector"] == "gat":
            metrics["systems"][0]["success_adaptive"] = None

    small = replace(suite, board=replace(suite.board, eps=0.05))
    for name, chosen in (("two", small), ("one", replace(small, cells=_first(small)))):
        rows = stored(chosen, tmp_path / name, SKILLS, edit=elsewhere).boards[0].rows
        assert [row.name for row in rows] == ["pca", "knn", "gat", "isolation-forest"]
        assert [row.unverified for row in rows] == [False, False, False, True]
        said = rows[2].detail["sentence"]
        assert "who knows it has attacked it at other sizes alone (linf 0.1)" in said
        assert "nobody" not in said
        assert "unverified" not in said


def _first(suite: Suite) -> Any:
    """The cells of one seed."""
    return tuple(cell for cell in suite.cells if cell.axes["seed"] == 0)


def test_a_sentence_to_quote_begins_with_what_it_is_about(suite: Suite, tmp_path: Path) -> None:
    for name, chosen in (("two", suite), ("one", replace(suite, cells=_first(suite)))):
        found = stored(chosen, tmp_path / name, SKILLS)
        for board, victim in zip(found.boards, ("plain", "adversarial"), strict=True):
            for row in board.rows:
                whom = f"{row.name} on digits, beside a classifier trained {victim}"
                assert row.detail["sentence"].startswith(whom)
            (marks,) = adversarial_page._quotes(board)
            assert isinstance(marks, Marks)
            assert [mark.title for mark in marks.items] == [f"{row.name}:" for row in board.rows]


def test_a_check_that_was_not_tried_is_no_tick(suite: Suite, tmp_path: Path) -> None:
    def edit(metrics: dict[str, Any]) -> None:
        if metrics["detector"] in ("pca", "knn") and metrics["seed"] == 1:  # of one seed is enough
            metrics["checks"][0] |= {"passed": None, "found": "not tried: the score has no gradients"}

    found = stored(suite, tmp_path, SKILLS, edit=edit)
    marked = {row.name: adversarial_page._marked(row) for row in found.boards[0].rows}
    assert marked["gat"] == "✓ 4"
    assert marked["pca"] == "3 passed, 1 not tried"
    assert marked["knn"] == "✕ 1 of 3 failed, 1 not tried"
    write(found, tmp_path, "")
    for name in ("index.html", "leaderboard.md"):
        text = (tmp_path / name).read_text(encoding="utf-8")
        assert "monotone: not tried: the score has no gradients" in text


def test_attackers_who_know_the_detector_are_told_as_the_others_are(suite: Suite, tmp_path: Path) -> None:
    def edit(metrics: dict[str, Any]) -> None:
        for row in metrics["rows"]:
            if row["threat"] == "W":
                row["precision"] = {"0.5": 0.444, "0.1": 0.333, "0.01": 0.222, "0.001": 0.111}
                row["tpr"] = {rate: toys.estimate(0.0123) for rate in ("0.001", "0.01", "0.05")}
                row |= {"surrogate": True} if metrics["detector"] == "knn" else {}

            if row["threat"] == "Q":
                row["eps"] = 0.02
        metrics["rows"].reverse()

    found = stored(suite, tmp_path, SKILLS, edit=edit)
    write(found, tmp_path, "")
    heads = ["white-box: adaptive-standard linf 0.1", "transfer: surrogate linf 0.1", "queries: square linf 0.02"]
    tables = [block for block in attack_by_attack(found.boards[0]) if isinstance(block, Table)]
    assert ["", *heads] in [table.columns for table in tables]  # the size that ranks first
    stood_in = [row.name for row in found.boards[0].rows if "stand-in" in row.detail["sentence"]]
    assert stood_in == ["knn"]
    auroc = 0.6 + 0.35 * SKILLS["gat"] - 0.005
    for name in ("index.html", "leaderboard.md"):
        text = (tmp_path / name).read_text(encoding="utf-8")
        assert "Precision against attackers who know the detector" in text
        assert "44.4" in text
        assert "11.1" in text
        assert "1.2 / 1.2 / 1.2" in text
        assert "knn: attacked through a stand-in for the gradient" in text
        assert "Seconds that these attacks took" in text
        assert f"{auroc:.3f} [" in text  # with its interval
        assert "gat on digits, beside a classifier trained plain" in text
        assert "3 of 100 gradients are zero." in text


def test_what_blind_attackers_spent_is_declared_as_far_as_it_is_known(suite: Suite, tmp_path: Path) -> None:
    def unknown(metrics: dict[str, Any]) -> None:
        for row in metrics["rows"]:
            row |= {"seconds": None, "effort": None} if row["threat"] == "Z" else {}

    def edit(metrics: dict[str, Any]) -> None:
        unknown(metrics)
        for row in metrics["rows"]:
            if row["threat"] == "Z" and row["attack"] == "pgd" and metrics["seed"] == 0:
                row |= {"seconds": 12.5, "effort": {"pgd": {"steps": 40, "draws": 1}}}

    caption = "What attacks on the classifier alone may spend on one input"
    for change, known in ((unknown, False), (edit, True)):
        found = stored(suite, tmp_path / str(known), SKILLS, edit=change)
        tables = [block for block in attack_by_attack(found.boards[0]) if isinstance(block, Table)]
        spent = [table for table in tables if table.caption == caption]
        assert bool(spent) == known
    (table,) = spent
    lines = {line[0]: dict(zip(table.columns[1:], line[1:], strict=True)) for line in table.rows}
    assert {name: values["pgd linf 0.1"] for name, values in lines.items()} == {
        "steps": "40",
        "draws": "1",
        "seconds for all inputs": "12.5",
    }


def test_changes_without_a_size_are_called_what_they_are() -> None:
    names = {kind: adversarial_page._change({"kind": kind, "eps": 0.0}) for kind in ("blur", "shift", "round", "other")}
    assert names == {
        "blur": "blur, 3 x 3",
        "shift": "shift by a pixel",
        "round": "round to 256 levels",
        "other": "other",
    }
    assert adversarial_page._change({"kind": "sign", "eps": 0.05}) == "sign 0.05"


def test_figures_are_those_that_were_stored(suite: Suite, tmp_path: Path) -> None:
    row = stored(suite, tmp_path, SKILLS).boards[0].rows[0]
    made = [toys.metrics("gat", "plain", seed, SKILLS["gat"]) for seed in (0, 1)]
    for word in ("success_worst", "success_adaptive", "success_oblivious", "robust_accuracy", "fc"):
        at = [metrics["systems"][1][word]["value"] for metrics in made]  # eps 0.1 is the second
        assert row.figures[word] is not None
        assert row.figures[word].value == pytest.approx(sum(at) / 2)
    worst = min(
        (sum(m["rows"][number]["auroc"]["value"] for m in made) / 2 for number in range(6)),
    )
    assert (row.figures["worst_auroc"] or Figure(0)).value == pytest.approx(worst)
    assert row.figures["checks_failed"] == Figure(0.0)
    assert row.detail["rows"][0]["attack"] == "fgsm"


def test_several_seeds_widen_an_interval_and_never_shrink_it() -> None:
    one = Figure(0.5, 0.4, 0.7)
    assert over_seeds([one]) == one
    same = over_seeds([one, one, one])
    assert same is not None
    assert same == pytest.approx(one)
    apart = over_seeds([Figure(0.4, 0.3, 0.6), Figure(0.6, 0.5, 0.8)])
    assert apart is not None
    half = 12.7062047362 * (0.2 / 2**0.5) / 2**0.5  # Student's t with one degree of freedom
    assert apart.value == pytest.approx(0.5)
    assert (apart.low, apart.high) == (0.0, 1.0)  # half is above 1
    assert half > 1
    assert over_seeds([None, one, None]) == one
    assert over_seeds([None]) is None
    assert over_seeds([Figure(2.0), Figure(4.0)]) == Figure(3.0)


def test_errors_of_independent_parts_partly_cancel() -> None:
    parts = [Figure(0.8, 0.7, 0.85), Figure(0.6, 0.5, 0.65)]
    found, together = over_parts(parts), over_parts(parts, independent=False)
    assert found is not None
    assert together is not None
    assert found == pytest.approx(Figure(0.7, 0.7 - 0.1 / 2**0.5, 0.7 + 0.05 / 2**0.5))
    assert together == pytest.approx(Figure(0.7, 0.6, 0.75))
    assert over_parts([]) is None


def test_what_is_merged_keeps_its_form() -> None:
    first = {"a": {"value": 0.2, "low": 0.1, "high": 0.3, "n": 5}, "b": True, "c": "x", "d": 1, "e": None}
    second = {"a": {"value": 0.2, "low": 0.1, "high": 0.3, "n": 5}, "b": False, "c": "x", "d": 3, "e": None}
    found = merged([first, second])
    assert found["a"] == pytest.approx({"value": 0.2, "low": 0.1, "high": 0.3, "n": 5})
    assert (found["b"], found["c"], found["d"], found["e"]) == (False, "x", 2, None)
    assert isinstance(found["d"], int)  # a count stays one
    assert merged([1, 1.5]) == 1.25
    assert merged([]) is None


def test_written() -> None:
    assert written(Figure(0.1234, 0.1, 0.2), "percent") == "12.3 % [10.0, 20.0]"
    assert written(Figure(0.1234, 0.1, 0.2), "percent", interval=False) == "12.3 %"
    assert written(Figure(0.98765), "number") == "0.988"
    assert written(None, "percent") == "-"


class Reader(HTMLParser):
    """Tags that are open at the end, all text, and addresses asked for."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text: list[str] = []
        self.asked: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in {"meta", "img", "br", "hr"}:
            self.open.append(tag)
        self.asked += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_the_page_the_markdown_and_the_json_say_the_same(suite: Suite, tmp_path: Path) -> None:
    found = stored(suite, tmp_path, SKILLS, leave="knn")
    write(found, tmp_path, "robustgen bench trial")
    read = Reader((tmp_path / "index.html").read_text(encoding="utf-8"))
    text = " ".join(read.text)
    assert read.open == []
    assert all(address.startswith(("#", "data:")) for address in read.asked)
    for section in (
        "Ranking",
        "Classify or reject",
        "What attackers reach",
        "Precision where attacks are rare",
        "Harmless noise",
        "Can these figures be believed?",
        "What is proven",
        "What may be quoted",
    ):
        assert section in text
    assert "✕ unverified" in text
    assert "✕ 1 of 4 failed" in text
    assert "2 of 16 cells are not done" in text.replace("\N{NO-BREAK SPACE}", " ")
    known = json.loads((tmp_path / "leaderboard.json").read_text(encoding="utf-8"))
    best = known["boards"][0]["rows"][0]
    assert (best["rank"], best["name"], known["command"]) == (1, "gat", "robustgen bench trial")
    shown = written(Figure(**best["metrics"]["success_worst"]), "percent")
    assert shown in text
    assert shown in (tmp_path / "leaderboard.md").read_text(encoding="utf-8")
    assert "trained plain" in best["detail"]["sentence"]
    # 91 and 83 % clean, of which 20 % are fooled at half the size: the better classifier of the two of this suite
    assert (
        "72.8 % at half the size by the classifier trained plain, the best of the 2 measured here"
        in best["detail"]["sentence"]
    )
    (at,) = [one for one in best["detail"]["systems"] if one["eps"] == 0.1]
    assert (at["tramer"]["bound"], at["tramer"]["passed"]) == (pytest.approx(0.728), True)
    assert best["detail"]["checks"][-1] | {"found": ""} == {
        "name": "best known classifier",
        "passed": True,
        "found": "",
        "means": best["detail"]["checks"][-1]["means"],
    }
    (high,) = [row for row in known["boards"][0]["rows"] if row["name"] == "isolation-forest"]
    assert high["detail"]["checks"][-1]["passed"] is False
    assert "more than a classifier is known to reach" in high["detail"]["sentence"]
    assert "✕ above 72.8 %" in text.replace("\N{NO-BREAK SPACE}", " ")
    proven = Figure(**best["metrics"]["certified"])
    assert proven.value == pytest.approx(0.5 * SKILLS["gat"] + 0.005)
    assert written(proven, "percent") in text
    assert "no bounds are known of the scores of pca" in text


def test_curves_are_drawn_of_the_sizes_that_were_tried(suite: Suite, tmp_path: Path) -> None:
    """Who knows the detector attacks fewer sizes than who does not, or one alone."""
    (board, _) = stored(suite, tmp_path, SKILLS).boards
    row = board.rows[0]
    (at,) = [system for system in row.detail["systems"] if system["eps"] == 0.1]
    systems = [at | {"eps": eps, "success_adaptive": None} for eps in (0.02, 0.05)] + [at]
    line = adversarial_page._reach(row.name, systems, shown=True)
    assert [eps for eps, _ in line.oblivious] == [0.02, 0.05, 0.1]
    assert line.adaptive == [(0.1, at["success_adaptive"]["value"])]
    row.detail["systems"] = systems
    (picture,) = [block for block in adversarial_page._curves(board) if isinstance(block, Picture)]
    (axes,) = picture.figure.axes
    drawn = {tuple(map(float, curve.get_xdata())) for curve in axes.get_lines()}
    assert {(0.02, 0.05, 0.1), (0.1,)} <= drawn
    assert "solid" in picture.caption  # the other rows have one
    alone = replace(board, rows=[row])
    (picture,) = [block for block in adversarial_page._curves(alone) if isinstance(block, Picture)]
    assert picture.caption == (
        "Dashed: attackers who do not know the detector; a single dot: attackers who do, at the one size that they "
        "tried."
    )


def test_comparison_tells_only_what_the_intervals_do_not_explain(suite: Suite, tmp_path: Path) -> None:
    one = replace(suite, cells=tuple(cell for cell in suite.cells if cell.axes["seed"] == 0))
    for name, skills in (("old", SKILLS), ("new", SKILLS | {"gat": 0.5}), ("near", SKILLS | {"gat": 0.91})):
        write(stored(one, tmp_path / name, skills), tmp_path / name, "")
    assert compared(tmp_path / "old", tmp_path / "old").differences == []
    near = compared(tmp_path / "old", tmp_path / "near" / "leaderboard.json")
    assert near.differences == []
    assert near.compared > 50
    found = compared(tmp_path / "old", tmp_path / "new").differences
    assert {one.row for one in found} == {
        f"digits, classifier trained {victim} / gat" for victim in ("plain", "adversarial")
    }
    verdicts = {one.metric: one.verdict for one in found}
    assert verdicts["success_worst"] == verdicts["robust_accuracy"] == verdicts["worst_auroc"] == "worse"
    back = {one.metric: one.verdict for one in compared(tmp_path / "new", tmp_path / "old").differences}
    assert set(back.values()) == {"better"}
    assert all(METRICS[metric].form not in ("seconds", "milliseconds") for metric in verdicts)
    fewer = replace(one, cells=tuple(cell for cell in one.cells if cell.axes["detector"] != "knn"))
    write(stored(fewer, tmp_path / "fewer", SKILLS), tmp_path / "fewer", "")
    assert len(compared(tmp_path / "old", tmp_path / "fewer").only_old) == 2
    with pytest.raises(ArtifactError, match="is no leaderboard"):
        compared(tmp_path, tmp_path / "old")
    other = json.loads((tmp_path / "old" / "leaderboard.json").read_text(encoding="utf-8"))
    for board in other["boards"]:
        board["title"] = "elsewhere"
    (tmp_path / "other.json").write_text(json.dumps(other), encoding="utf-8")
    with pytest.raises(UsageError, match="no row in common"):
        compared(tmp_path / "old", tmp_path / "other.json")


def test_gates(suite: Suite, tmp_path: Path) -> None:
    rows = rows_of(stored(suite, tmp_path, SKILLS).boards)
    assert judge(rows, gates(["gat:robust_accuracy=0.5"], ["gat:success_worst=0.5"])) == []
    (missed,) = judge(rows, gates(["useful=0.85"], None))
    assert missed.startswith("useful is under 0.85: digits, classifier trained adversarial / gat (0.8)")
    assert "plain" not in missed
    (missed,) = judge(rows, gates(None, ["forest:success_adaptive=0.9"]))
    assert missed.count("not measured") == 2
    for under, over, said in (
        (["auroc"], None, "METRIC=VALUE"),
        (["auroc=x"], None, "METRIC=VALUE"),
        (["auroc=nan"], None, "METRIC=VALUE"),
        (["robust_acuracy=1"], None, "did you mean 'robust_accuracy'"),
        (["success_worst=1"], None, "--fail-over"),
        (None, ["useful=1"], "--fail-under"),
    ):
        with pytest.raises(UsageError, match=said):
            gates(under, over)
    check_gates(
        suite, gates(["gat:robust_accuracy=0.5", "certified=0", "accuracy=0.5"], ["plain / knn:success_worst=1"])
    )
    for refuse in (lambda asked: judge(rows, asked), lambda asked: check_gates(suite, asked)):
        with pytest.raises(UsageError, match="no row of the leaderboard has auroc, only accuracy, certified, "):
            refuse(gates(["auroc=0.5"], None))
        with pytest.raises(UsageError, match="no row of the leaderboard with 'gta' has useful: rows are digits, "):
            refuse(gates(["gta:useful=0.5"], None))


def test_the_reference_is_drawn_where_it_is_measured(suite: Suite, tmp_path: Path) -> None:
    from robustgen.bench.adversarial_page import adversarial_sections
    from robustgen.report.page import Picture

    def caption(chosen: Suite, root: Path) -> str:
        sections = adversarial_sections(stored(chosen, root, SKILLS).boards)
        blocks: list[Any] = next(section.blocks for section in sections if section.title == "Classify or reject")  # type: ignore[assignment]
        (picture,) = [block for block in blocks if isinstance(block, Picture)]
        return picture.caption

    assert "A system below the dashed line" in caption(suite, tmp_path / "with")
    assert "is not among the cells" in caption(replace(suite, board=Board(reference="lof")), tmp_path / "without")
