"""An attack's report says what was stored, all of it, and only that."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray

from robustgen.artifacts import to_json
from robustgen.attacks.pgd import PGD
from robustgen.data.digits import digits
from robustgen.data.source import DataSpec
from robustgen.evaluation.blocks import write_samples
from robustgen.evaluation.robustness import choose_target, evaluate_attack
from robustgen.objectives import Misclassify
from robustgen.report import attack_outcome, attack_search
from robustgen.report.attack_page import attack_page, save_report
from robustgen.report.attack_words import interval, size, sizes_of, verdict
from robustgen.report.examples import Examples, find_examples
from robustgen.report.page import Picture, Table, render
from robustgen.report.tally import chosen, confusions, fates, names_for, survivors
from robustgen.threat import ThreatModel
from toys import small_cnn

HOSTILE = "</td></style><script>alert('x')</script><img src=http://evil.example/x> {{ 7*7 }} & \"q\""
SPEC = DataSpec("shapes", "image", (1, 4, 4), ("circle", "square", "star"))


class Words(HTMLParser):
    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.parts: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        if tag == "img":
            self.images.append(dict(attrs))

    def handle_data(self, data: str) -> None:
        self.parts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.parts).replace("\N{NO-BREAK SPACE}", " ").split())


def samples() -> dict[str, NDArray[Any]]:
    """Ten inputs: two that the model gets wrong by itself, five that were fooled, three that held."""
    return {
        "index": np.arange(10),
        "y": np.array([0, 0, 0, 0, 1, 1, 1, 2, 2, 2]),
        "clean_prediction": np.array([0, 0, 0, 1, 1, 1, 1, 2, 2, 0]),
        "attacked": np.array([1, 1, 1, 0, 1, 1, 1, 1, 1, 0], dtype=bool),
        "prediction": np.array([1, 1, 2, 1, 0, 0, 1, 2, 2, 0]),
        "success": np.array([1, 1, 1, 0, 1, 1, 0, 0, 0, 0], dtype=bool),
        "first_success": np.array([1, 3, 8, -1, 1, 2, -1, -1, -1, -1]),
        "margin": np.array([1, 1, 1, 0, 1, 1, -0.25, -1.5, -2.5, 0.0]),
        "norm_linf": np.full(10, 8 / 255, dtype=np.float32),
        "norm_l2": np.array([0.5, 1.0, 1.5, 0, 2.0, 2.5, 9, 9, 9, 0.0]),
    }


def summary() -> dict[str, Any]:
    return {
        "attack": "auto-attack",
        "norm": "linf",
        "eps": 8 / 255,
        "n": 10,
        "n_attacked": 8,
        "clean_accuracy": 0.8,
        "clean_accuracy_interval": [0.49, 0.943],
        "robust_accuracy": 0.3,
        "robust_accuracy_interval": [0.108, 0.603],
        "success_rate": 0.625,
        "success_rate_interval": (0.306, 0.863),
        "curve": [
            {"eps": 4 / 255, "robust_accuracy": 0.5, "robust_accuracy_interval": [0.237, 0.763]},
            {"eps": 8 / 255, "robust_accuracy": 0.3, "robust_accuracy_interval": [0.108, 0.603]},
        ],
        "steps": 20,
        "first_success_mean": 9.4,
        "ceiling": 2.13,
        "members": [{"name": "apgd-ce", "fooled": 4}, {"name": "square", "fooled": 1}],
        "norms": {"linf": {"median": 8 / 255, "max": 8 / 255}, "l2": {"median": 1.5, "max": 2.5}, "l1": None},
        "quantise": {"levels": 256, "success_before": 0.75, "success_after": 0.625},
        "diagnosis": [
            {"name": "full-box", "holds": False, "measured": "7 of 8 fell", "meaning": "MEANS", "advice": "TRY"},
            {"name": "zero-gradients", "holds": True, "measured": "0%", "meaning": "flat", "advice": "margin"},
        ],
        "forward_passes": 12_345,
        "backward_passes": 600,
        "seconds": 1.5,
        "warnings": ["a warning of the run"],
        "configuration": {"steps": 20, "threat": {"norm": "linf", "eps": 8 / 255, "low": 0.0, "high": 1.0}},
        "data": "shapes",
        "data_sha256": "d" * 64,
        "model": "victim/",
        "model_sha256": "e" * 64,
        "split": "test",
        "skipped": {"a.png": "truncated"},
        "seed": 7,
        "device": {"device": "cpu", "threads": 2},
        "versions": {"torch": "2.14.1", "robustgen": "0.3.0"},
        "command": "robustgen attack auto-attack --eps 8/255",
    }


def shown(given: dict[str, Any], arrays: dict[str, NDArray[Any]], **more: Any) -> Words:
    return Words(render(attack_page(given, arrays, **more)))


def table(given: dict[str, Any], arrays: dict[str, NDArray[Any]], caption: str) -> list[list[str]]:
    blocks = [block for section in attack_page(given, arrays, SPEC).sections for block in section.blocks]
    (found,) = [block for block in blocks if isinstance(block, Table) and block.caption.startswith(caption)]
    return [list(row) for row in found.rows]


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every figure is an empty one: for what is said, at a hundredth of the time."""
    for module, names in (
        (attack_outcome, ("security_curve", "class_bars", "flow_map", "adversarial_strip")),
        (attack_search, ("count_bars", "count_histogram")),
    ):
        for name in names:
            monkeypatch.setattr(module, name, lambda *_, **__: Figure(figsize=(1, 1)))


