from __future__ import annotations

import io
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from robustgen.artifacts import staged
from robustgen.attacks.fgsm import FGSM
from robustgen.attacks.pgd import PGD
from robustgen.data.load import load
from robustgen.data.source import Source
from robustgen.detectors.calibrated import CalibratedDetector
from robustgen.errors import DataError, UsageError
from robustgen.evaluation.blocks import write_samples
from robustgen.evaluation.checks import check_model
from robustgen.evaluation.detection import Verdict, detect, familiarity, separate, write_verdicts
from robustgen.evaluation.robustness import choose_target, evaluate_attack, fingerprint
from robustgen.evaluation.select import data_for
from robustgen.models.load import LoadedModel
from robustgen.objectives import Misclassify
from robustgen.testing import check_source
from robustgen.threat import ThreatModel
from robustgen.training.classifier import train
from robustgen.training.descent import Recipe

THREAT = ThreatModel("linf", 0.15)


@pytest.fixture(scope="module")
def digits() -> Source:
    return load("digits")


@pytest.fixture(scope="module")
def victim(digits: Source) -> LoadedModel:
    return train(digits, "mlp", recipe=Recipe(epochs=15)).model


def test_the_embedded_data_keep_the_contract(digits: Source) -> None:
    check_source(digits)


def test_the_summary_follows_from_the_samples(digits: Source, victim: LoadedModel) -> None:
    found = evaluate_attack("pgd", PGD(threat=THREAT, steps=8), victim.network, digits)
    s, n = found.samples, 360
    correct = s["clean_prediction"] == s["y"]
    assert found.summary["n"] == n
    assert found.summary["clean_accuracy"] == correct.mean()
    assert found.summary["robust_accuracy"] == (correct & (s["prediction"] == s["y"])).sum() / n
    assert found.summary["success_rate"] == s["success"].sum() / correct.sum()
    assert (s["success"] <= correct).all()
    assert (s["success"] == (correct & (s["prediction"] != s["y"]))).all()
    assert (s["norm_linf"] <= 0.15 * (1 + 1e-6)).all()
    assert (s["norm_linf"][~correct] == 0).all()
    assert found.summary["forward_passes"] == s["forward"].sum()
    assert found.summary["backward_passes"] == s["backward"].sum()
    assert (s["backward"][~correct] == 0).all()
    low, high = found.summary["robust_accuracy_interval"]
    assert low < found.summary["robust_accuracy"] < high
    assert found.summary["warnings"] == []
    assert set(found.summary["configuration"]) == {field.name for field in fields(PGD)}


def test_passes_are_those_that_the_model_saw(digits: Source, victim: LoadedModel) -> None:
    from toys import Counting

    counting = Counting(victim.network)
    found = evaluate_attack("fgsm", FGSM(threat=THREAT), counting, digits, limit=100, diagnose=False)
    probe = 64  # the check before the attack looks at 64 inputs twice
    assert found.summary["forward_passes"] == counting.forward_rows - 2 * probe
    assert found.summary["backward_passes"] == counting.backward_rows == found.summary["n_attacked"]


