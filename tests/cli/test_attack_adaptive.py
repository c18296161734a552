"""`robustgen attack adaptive`."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from robustgen.evaluation import adaptive
from robustgen_cli import attack_adaptive

Run = Callable[..., Any]
pytestmark = pytest.mark.usefixtures("brief")

FEW = ("--limit", 12, "--only", "s-pgd-random", "--only", "square", "--no-diagnose")
SHARES = {
    "useful accuracy (right and accepted)", "attack success (wrong and accepted)", "robust accuracy with detector",
    "right, accepted and never evaded", "fooled, accepted or not",
}  # fmt: skip


@pytest.fixture
def two(run: Run, world: Path, tmp_path: Path) -> Path:
    """The data; beside it, in the current folder, `g`, a small guard."""
    data = ("--data", world / "two.npz")
    assert run("fit", "pca", *data, "--out", "pca", "--quiet").code == 0
    guard = ("guard", "--model", world / "victim", *data, "--fpr", "1/10", "--detector", "near=pca", "--out", "g")
    assert run(*guard, "--quiet").code == 0
    return world / "two.npz"


def test_result_and_files(run: Run, two: Path, tmp_path: Path) -> None:
    ran = run("attack", "adaptive", "--guard", "g", "--data", two, "--eps", ".1", "--out", "run/", "--json", *FEW)
    assert (ran.code, ran.err) == (0, "")
    found = ran.json
    assert found == json.loads((tmp_path / "run/results.json").read_text())
    assert (found["attack"], found["norm"], found["eps"], found["n"]) == ("adaptive-standard", "linf", 0.1, 12)
    assert (found["fpr"], found["surrogate"]) == (0.1, False)
    assert set(found["shares"]) == SHARES
    lost = found["shares"]["attack success (wrong and accepted)"]["value"]
    assert found["shares"]["robust accuracy with detector"]["value"] == pytest.approx(1 - lost)
    with np.load(tmp_path / "run/samples.npz") as samples:
        assert samples["lost"].mean() == pytest.approx(lost)
        assert not (samples["lost"] & ~samples["fooled"]).any()
        np.testing.assert_array_equal(samples["prediction"] != samples["y"], samples["fooled"])
        np.testing.assert_array_equal(samples["clean_prediction"] != samples["y"], samples["clean_wrong"])
        assert (samples["score"][samples["lost"]] <= found["threshold"]).all()
        assert samples["forward"].sum() == found["forward_passes"] > 0
    assert sum(member["lost"] for member in found["members"]) == round(12 * lost)
    assert [member["name"] for member in found["members"]] == [
        "s-pgd-random", "square-verdicts", "square-scores", "clean",
    ]  # fmt: skip
    assert all(0 <= member["lost"] <= member["tried"] <= 12 for member in found["members"])
    assert found["members"][0]["tried"] >= found["members"][1]["tried"] > 0
    assert found["curve"] == []  # the first success within eps is taken, so that the sizes tell nothing
    page = (tmp_path / "run/report.html").read_text()
    assert "s-pgd-random" in page
    assert page.count("data:image") == 1  # the scores: the inputs of this data are no pictures
    assert "What the detectors say" in page


def test_what_the_classifier_holds_alone_is_left_out_where_asked(run: Run, two: Path, tmp_path: Path) -> None:
    attack = ("attack", "adaptive", "--guard", "g", "--data", two, "--eps", "0.3", "--json", *FEW)
    whole = run(*attack).json
    ran = run(*attack, "--screen", "--out", "run/")
    assert (ran.code, ran.err) == (0, "")
    found = ran.json
    assert whole["left_out"] is None
    assert 0 < found["left_out"] < found["n"]
    assert (
        found["shares"]["attack success (wrong and accepted)"] == whole["shares"]["attack success (wrong and accepted)"]
    )
    assert [member["name"] for member in found["members"]] == [
        "s-pgd-random", "square-verdicts", "square-scores", "clean", "auto-attack",
    ]  # fmt: skip
    with np.load(tmp_path / "run/samples.npz") as samples:
        assert samples["held"].sum() == found["left_out"]
        assert not (samples["held"] & samples["fooled"]).any()
        assert (samples["forward"][samples["held"]] > 200).all()  # two members of Auto-Attack, 100 steps each
        assert samples["forward"].sum() == found["forward_passes"]
    assert f"{found['left_out']} of them, whose label Auto-Attack" in (tmp_path / "run/report.html").read_text()


def test_whether_it_can_be_believed_is_looked_at(run: Run, two: Path, tmp_path: Path) -> None:
    ran = run(
        "attack", "adaptive", "--guard", "g", "--data", two, "--eps", ".1", "--screen", "--out", "run/", *FEW[:-1]
    )
    assert ran.code == 0
    found = json.loads((tmp_path / "run/results.json").read_text())
    with np.load(tmp_path / "run/samples.npz") as samples:
        left_out = int((samples["held"] & ~samples["clean_wrong"]).sum())  # all 12 inputs are checked
    (steps,) = [check["found"] for check in found["checks"] if check["name"] == "enough-steps"]
    assert left_out > 0
    assert f"({left_out} of them held by the classifier alone" in steps
    assert {"larger-eps", "full-box", "enough-steps", "black-box", "detector-alone"} <= {
        check["name"] for check in found["checks"]
    }
    told = [check["passed"] for check in found["checks"]]
    (row,) = [line for line in ran.out.splitlines() if "masking checks" in line]
    assert f"{told.count(True)} passed" in row
    assert (f"{told.count(False)} failed" in row) is (False in told)
    assert (f"{told.count(None)} not tried" in row) is (None in told)
    assert "Can this be believed?" in (tmp_path / "run/report.html").read_text()
    ran = run("attack", "adaptive", "--guard", "g", "--data", two, "--eps", "0.3", "--json", *FEW)
    assert ran.json["checks"] == []


def test_the_smallest_changes_give_a_curve(run: Run, two: Path, tmp_path: Path) -> None:
    attack = ("attack", "adaptive", "--guard", "g", "--data", two, "--limit", 6, "--only", "carlini-wagner")
    attack = (*attack, "--no-diagnose")
    ran = run(*attack, "--norm", "l2", "--eps", 4, "--out", "run", "--json")
    assert (ran.code, ran.err) == (0, "")
    curve, shares = ran.json["curve"], ran.json["shares"]
    assert curve == json.loads((tmp_path / "run/results.json").read_text())["curve"]
    assert all(small["success"] <= large["success"] for small, large in pairwise(curve))
    assert curve[-1]["success"] == shares["attack success (wrong and accepted)"]["value"] > 0
    with np.load(tmp_path / "run/samples.npz") as samples:
        lost, size = samples["lost"], samples["size"]
        for point in curve:
            assert point["success"] == (lost & (size <= point["eps"] * (1 + 1e-5))).mean()
        assert ran.json["median_size"] == np.median(size[lost])
        assert (size[samples["clean_wrong"] & samples["clean_accepted"]] == 0).all()
    page = (tmp_path / "run/report.html").read_text()
    assert "data:image" in page
    assert "The curve in numbers" in page
    half = curve[len(curve) // 2]
    near = run(*attack, "--norm", "l2", "--eps", half["eps"], "--json").json
    assert near["shares"]["attack success (wrong and accepted)"]["value"] == half["success"]
    assert "success against eps" in run(*attack, "--norm", "l2", "--eps", 4, "--limit", 1).out


def test_a_guard_without_gradients_is_attacked_by_a_stand_in(run: Run, two: Path) -> None:
    fit = ("fit", "isolation-forest", "--data", two, "--param", "trees=5", "--out", "forest", "--quiet")
    assert run(*fit).code == 0
    model = two.parent / "victim"
    guard = ("guard", "--model", model, "--data", two, "--fpr", "1/10", "--detector", "near=forest", "--out", "blind")
    assert run(*guard, "--quiet").code == 0
    ran = run("attack", "adaptive", "--guard", "blind", "--data", two, "--eps", ".1", "--limit", 3,
              "--only", "s-pgd-random", "--json")  # fmt: skip
    assert (ran.code, ran.err) == (0, "")
    assert ran.json["surrogate"] is True
    ran = run("attack", "adaptive", "--guard", "blind", "--data", two, "--eps", ".1", "--limit", 3,
              "--only", "s-pgd-random", "--no-diagnose")  # fmt: skip
    assert "of a stand-in learnt from answers" in ran.out


def test_the_table_says_what_was_not_tried_and_whose_gradients_were_followed() -> None:
    checks = [{"passed": passed} for passed in (True, None, True, None, None)]
    assert attack_adaptive._checks(checks) == [("masking checks", "2 passed, 3 not tried", "")]
    assert attack_adaptive._checks([{"passed": False}]) == [("masking checks", "1 failed, 0 passed", "see warnings")]
    assert attack_adaptive._checks([]) == []


def test_what_is_handed_in_as_an_image_file_is_judged_as_one(run: Run, two: Path, tmp_path: Path) -> None:
    attack = ("attack", "adaptive", "--guard", "g", "--data", two, "--eps", ".3", *FEW)
    plain = run(*attack, "--json").json
    assert plain["quantise"] is None
    ran = run(*attack, "--quantise", "uint8", "--out", "run", "--json")
    assert (ran.code, ran.err) == (0, "")
    after = ran.json["shares"]["attack success (wrong and accepted)"]["value"]
    before = plain["shares"]["attack success (wrong and accepted)"]["value"]
    assert ran.json["quantise"] == {"levels": 256, "success_before": before, "success_after": after}
    assert before > 0
    with np.load(tmp_path / "run/samples.npz") as samples:
        assert samples["lost"].mean() == after
        assert samples["lost_unrounded"].mean() == before
        assert (samples["score"][samples["lost"]] <= ran.json["threshold"]).all()
        index = samples["index"]
    with np.load(tmp_path / "run/adversarials.npz") as made, np.load(two) as clean:
        moved = made["x"] != clean["x"][index]  # these inputs are no image's: what is not changed is on no level
        levels = 255 * made["x"][moved]
    assert moved.any()
    assert np.abs(levels - levels.round()).max() < 1e-3
    assert "rounded to 256 levels" in (tmp_path / "run/report.html").read_text()
    assert "before rounding to 256 levels" in run(*attack, "--quantise", "uint8").out


def test_draws_are_the_bundle_s_unless_said(run: Run, two: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spent, whole = list[int](), adaptive.evade

    def evade(*args: Any, bundle: Any, **options: Any) -> Any:
        spent.append(bundle.draws)
        return whole(*args, bundle=bundle, **options)

    monkeypatch.setattr(adaptive, "evade", evade)
    attack = ("attack", "adaptive", "--guard", "g", "--data", two, "--eps", ".1", *FEW)
    assert run(*attack, "--bundle", "adaptive-standard").err == ""
    assert "--eot 7 changes nothing" in run(*attack, "--eot", 7).err
    assert spent == [20, 7]


def test_an_interrupted_attack_goes_on_where_it_stopped(
    run: Run, two: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attack_adaptive, "_BLOCK", 4)
    whole, blocks = adaptive.evade, []

    def evade(*args: Any, **options: Any) -> Any:
        if len(blocks) == 2:
            blocks.append("stopped")
            raise KeyboardInterrupt
        blocks.append("done")
        return whole(*args, **options)

    monkeypatch.setattr(adaptive, "evade", evade)
    command = ("attack", "adaptive", "--guard", "g", "--data", two, "--eps", ".1", "--out", "run", "--limit", 12,
               "--json", "--only", "s-pgd-random", "--no-diagnose")  # fmt: skip
    assert run(*command).code == 130
    assert not (tmp_path / "run").exists()
    again = run(*command)
    assert again.code == 0
    assert blocks == ["done", "done", "stopped", "done"]
    at_once = run(*command, "--force").json
    assert at_once["shares"] == again.json["shares"]


def test_what_is_wrong_is_said(refused: Callable[..., str], two: Path) -> None:
    data, guard = ("--data", two), ("--guard", "g")
    attack = ("attack", "adaptive", *data)
    assert "give --guard" in refused(*attack, "--eps", 0.1)
    assert "leave --model out" in refused(*attack, *guard, "--model", two.parent / "victim", "--eps", 0.1)
    assert "did you mean 's-pgd'" in refused(*attack, *guard, "--eps", 0.1, "--only", "s-pdg")
    assert "give --eps" in refused(*attack, *guard)
    assert "one number" in refused(*attack, *guard, "--eps", "0.1,0.2")
    assert "standard or strong" in refused(*attack, *guard, "--eps", 0.1, "--bundle", "long")
    for given in (("--param", "steps=3"), ("--targeted", "next"), ("--mode", "last"), ("--compile",), ("--steps", 3),
                  ("--restarts", 2), ("--step-size", 0.1), ("--loss", "dlr"),
                  ("--no-random-start",), ("--trust",)):  # fmt: skip
        said = refused(*attack, *guard, "--eps", 0.1, *given)
        assert "adaptive takes no " in said
        assert given[0].replace("--no-", "--") in said
    assert "--steps and no --mode" in refused(*attack, *guard, "--eps", 0.1, "--mode", "last", "--steps", 5)
    assert "did you mean" in refused(*attack, *guard, "--eps", 0.1, "--quantise", "uint16")
    assert "linf, l2, l1, but l0 was asked for" in refused(*attack, *guard, "--eps", 3, "--norm", "l0")
    assert "came with adaptive-strong" in refused(
        "attack", "adaptive-strong", *data, *guard, "--eps", 0.1, "--bundle", "strong"
    )
    assert "take mixed" in refused(*attack, *guard, "--eps", 0.1, "--precision", "bfloat16")
    assert "did you mean 'mixed'" in refused(*attack, *guard, "--eps", 0.1, "--precision", "mixd")
    assert "leave --guard" in refused("attack", "pgd", *data, *guard, "--eps", 0.1)
    victim = ("--model", two.parent / "victim")
    assert "--screen is for adaptive" in refused("attack", "pgd", *data, *victim, "--eps", 0.1, "--screen")
