"""The demo end to end, and the page that it writes."""

from __future__ import annotations

import base64
import json
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from robustgen.demo import DETECTORS, Outcome, Settings, run
from robustgen.demo_page import KINDS, page, write
from robustgen.errors import DataError
from robustgen.report.page import render


class Reader(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.pictures: list[dict[str, str | None]] = []
        self.tags: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.tags.append(tag)
        if values.get("id"):
            self.ids.add(str(values["id"]))
        if tag == "a":
            self.links.append(str(values["href"]))
        if tag == "img":
            self.pictures.append(values)

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def outcome() -> Outcome:
    stages: list[tuple[str, float]] = []
    found = run(Settings(), lambda name, share: stages.append((name, share)))
    shares = [round(share, 9) for _, share in stages]
    assert shares == sorted(shares)
    assert stages[-1][1] <= 1
    return found


@pytest.mark.slow
def test_a_real_classifier_is_fooled_and_a_real_detector_catches_it(outcome: Outcome) -> None:
    pgd = outcome.attacks["pgd"]
    assert pgd.clean_accuracy.value > 0.95
    assert pgd.robust_accuracy.value < 0.2
    assert pgd.robust_accuracy.value <= outcome.attacks["fgsm"].robust_accuracy.value
    found = outcome.separations["autoencoder"]
    assert found["pgd"].detected.value > 0.7
    assert found["foreign"].detected.value > 0.9
    for separations in outcome.separations.values():
        assert separations["pgd"].false_alarms.low < 0.05 + 0.03


@pytest.mark.slow
def test_adversarial_kinds_hold_successes_only(outcome: Outcome) -> None:
    for name in ("fgsm", "pgd"):
        assert len(outcome.inputs[name]) == outcome.attacks[name].samples["success"].sum()
        changed = (outcome.adversarial[name] - outcome.clean).abs().flatten(1).amax(1)
        assert changed.max() <= 0.2 * (1 + 1e-6)


@pytest.mark.slow
def test_the_page_is_whole_and_says_what_the_numbers_say(outcome: Outcome, tmp_path: Path) -> None:
    write(tmp_path, outcome)
    results = json.loads((tmp_path / "results.json").read_text())
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    read = Reader(html)
    assert "script" not in read.tags
    assert "http" not in html.replace("http-equiv", "").replace("http://www.w3.org", "")
    for link in read.links:
        assert link.startswith("#")
        assert link[1:] in read.ids
    assert len(read.pictures) >= 2 + 2 * len(DETECTORS)
    for picture in read.pictures:
        assert picture["alt"]
        source = str(picture["src"])
        assert source.startswith("data:image/")
        assert len(base64.b64decode(source.split(",", 1)[1], validate=True)) > 1000
    for name, detector in results["detectors"].items():
        for kind, found in detector["kinds"].items():
            assert f"{100 * found['detection_rate']['value']:.1f} %" in read.text, (name, kind)
            assert KINDS[kind] in read.text
    assert f"{100 * results['attacks']['pgd']['robust_accuracy']:.1f} %" in read.text
    assert "do not know of the detectors" in read.text
    assert len(html) < 2_500_000
    with np.load(tmp_path / "scores.npz") as scores:
        assert set(scores.files) == {f"{name}/{kind}" for name in DETECTORS for kind in outcome.kinds}


@pytest.mark.slow
def test_a_page_without_a_single_success_can_be_written() -> None:
    """An attack that fools nothing has no pictures and no adversarial scores, and is no crash."""
    found = run(Settings(eps=0.0))
    assert found.attacks["pgd"].success_rate is not None
    assert found.attacks["pgd"].success_rate.value == 0
    assert "pgd" not in found.inputs
    assert "under PGD" in render(page(found))


def test_tables_are_not_for_the_demo(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("a,b,label\n" + "\n".join(f"{i},{i * 2},{i % 2}" for i in range(50)))
    with pytest.raises(DataError, match="needs grey or RGB images"):
        run(Settings(data=str(path)))