def test_a_run_is_resumed_block_by_block_to_the_same_result(
    digits: Source, victim: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("robustgen.evaluation.robustness._BLOCK_VALUES", 64 * 50)
    attack = PGD(threat=THREAT, steps=5)
    whole = evaluate_attack("pgd", attack, victim.network, digits)

    class Interrupted(nn.Module):
        """Breaks off in the fifth block."""

        def __init__(self) -> None:
            super().__init__()
            self.network, self.calls = victim.network, 0

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            if self.calls > 40:
                raise KeyboardInterrupt
            out: Tensor = self.network(x)
            return out

    with pytest.raises(KeyboardInterrupt):
        evaluate_attack("pgd", attack, Interrupted(), digits, directory=tmp_path)
    done = sorted(tmp_path.glob("block-*.npz"))
    assert 1 <= len(done) < 8
    times = {path: path.stat().st_mtime_ns for path in done}
    counted: list[int] = []
    resumed = evaluate_attack("pgd", attack, victim.network, digits, directory=tmp_path, progress=counted.append)
    assert {path: path.stat().st_mtime_ns for path in done} == times
    assert sum(counted) == 360
    assert resumed.samples.keys() == whole.samples.keys()
    for key, values in whole.samples.items():
        np.testing.assert_allclose(resumed.samples[key], values, atol=1e-6)


def test_saved_adversarials_are_what_was_measured_and_are_data(
    digits: Source, victim: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("robustgen.evaluation.robustness._BLOCK_VALUES", 64 * 100)
    with staged(tmp_path / "run") as directory:
        found = evaluate_attack("fgsm", FGSM(threat=THREAT), victim.network, digits, directory=directory)
        write_samples(directory, found.samples)
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["adversarials.npz", "samples.npz"]
    source = load(str(tmp_path / "run" / "adversarials.npz"), like=digits.spec)
    batch = source.read(source.rows("all"))
    assert batch.x.shape == (360, 1, 8, 8)
    assert batch.y is not None
    with torch.no_grad():
        prediction = victim.network(batch.x).argmax(1)
    np.testing.assert_array_equal(prediction.numpy(), found.samples["prediction"])
    np.testing.assert_array_equal(batch.y.numpy(), found.samples["y"])
    clean = digits.read(digits.rows("test"))
    assert THREAT.allows(batch.x, clean.x).all()


@pytest.mark.parametrize("how", ["next", "least-likely", "3"])
def test_targeted_evaluation_counts_the_target_only(how: str, digits: Source, victim: LoadedModel) -> None:
    attack = PGD(threat=ThreatModel("linf", 0.4), steps=20, objective=Misclassify(targeted=True))
    found = evaluate_attack("pgd", attack, victim.network, digits, target=choose_target(how), limit=120)
    s = found.samples
    assert found.summary["success_rate"] > 0.5
    assert (s["prediction"][s["success"]] == s["target"][s["success"]]).all()
    assert (s["target"][s["attacked"]] != s["y"][s["attacked"]]).all()
    if how == "next":
        assert (s["target"] == (s["y"] + 1) % 10).all()
    if how == "3":
        assert not s["attacked"][s["y"] == 3].any()


def test_targets_that_do_not_exist(digits: Source, victim: LoadedModel) -> None:
    with pytest.raises(UsageError, match="next, least-likely or a class number"):
        choose_target("last")
    attack = PGD(threat=THREAT, steps=2, objective=Misclassify(targeted=True))
    with pytest.raises(UsageError, match="target class 12 .* classes 0 to 9"):
        evaluate_attack("pgd", attack, victim.network, digits, target=choose_target("12"))


def test_a_hopeless_model_is_reported_not_divided_by(digits: Source) -> None:
    class Constant(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.nn.functional.one_hot(torch.zeros(len(x), dtype=torch.int64), 10).float() * 5 + 0 * x.sum()

    rows = digits.rows("test")
    y = digits.read(rows).y
    assert y is not None
    digits_without_zero = load("digits")
    digits_without_zero.splits["test"] = rows[(y != 0).numpy()]
    found = evaluate_attack("fgsm", FGSM(threat=THREAT), Constant(), digits_without_zero)
    assert found.summary["success_rate"] is None
    assert found.summary["robust_accuracy"] == 0
    assert any("no input was attacked" in text for text in found.summary["warnings"])
    assert any("near chance" in text for text in found.summary["warnings"])


def _checked(model: object, x: Tensor, y: Tensor, classes: int | None = 10) -> str:
    checked = check_model(model, THREAT, x, y, classes)  # type: ignore[arg-type]
    return " | ".join(checked.warnings + ([] if checked.steady.holds else [checked.steady.warning]))


def test_models_are_checked_in_plain_words(digits: Source, victim: LoadedModel) -> None:
    batch = digits.read(digits.rows("test")[:40])
    x, y, net = batch.x, batch.y, victim.network
    assert y is not None
    assert _checked(net, x, y) == ""
    assert "probabilities instead of logits" in _checked(lambda z: net(z).softmax(1), x, y)
    assert _checked(lambda z: net(z).log_softmax(1), x, y) == ""
    assert "change between two calls" in _checked(lambda z: net(z + 0.1 * torch.randn_like(z)), x, y)
    assert "wrong number of classes" in _checked(lambda z: torch.cat([net(z), net(z)], 1), x, y)
    for model, message in (
        (lambda z: net(z)[:, :5], "wrong number of classes"),
        (lambda z: net(z)[:, 0], r"shape \(n, classes\)"),
        (lambda z: net(z) / 0, "NaN or infinite"),
        (lambda z: net(z[:, :, :4]), r"cannot take 40 inputs of shape \(1, 8, 8\)"),
        (lambda z: None, "NoneType came"),
    ):
        with pytest.raises(UsageError, match=message):
            _checked(model, x, y)
    with pytest.raises(UsageError, match="outside the box"):
        _checked(net, 255 * x, y)


def test_the_inputs_attacked_are_never_those_trained_on(victim: LoadedModel, tmp_path: Path) -> None:
    assert data_for("digits", victim)[1] == "test"
    assert data_for("digits", victim, "train")[1] == "train"
    x = np.random.default_rng(0).random((60, 1, 8, 8), dtype=np.float32)
    np.savez(tmp_path / "own.npz", x=x, y=np.arange(60) % 10)
    path = str(tmp_path / "own.npz")
    source, split = data_for(path, victim)
    assert (split, len(source.rows(split))) == ("all", 60)
    trained_on_it = LoadedModel(victim.network, "x", "", load(path).spec)
    source, split = data_for(path, trained_on_it)
    assert (split, len(source.rows(split))) == ("test", 9)
    foreign_code = LoadedModel(victim.network, "x", "")
    source, split = data_for(path, foreign_code)
    assert len(source.rows(split)) == 60
    with pytest.raises(UsageError, match="did you mean 'train'"):
        data_for("digits", victim, "trian")


def test_data_without_labels_cannot_be_attacked(victim: LoadedModel, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((10, 1, 8, 8), dtype=np.float32))
    with pytest.raises(DataError, match="no labels"):
        evaluate_attack("fgsm", FGSM(threat=THREAT), victim.network, load(str(tmp_path / "x.npy")), split="all")


def test_fingerprints_see_every_part() -> None:
    assert fingerprint(a=1, b=[1, 2]) == fingerprint(b=(1, 2), a=1)
    assert fingerprint(a=1, b=[1, 2]) != fingerprint(a=1, b=[1, 3])


def test_verdicts_one_by_one(digits: Source) -> None:
    detector = CalibratedDetector.fit("pca", digits)
    rows = list(detect(detector, digits, limit=37, batch_size=10))
    assert len(rows) == 37
    assert all(isinstance(row, Verdict) and row.flagged == (row.score > detector.threshold.value) for row in rows)
    assert [row.input for row in rows] == [digits.label(row) for row in digits.rows("test")[:37].tolist()]


def test_judging_the_inputs_it_was_fitted_on_is_called_out(digits: Source, tmp_path: Path) -> None:
    x = np.random.default_rng(0).random((200, 1, 8, 8), dtype=np.float32)
    np.savez(tmp_path / "mine.npz", x=x)
    np.savez(tmp_path / "new.npz", x=x[::-1])
    detector = CalibratedDetector.fit("pca", load(str(tmp_path / "mine.npz")))
    (warning,) = familiarity(detector, load(str(tmp_path / "mine.npz"), like=detector.spec))
    assert "fitted and calibrated on" in warning
    assert familiarity(detector, load(str(tmp_path / "new.npz"), like=detector.spec)) == []
    assert familiarity(CalibratedDetector.fit("pca", digits), load("digits", like=digits.spec)) == []


def test_a_spreadsheet_runs_no_formula_from_a_name() -> None:
    file = io.StringIO()
    write_verdicts(file, [Verdict('=HYPERLINK("x")', 1.5, 0.1, True), Verdict("a,b", 0.5, 1.0, False)], "csv")
    lines = file.getvalue().splitlines()
    assert lines[0] == "input,score,p_value,flagged"
    assert lines[1].startswith("\"'=HYPERLINK")
    assert lines[2] == '"a,b",0.5,1.0,0'


def test_separation_of_known_scores() -> None:
    found = separate(0.5, [0.0, 0.2, 0.4, 0.6], {"odd": [0.55, 0.7], "same": [0.0, 0.2, 0.4, 0.6]})
    assert found["odd"].false_alarms.value == 0.25
    assert found["odd"].detected.value == 1.0
    assert found["odd"].auroc.value == 0.875
    assert found["same"].auroc.value == 0.5