def pictures() -> Examples:
    clean = np.random.default_rng(0).random((2, 1, 4, 4))
    return Examples(np.array([0, 4]), clean, np.clip(clean + 8 / 255, 0, 1))


def test_everything_that_was_stored_is_on_the_page() -> None:
    page = shown(summary(), samples(), spec=SPEC, examples=pictures())
    for text in (
        "The model is right on 80.0 % of clean inputs. An attacker who knows the model (white box) and may change "
        "every pixel by up to 8/255 (linf; pixels run from 0 to 1), fooled it on 62.5 % of the 8 inputs it attacked. "
        "It stays right on 30.0 % of all 10 inputs.",
        "95 % interval 10.8 to 60.3 %",
        "a warning of the run",
        "Half of the 5 inputs that fell had done so by step 2, nine in ten by step 8, the last at step 8. 3 of 8 never "
        "fell.",
        "followed for 9.4 of 20 steps",
        "at most 2.1 times as fast",
        "7 of 8 fell MEANS TRY",
        "rounded to 256 levels 62.5 %",
        "12,345 1543.1",
        "d" * 64,
        "e" * 64,
        "robustgen attack auto-attack --eps 8/255",
        "robustgen 0.3.0",
        "torch 2.14.1",
        "inputs left out as unreadable 1",
    ):
        assert text in page.text, text
    assert len(page.images) == 7
    for image in page.images:
        assert image["alt"]
        assert str(image["src"]).startswith("data:image/svg+xml;base64,")
    assert "circle taken for square, square taken for circle" in str(page.images[0]["alt"])


def test_tables_hold_the_numbers_behind_the_figures(undrawn: None) -> None:
    given, arrays = summary(), samples()
    by_class = table(given, arrays, "Accuracy by class")
    assert [row[:4] + row[5:] for row in by_class] == [
        ["circle", "4", "75.0 %", "0.0 %", "3", "square"],
        ["square", "3", "100.0 %", "33.3 %", "2", "circle"],
        ["star", "3", "66.7 %", "66.7 %", "0", "-"],
    ]
    assert table(given, arrays, "Commonest confusions") == [
        ["circle", "square", "2", "40.0 %"],
        ["square", "circle", "2", "40.0 %"],
        ["circle", "star", "1", "20.0 %"],
    ]
    assert table(given, arrays, "The curve") == [
        ["0", "80.0 %", "49.0 to 94.3 %"],
        ["4/255", "50.0 %", "23.7 to 76.3 %"],
        ["8/255", "30.0 %", "10.8 to 60.3 %"],
    ]
    assert table(given, arrays, "What each member") == [["apgd-ce", "4", "80.0 %"], ["square", "1", "20.0 %"]]
    assert table(given, arrays, "Margins") == [["3", "0.5", "1.5", "2.3", "2.5"]]
    assert table(given, arrays, "Size of the changes") == [
        ["linf", "8/255", "8/255", "8/255", "8/255"],
        ["l2", "0.7", "1.5", "2.3", "2.5"],
    ]


@pytest.mark.parametrize("key", sorted(summary()))
@pytest.mark.parametrize("instead", ["absent", None])
def test_a_summary_without_a_key_still_gives_a_page(key: str, instead: str | None, undrawn: None) -> None:
    given = {name: value for name, value in summary().items() if name != key} | ({} if instead else {key: None})
    page = attack_page(given, samples(), SPEC)
    assert page.title
    text = render(page)
    assert "None" not in text
    assert "nan" not in Words(text).text


@pytest.mark.parametrize("key", sorted(samples()))
def test_arrays_that_are_missing_take_only_their_own_section_away(key: str, undrawn: None) -> None:
    arrays = {name: values for name, values in samples().items() if name != key}
    assert "It stays right on 30.0 %" in shown(summary(), arrays, spec=SPEC, examples=pictures()).text


