"""Suites: products of lists, names for things, and errors that say what is wrong."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from bench_toys import Toy
from robustgen.bench import SUITES
from robustgen.bench.cell import config, key, needs
from robustgen.bench.claim import definition
from robustgen.bench.guarded import Adversarial, GuardOf
from robustgen.bench.kinds import KINDS
from robustgen.bench.one_class import OneClass
from robustgen.bench.prepared import Classifier, Fit, configured
from robustgen.bench.suite import find, parse
from robustgen.data.load import load
from robustgen.detectors import DETECTORS
from robustgen.detectors.pca import PCADetector
from robustgen.errors import DataError, UsageError
from robustgen.evaluation.bundles import BUNDLES, longer
from robustgen.guard.default import SHARES, members
from robustgen.registry import resolve

HASHES = {"digits": "0" * 64}

GUARDED = """
name = "mine"
[victims.plain]
epochs = 3
[victims.hard]
adversarial = "pgd"
[detectors.small]
detector = "autoencoder"
epochs = 2
[guards.both]
perturbed = ["small", "pca"]
adversarial = ["gat"]
across = "or"
[[cells]]
kind = "adversarial"
data = "digits"
victim = ["plain", "hard"]
detector = ["small", "gat", "both"]
seed = [0, 1]
"""


def one_class(**changed: object) -> str:
    keys = {"kind": '"one-class"', "data": '"digits"', "normal": "0", "detector": '"pca"'} | changed
    return 'name = "x"\n[[cells]]\n' + "\n".join(f"{word} = {value}" for word, value in keys.items())


def attacked(keys: str) -> str:
    """One guard under attack, with further keys of its cells."""
    return (
        GUARDED.replace('detector = ["small", "gat", "both"]', 'detector = "both"').replace(
            '["plain", "hard"]', '"plain"'
        )
        + keys
        + "\n"
    )


def test_a_block_is_the_product_of_its_lists() -> None:
    suite = parse(one_class(normal="[0, 1]", detector='["pca", "knn"]', seed="[0, 1, 2]"), "here")
    assert len(suite.cells) == 12
    assert len({listed.label for listed in suite.cells}) == 12
    assert suite.cells[0].label == "one-class: digits / 0 / pca / seed 0"
    assert isinstance(suite.cells[0].cell, OneClass)


def test_names_stand_for_classifiers_detectors_and_guards() -> None:
    suite = parse(GUARDED, "here")
    assert len(suite.cells) == 12
    cells = {listed.label: listed.cell for listed in suite.cells}
    both = cells["adversarial: digits / hard / both / seed 1"]
    assert isinstance(both, Adversarial)
    assert both.victim == Classifier("digits", adversarial="pgd", seed=1)
    assert isinstance(both.detector, GuardOf)
    assert [[fit.detector for fit in fits] for fits in both.detector.channels.values()] == [
        ["autoencoder", "pca"],
        ["gat"],
    ]
    assert both.detector.channels["adversarial"][0].victim == both.victim
    assert both.detector.channels["perturbed"][0].victim is None
    small = cells["adversarial: digits / plain / small / seed 0"]
    assert isinstance(small, Adversarial)
    assert isinstance(small.detector, Fit)
    assert small.detector.options["epochs"] == 2
    # the detector that looks at no classifier is fitted once for both of them
    other = cells["adversarial: digits / hard / small / seed 0"]
    assert {key(cell, HASHES) for cell in needs(small)} & {key(cell, HASHES) for cell in needs(other)}


def test_a_guard_of_a_suite_shares_its_false_alarms_as_told() -> None:
    def guard_of(text: str) -> GuardOf:
        cell = parse(text, "here").cells[-1].cell
        assert isinstance(cell, Adversarial)
        assert isinstance(cell.detector, GuardOf)
        return cell.detector

    shares = "shares = {perturbed = 1, adversarial = 3.0}"
    told = guard_of(GUARDED.replace('across = "or"', shares))
    assert told.shares == {"perturbed": 1, "adversarial": 3.0}
    assert guard_of(GUARDED).shares is None
    assert key(told, HASHES) != key(guard_of(GUARDED), HASHES)
    for wrong, said in (
        ("shares = {perturbed = 1}", "every channel"),
        ('shares = {perturbed = "x", adversarial = 1}', "table of numbers"),
        ("shares = 3", "table of numbers"),
        (f'{shares}\nacross = "fisher"', "'fisher'"),
    ):
        with pytest.raises(UsageError, match=said):
            parse(GUARDED.replace('across = "or"', wrong), "here")


def test_the_guard_of_the_adversarial_suite_is_the_default_one() -> None:
    listed = next(one for one in find("adversarial-standard").cells if "/ guard /" in one.label)
    assert isinstance(listed.cell, Adversarial)
    assert isinstance(listed.cell.detector, GuardOf)
    assert listed.cell.detector.shares == SHARES
    wanted = members(load("digits").spec)
    assert list(listed.cell.detector.channels) == list(wanted)
    for channel, fits in listed.cell.detector.channels.items():
        assert [fit.detector for fit in fits] == [one.name for one in wanted[channel]]
        assert all(fit.options | one.options == fit.options for fit, one in zip(fits, wanted[channel], strict=True))


def test_a_board_ranks_by_the_headline_of_its_cells_unless_told() -> None:
    assert parse(GUARDED, "here").board.eps == 0.1
    small = attacked("headline = 0.15\neps = [0.05]\nadaptive = [0.12, 0.15]")
    assert parse(small, "here").board.eps == 0.15
    for eps in (0.05, 0.12, 0.15):
        assert parse(f"{small}[board]\neps = {eps}", "here").board.eps == eps
    assert parse(attacked("[board]\nnorm = 'l2'\neps = 1.5"), "here").board.eps == 1.5


def test_the_adversarial_suite_says_what_it_leaves_out() -> None:
    suite = find("adversarial-standard")
    measured = {str(listed.axes["detector"]) for listed in suite.cells}
    left_out = set(DETECTORS) - measured
    assert left_out == {name for name in left_out if name in suite.description}
    known_but_for_weights = {str(one.axes["detector"]) for one in suite.cells if getattr(one.cell, "transfer", False)}
    assert "gat, certified-gat and the guard alone" in suite.description
    assert known_but_for_weights == {"gat", "certified-gat", "guard"}


def test_detectors_of_art_go_by_their_names() -> None:
    text = GUARDED.replace('detector = "autoencoder"\nepochs = 2', 'detector = "art:SubsetScanning"\nmost = 50')
    suite = parse(text.replace('"gat", "both"]', '"art:binary-input"]'), "here")
    cells = {listed.label: listed.cell for listed in suite.cells}
    for name, own in (("small", "art:SubsetScanning"), ("art:binary-input", "art:binary-input")):
        cell = cells[f"adversarial: digits / plain / {name} / seed 1"]
        assert isinstance(cell, Adversarial)
        assert isinstance(cell.detector, Fit)
        assert (cell.detector.detector, cell.detector.victim) == (own, cell.victim)
        assert cell.detector.options["seed"] == 1
    with pytest.raises(UsageError, match="did you mean 'BinaryInput'"):
        parse(text.replace('"gat", "both"]', '"art:BinaryInputs"]'), "here")


def test_the_key_depends_on_values_and_not_on_how_they_are_written() -> None:
    plain = Fit("digits", **_chosen("autoencoder", {}))
    assert key(plain, HASHES) == key(Fit("digits", **_chosen("autoencoder", {"preset": "default"})), HASHES)
    first, second = {"preset": "fast", "epochs": 3}, {"epochs": 3, "preset": "fast"}
    assert key(Fit("digits", **_chosen("vae", first)), HASHES) == key(Fit("digits", **_chosen("vae", second)), HASHES)
    assert key(plain, HASHES) != key(Fit("digits", **_chosen("autoencoder", {"epochs": 7})), HASHES)
    assert key(plain, HASHES) != key(plain, {"digits": "1" * 64})
    assert key(Classifier("digits"), HASHES) == key(Classifier("digits", seed=0, arch="small-cnn"), HASHES)
    assert key(Classifier("digits"), HASHES) != key(Classifier("digits", seed=1), HASHES)


def test_the_key_does_not_change_between_versions_by_accident() -> None:
    """If this fails, everything that anyone has stored is run again: only ever change it for a reason."""
    assert key(Classifier("digits"), HASHES) == "4d49e02d5e79afdb789ecd08"


TEXT_OF_ONE = """
name = "one"
description = "One cell."
[[cells]]
kind = "one-class"
data = "digits"
detector = "pca"
normal = 0
"""


def test_a_detector_that_would_now_be_another_one_is_fitted_again(monkeypatch: pytest.MonkeyPatch) -> None:
    cell = parse(TEXT_OF_ONE, "here").cells[0].cell
    assert "revision" not in config(cell, HASHES)["settings"]["detector"]
    monkeypatch.setattr(PCADetector, "version", 2)
    again = parse(TEXT_OF_ONE, "here").cells[0].cell
    assert config(again, HASHES)["settings"]["detector"]["revision"] == 2
    assert key(again, HASHES) != key(cell, HASHES)
    fit = Fit("digits", **_chosen("pca", {}))
    assert fit.revision == 2


def test_an_attack_that_would_now_spend_more_is_run_again(monkeypatch: pytest.MonkeyPatch) -> None:
    cell = Adversarial("digits", Classifier("digits"), Fit("digits", **_chosen("pca", {})))
    others = [cell.attacked, cell.detector, replace(cell, bundle="adaptive-strong")]
    before, kept = key(cell, HASHES), [key(other, HASHES) for other in others]
    monkeypatch.setitem(BUNDLES, "adaptive-standard", longer(BUNDLES["adaptive-standard"], 2))
    assert key(cell, HASHES) != before
    assert [key(other, HASHES) for other in others] == kept


def test_data_is_known_by_what_it_holds_not_by_where_it_lies() -> None:
    here, there = Classifier("/a/mine.npz"), Classifier("/b/mine.npz")
    assert key(here, {"/a/mine.npz": "7"}) == key(there, {"/b/mine.npz": "7"})
    assert config(here, {"/a/mine.npz": "7"})["settings"]["data"] == {"data": "7"}


def test_detectors_without_a_seed_are_run_once_for_all_seeds() -> None:
    suite = parse(one_class(detector='["pca", "autoencoder"]', seed="[0, 1]"), "here")
    keys = {listed.label: key(listed.cell, HASHES) for listed in suite.cells}
    assert keys["one-class: digits / 0 / pca / seed 0"] == keys["one-class: digits / 0 / pca / seed 1"]
    assert keys["one-class: digits / 0 / autoencoder / seed 0"] != keys["one-class: digits / 0 / autoencoder / seed 1"]


def _chosen(name: str, options: dict[str, object]) -> dict[str, object]:
    found = configured(name, options, 0)
    return {"detector": found.detector, "options": found.options, "revision": found.revision}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name = ", "is not TOML"),
        ('name = "x"', "needs [[cells]]"),
        ('nmae = "x"', "did you mean 'name'"),
        ('name = "x"\ncells = 3', "needs [[cells]]"),
        ("[[cells]]\nkind = 'one-class'", "needs a name"),
        (one_class(kind='"one-clas"'), "did you mean 'one-class'"),
        (one_class(dtaa='"digits"'), "did you mean 'data'"),
        (one_class(detector='"pac"'), "did you mean 'pca'"),
        (one_class(detector="[]"), "empty list"),
        (one_class(detector="3"), "a name is needed"),
        (one_class(normal='"zero"'), "a whole number is needed"),
        (one_class(normal="true"), "a whole number is needed"),
        (one_class(detector='["pca", "pca"]'), "two cells are called"),
        ('name = "x"\n[[cells]]\nkind = "one-class"', "needs data, normal, detector"),
        (one_class(kind='"table"', protocol='"one-clas"', normal="0"), "normal"),
        (GUARDED.replace('"hard"]', '"hadr"]'), "did you mean 'hard'"),
        (GUARDED.replace("epochs = 3", "epoch = 3"), "did you mean 'epochs'"),
        (GUARDED.replace("epochs = 3", "epochs = 3.5"), "a whole number is needed"),
        (GUARDED.replace("epochs = 2", "epoch = 2"), "has no option 'epoch'"),
        (GUARDED.replace('detector = "autoencoder"', 'detector = "autoencodr"'), "did you mean 'autoencoder'"),
        (GUARDED.replace('["gat"]', '"gat"'), "needs channels"),
        (GUARDED.replace('"gat", "both"', '"cycle-gan"'), "two domains"),
        (GUARDED + "[board]\nnrom = 'l2'", "did you mean 'norm'"),
        (one_class(n="0"), "n of a cell of kind one-class: a number from 1 up is needed, but 0 came"),
        (one_class(seed="[0, -1]"), "seed of a cell of kind one-class: a number from 0 up is needed, but -1 came"),
        (
            GUARDED.replace('"pgd"', '"pgdd"'),
            "adversarial of victims.hard: unknown kind of adversarial training 'pgdd'",
        ),
        (GUARDED.replace("epochs = 3", "arch = 'small-cn'"), "arch of victims.plain: unknown architecture 'small-cn'"),
        (
            GUARDED.replace("epochs = 3", "steps = 0"),
            "steps of victims.plain: a number from 1 up is needed, but 0 came",
        ),
        (GUARDED.replace("epochs = 3", "norm = 'l3'"), "norm of victims.plain: unknown norm 'l3'"),
        (GUARDED.replace("epochs = 3", "eps = inf"), "eps of victims.plain: a number above 0 is needed, but inf came"),
        (GUARDED.replace('across = "or"', 'within = "bogus"'), "guards.both.within: unknown way"),
        (GUARDED.replace('across = "or"', "across = 3"), "guards.both.across: unknown way"),
        (GUARDED.replace('[victims.plain]\nepochs = 3\n[victims.hard]\nadversarial = "pgd"', ""), "names none"),
        (attacked("bundle = 'bogus'"), "bundle of a cell of kind adversarial: unknown bundle of attacks 'bogus'"),
        (attacked("n_adaptive = 0"), "n_adaptive of a cell of kind adversarial: a number from 1 up is needed, but 0"),
        (attacked("fpr = [0.05, 2.0]"), "fpr of a cell of kind adversarial: a share above 0 and below 1 is needed"),
        (attacked("eps = [-0.1]"), "eps of a cell of kind adversarial: a number above 0 is needed, but [-0.1] came"),
        (attacked("adaptive = [0.1, nan]"), "adaptive of a cell of kind adversarial: a number above 0 is needed"),
        (attacked("bound = 80"), "bound of a cell of kind adversarial: a share from 0 to 1 is needed, but 80.0 came"),
        (attacked("[board]\neps = 0.3"), "both / seed 0' is attacked at 0.02, 0.05, 0.1, 0.2 alone: rank by one of"),
        (attacked("headline = [0.1, 0.2]"), "headline is 0.1 and 0.2 (linf): say by eps of [board]"),
        (attacked("[board]\nnorm = 'l2'"), "say by eps of [board] at which size (l2)"),
        (attacked("[board]\nnorm = 'l1'"), "norm of board: linf or l2 is needed"),
        (GUARDED.replace('"mine"', '"a/../../zz"', 1), "'a/../../zz' came"),
        (GUARDED.replace('"mine"', '".mine"', 1), "no '.' first"),
    ],
)
def test_what_is_wrong_with_a_suite_is_said(text: str, said: str) -> None:
    with pytest.raises(UsageError) as raised:
        parse(text, "mine.toml")
    assert said in str(raised.value)
    assert str(raised.value).startswith("mine.toml")


def test_a_suite_is_a_shipped_name_or_a_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="did you mean 'quick'"):
        find("quik")
    with pytest.raises(DataError, match="cannot be read"):
        find(str(tmp_path / "none.toml"))
    (tmp_path / "mine.toml").write_text(GUARDED, encoding="utf-8")
    assert find(str(tmp_path / "mine.toml")).name == "mine"


@pytest.mark.parametrize("name", SUITES)
def test_suites_that_ship_are_well_formed(name: str) -> None:
    suite = find(name)
    assert suite.name == name
    assert suite.description
    assert len(suite.cells) > 1


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_is_known_by_its_own_name(name: str) -> None:
    assert resolve(KINDS, name, "kind").kind == name
    assert KINDS[name].help


def test_limit_and_seed_take_the_place_of_the_suites() -> None:
    suite = parse(one_class(seed="[0, 1]"), "here", limit=7, seed=5)
    (only,) = suite.cells
    assert isinstance(only.cell, OneClass)
    assert only.label.endswith("seed 5")
    assert definition(suite) != definition(parse(one_class(seed="5"), "here"))
    assert Toy.kind == "toy"