def test_nothing_at_all_and_no_inputs_at_all(undrawn: None) -> None:
    assert "How easily is it fooled?" in shown({}, {}).text
    assert shown({}, {key: values[:0] for key, values in samples().items()}).images == []
    assert "80.0 %" in shown(summary(), {}).text


def test_names_from_outside_stay_text() -> None:
    given = summary() | {
        "attack": HOSTILE,
        "data": HOSTILE,
        "model": HOSTILE,
        "command": HOSTILE,
        "warnings": [HOSTILE],
        "members": [{"name": HOSTILE, "fooled": 4}, {"name": "b", "fooled": 1}],
        "diagnosis": [dict.fromkeys(("name", "measured", "meaning", "advice"), HOSTILE) | {"holds": False}],
        "configuration": {HOSTILE: HOSTILE},
        "versions": {HOSTILE: HOSTILE},
        "device": {HOSTILE: HOSTILE},
    }
    spec = replace(SPEC, classes=(HOSTILE, "b", "c"))
    page = shown(given, samples(), spec=spec, examples=pictures())
    assert "script" not in page.tags
    assert all(str(image["src"]).startswith("data:") for image in page.images)
    assert "49" not in re.findall(r"\{\{.*?\}\}", page.text)
    assert page.text.count("{{ 7*7 }}") > 8


def test_the_same_run_gives_the_same_bytes_also_when_read_back(undrawn: None) -> None:
    first = render(attack_page(summary(), samples(), SPEC, pictures()))
    assert first == render(attack_page(json.loads(to_json(summary())), samples(), SPEC, pictures()))


def test_words_for_other_attackers() -> None:
    given = summary()
    assert "only sees the model's answers (black box)" in verdict(given | {"backward_passes": 0}, True)
    assert "move an input by up to 0.5 in Euclidean distance (l2" in verdict(given | {"norm": "l2", "eps": 0.5}, True)
    assert "change up to 3 values of an input" in verdict(given | {"norm": "l0", "eps": 3.0}, True)
    assert "change every value" in verdict(given, False)
    assert "fooled it on none of the 8" in verdict(given | {"success_rate": 0.0}, True)
    assert "the class aimed at" in verdict(given, True, aimed=True)
    assert "No input was attacked" in verdict(given | {"n_attacked": 0, "success_rate": None}, True)
    assert "box)" not in verdict(given | {"eps": 0.0, "backward_passes": 0}, True), "nothing was tried"
    endless = given | {"configuration": {"threat": {"low": None, "high": float("inf")}}}
    assert "run from" not in verdict(endless, False)
    assert verdict({"robust_accuracy": 0.5}, True) == "It stays right on 50.0 % of all inputs."


def test_sizes_are_in_255ths_only_where_they_were_meant_so() -> None:
    assert (size(8 / 255), size(0.2), size(0.1234), size(None), size(float("nan"))) == (
        "8/255",
        "0.2",
        "0.1234",
        "-",
        "-",
    )
    assert sizes_of([0, 4 / 255, 8 / 255]) == ["0", "4/255", "8/255"]
    assert sizes_of([0, 0.2 / 3, 0.04]) == ["0", "0.06667", "0.04"], "17/255 is a coincidence here"
    assert interval([0.1, None]) == "-"


def test_queries_margins_and_minimal_attacks_are_named_for_what_they_are(undrawn: None) -> None:
    assert "nine in ten by query 8" in shown(summary() | {"backward_passes": 0}, samples()).text
    minimal = summary() | {"configuration": {"mode": "minimal"}}
    assert "times as fast" not in shown(minimal, samples()).text
    aimed = shown(summary(), samples() | {"target": np.ones(10, dtype=int)}).text
    assert "How far the rest is" not in aimed, "the margin is that of the true class, not of the target"


def test_the_smallest_changes_are_told_where_they_are() -> None:
    """An attack that may go anywhere has a curve that ends long before the whole box, and no use for its size."""
    eps = [0.0, 0.1, 0.2, 0.3, 8.0]
    robust = [0.9, 0.8, 0.4, 0.0, 0.0]
    points = [
        {"eps": e, "robust_accuracy": r, "robust_accuracy_interval": [r, r]} for e, r in zip(eps, robust, strict=True)
    ]
    found = summary() | {
        "eps": 8.0,
        "norm": "l2",
        "curve": points,
        "clean_accuracy": 0.9,
        "norms": {"l2": {"median": 0.17, "max": 0.29}},
        "configuration": {"mode": "minimal"},
    }
    said = verdict(found, image=True)
    assert "as far as it takes" in said
    assert "Half of the changes are smaller than 0.17." in said
    assert "up to 8" not in said
    _, picture, table = attack_outcome.curve(found)
    assert isinstance(picture, Picture)
    assert isinstance(table, Table)
    assert picture.figure.axes[0].get_lines()[0].get_xdata()[-1] == 0.3
    assert [row[0] for row in table.rows] == ["0", "0.1", "0.2", "0.3"]
    assert "4 of 5 points" in table.note
    near = found | {"norms": {"l2": {"median": 3.0, "max": 7.9}}}
    assert "up to 8" in verdict(near, image=True)


def test_a_thousand_classes_are_cut_to_the_least_robust() -> None:
    y = np.repeat(np.arange(1000), 3)
    arrays = {"y": y, "clean_prediction": y, "prediction": (y + 1) % 1000, "success": np.arange(3000) % 4 == 0}
    rows, total = fates(arrays, 20)
    assert (len(rows), total) == (20, 1000)
    assert all(row.robust.value <= 2 / 3 for row in rows)
    page = shown({}, arrays)
    assert "The 20 least robust of 1000 classes" in page.text
    assert "10 of 750 pairs of classes" in page.text


def test_counts_add_up() -> None:
    arrays = samples()
    rows, _ = fates(arrays, 20)
    assert sum(row.fooled for row in rows) == sum(count for *_, count in confusions(arrays)) == arrays["success"].sum()
    assert list(survivors(arrays)) == [6, 7, 8]
    assert list(chosen(arrays, 3)) == [0, 1, 4], "each class that fell first, then the next"
    assert list(chosen(arrays, 8, among=2)) == [0, 1]
    assert names_for(("a",), {"y": np.array([0]), "prediction": np.array([2])}) == ["a", "1", "2"]


@pytest.mark.parametrize("targeted", [False, True])
def test_a_real_run_from_its_blocks_and_from_its_archive(
    tmp_path: Path, targeted: bool, request: pytest.FixtureRequest
) -> None:
    if targeted:
        request.getfixturevalue("undrawn")
    source = digits()
    attack = PGD(threat=ThreatModel("linf", 0.3), steps=5, objective=Misclassify(targeted=targeted))
    target = choose_target("next") if targeted else None
    model = small_cnn().eval()
    with torch.no_grad():  # what the random network says is what is right: nothing to train, much to fool
        source.y = model(source.read(source.rows("all")).x).argmax(1).numpy()
    found = evaluate_attack("pgd", attack, model, source, limit=40, target=target, diagnose=False, directory=tmp_path)
    assert found.samples["success"].any()
    path = save_report(tmp_path, found.summary, found.samples, source)
    assert path == tmp_path / "report.html"
    first = path.read_text(encoding="utf-8")
    examples = find_examples(tmp_path, found.samples, source)
    assert examples is not None
    change = np.abs(examples.adversarial - examples.clean).reshape(len(examples.rows), -1).max(1)
    np.testing.assert_allclose(change, found.samples["norm_linf"][examples.rows], rtol=1e-5)
    write_samples(tmp_path, found.samples)
    assert save_report(tmp_path, found.summary, found.samples, source).read_text(encoding="utf-8") == first
    words = Words(first)
    assert "What it looks like" in words.text
    assert f"{100 * found.robust_accuracy.value:.1f} %" in words.text


def test_a_table_has_no_pictures_of_its_rows(undrawn: None) -> None:
    spec = DataSpec("rows", "table", (4,), ("no", "yes", "maybe"))
    page = attack_page(summary(), samples(), spec)
    assert "What it looks like" not in [section.title for section in page.sections]
    assert "every value by up to" in Words(render(page)).text
    assert any(isinstance(block, Picture) for section in page.sections for block in section.blocks)


def test_a_purifier_is_judged_by_those_who_know_it_and_those_who_do_not(undrawn: None) -> None:
    def part(value: float) -> dict[str, float]:
        return {"value": value, "low": value - 0.1, "high": value + 0.1}

    bare = {"clean": part(0.9), "robust": part(0.1), "purified_clean": part(0.8), "purified_robust": part(0.7)}
    given = summary() | {"purifier": {"detector": "cycle-gan", "sha256": "ab", "oblivious": bare}}
    alone, behind = table(given, samples(), "With the purifier")
    assert alone == ["the classifier alone", "90.0 % (80.0 to 100.0 %)", "10.0 % (0.0 to 20.0 %)", "-"]
    assert behind[:3] == ["behind cycle-gan", "80.0 % (70.0 to 90.0 %)", "70.0 % (60.0 to 80.0 %)"]
    assert behind[3].startswith(f"{100 * given['robust_accuracy']:.1f} % (")
    known = summary() | {"purifier": {"detector": "vae", "sha256": "ab", "oblivious": None}}
    assert "sees what vae makes of an input" in shown(known, samples()).text
    assert "makes of an input" not in shown(summary(), samples()).text
