"""Guards: classify or reject, with a false-alarm rate that holds whatever is combined."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from robustgen.artifacts import MANIFEST, staged
from robustgen.calibration import calibrate
from robustgen.data.load import load
from robustgen.data.source import Source
from robustgen.detectors.calibrated import CalibratedDetector
from robustgen.errors import ArtifactError, DataError, RobustgenError, UsageError
from robustgen.guard import Guard
from robustgen.models.build import build
from robustgen.models.load import LoadedModel, load_model


@pytest.fixture(scope="module")
def digits() -> Source:
    return load("digits")


@pytest.fixture(scope="module")
def victim(digits: Source) -> LoadedModel:
    network = build("mlp", digits.spec.shape, 10, seed=0).eval()
    config = {
        "arch": "mlp",
        "shape": list(digits.spec.shape),
        "classes": list(digits.spec.classes),
        "data": digits.spec.to_json(),
    }
    return LoadedModel(network, "mlp", "0" * 64, digits.spec, config)


@pytest.fixture(scope="module")
def pca(digits: Source) -> CalibratedDetector:
    return CalibratedDetector.fit("pca", digits)


@pytest.fixture(scope="module")
def knn(digits: Source) -> CalibratedDetector:
    return CalibratedDetector.fit("knn", digits)


@pytest.fixture(scope="module")
def seeing(digits: Source, victim: LoadedModel) -> CalibratedDetector:
    """It looks at what enters the classifier's last layer."""
    return CalibratedDetector.fit("k-means", digits, model=victim)


@pytest.fixture(scope="module")
def guard(
    digits: Source,
    victim: LoadedModel,
    pca: CalibratedDetector,
    knn: CalibratedDetector,
    seeing: CalibratedDetector,
) -> Guard:
    return Guard.fit(victim, {"perturbed": [pca, knn], "adversarial": [seeing]}, digits)


def some(source: Source, n: int = 40) -> Tensor:
    return source.read(source.rows("test")[:n]).x


def test_a_guard_of_one_detector_is_that_detector(digits: Source, victim: LoadedModel, pca: CalibratedDetector) -> None:
    x, alone = some(digits), Guard(victim, pca)
    logits, score, accepted = alone(x)
    assert torch.equal(logits, victim.network(x))
    assert torch.equal(score, pca.score(x))
    judged = pca.judge(x)
    assert (accepted.numpy() == ~judged.flagged).all()
    verdicts = alone.judge(x)
    assert (verdicts.p_value == judged.p_value).all()
    assert (verdicts.label == victim.network(x).argmax(1).numpy()).all()
    assert set(verdicts.verdict) <= {"normal", "flagged"}


def test_a_guard_is_random_where_a_member_is(guard: Guard, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not guard.random
    monkeypatch.setattr(guard.members[1].detector, "random", True)
    assert guard.random


def test_the_threshold_comes_from_inputs_that_taught_no_p_value(digits: Source, guard: Guard) -> None:
    rows = digits.rows("calibration")
    with torch.no_grad():
        second = guard.score(digits.read(rows[1::2]).x).double().numpy()
    assert guard.threshold == calibrate(second, 0.05)
    first = guard.score(digits.read(rows[::2]).x).detach()
    evidence = guard.evidence(digits.read(rows[::2]).x, guard.classifier(digits.read(rows[::2]).x).argmax(1))
    assert first.shape == (len(rows[::2]),)
    for found in evidence.values():  # -log p of a p-value that is uniform on the inputs that taught it
        ranks = torch.exp(-found.detach()).sort().values.numpy()
        assert np.abs(ranks - (np.arange(len(ranks)) + 0.5) / len(ranks)).max() < 0.05


@pytest.mark.parametrize("how", ["fisher", "smallest", "cauchy", "harmonic", "weighted"])
def test_false_alarms_stay_near_what_was_asked(
    how: str, digits: Source, victim: LoadedModel, pca: CalibratedDetector, knn: CalibratedDetector
) -> None:
    guard = Guard.fit(victim, [pca, knn], digits, fpr=0.1, within=how)
    rejected = float((~guard(some(digits, 360)).accepted).double().mean())
    assert 0.03 < rejected < 0.2


def test_scores_have_gradients_and_do_not_depend_on_the_batch(digits: Source, guard: Guard) -> None:
    x = some(digits, 12)
    whole = guard.score(x)
    torch.testing.assert_close(torch.cat([guard.score(row[None]) for row in x]), whole, rtol=1e-4, atol=1e-4)
    point = x.clone().requires_grad_()
    (slope,) = torch.autograd.grad(guard.score(point).sum(), point)
    assert torch.isfinite(slope).all()
    assert (slope.flatten(1).abs().amax(1) > 0).all()


@pytest.mark.parametrize("own", [False, True], ids=["one classifier", "a copy for each"])
def test_members_that_ask_the_same_classifier_share_its_pass(
    own: bool, digits: Source, victim: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those loaded from a disk bring a copy of it, which no pass may go through."""
    asking = [
        CalibratedDetector.fit(name, digits, model=copy.deepcopy(victim) if own else victim)
        for name in ("margin", "energy", "deep-knn", "deep-mahalanobis", "lid")
    ]
    guard, x, passes = Guard.fit(victim, {"perturbed": asking}, digits), some(digits), list[int]()
    guard.judge(x)  # now it knows which layers its members ask for
    kind, plain = type(victim.network), type(victim.network).forward

    def counted(network: nn.Module, given: Tensor) -> Tensor:
        passes.append(len(given))
        return plain(network, given)

    monkeypatch.setattr(kind, "forward", counted)
    guard.judge(x)
    guard(x)
    guard.score(x)
    assert passes == [len(x)] * 3


def test_a_search_is_told_the_score_wherever_the_guard_accepts(digits: Source, guard: Guard) -> None:
    """What rejects alone is enough elsewhere: never above the score, never accepted, and of one row at a time."""
    x = some(digits, 60)
    x[20:] = torch.lerp(x[20:], torch.rand(40, *x.shape[1:], generator=torch.Generator().manual_seed(0)), 0.2)
    with torch.no_grad():
        whole, quick = guard.score(x), guard.rejecting(x)
        accepted = guard.accepts(whole)
        assert torch.equal(guard.accepts(quick), accepted)
        assert 0 < accepted.sum() < len(x)
        torch.testing.assert_close(quick[accepted], whole[accepted], rtol=1e-3, atol=1e-3)
        assert (quick[~accepted] <= whole[~accepted] + 1e-4).all()
        assert (quick[~accepted] < whole[~accepted] - 0.01).any()  # one channel was enough for some
        alone = torch.cat([guard.rejecting(x[k : k + 1]) for k in range(len(x))])
        torch.testing.assert_close(alone, quick, rtol=1e-3, atol=1e-3)
        broken = x.clone()
        broken[0] = torch.nan
        assert not guard.accepts(guard.rejecting(broken))[0]
        assert guard.rejecting(x[:0]).shape == (0,)


def test_a_search_has_the_gradient_of_the_score_wherever_the_guard_accepts(digits: Source, guard: Guard) -> None:
    x = some(digits, 20).requires_grad_()
    accepted = guard.accepts(guard.score(x).detach())
    whole, quick = (torch.autograd.grad(score(x)[accepted].sum(), x)[0] for score in (guard.score, guard.rejecting))
    assert whole[accepted].any()
    torch.testing.assert_close(quick, whole, rtol=1e-3, atol=1e-3)


def test_noise_is_rejected_and_the_verdict_says_by_whom(digits: Source, guard: Guard) -> None:
    noise = torch.rand(20, *digits.spec.shape, generator=torch.Generator().manual_seed(0))
    verdicts = guard.judge(noise)
    assert verdicts.flagged.all()
    assert all("perturbed" in verdict for verdict in verdicts.verdict)
    assert set(guard.judge(some(digits)).verdict) <= {
        "normal", "perturbed", "adversarial", "perturbed+adversarial",
    }  # fmt: skip


def test_an_input_that_is_no_number_is_rejected_and_takes_no_other_with_it(
    digits: Source, victim: LoadedModel, guard: Guard
) -> None:
    x = some(digits, 6)
    x[2, 0, 3, 3], x[4, 0, 0, 0] = torch.nan, torch.inf
    kept = torch.tensor([0, 1, 3, 5])
    forest = Guard(victim, CalibratedDetector.fit("isolation-forest", digits, options={"trees": 5}))  # refuses NaN
    for one in (guard, forest):
        judged, alone = one.judge(x), one.judge(x[kept])
        assert judged.flagged[[2, 4]].all()
        assert (judged.p_value[[2, 4]] == 1 / (1 + len(one.calibration_scores))).all()
        assert {judged.verdict[2], judged.verdict[4]} == {"+".join(one.parts)}
        for found, expected in zip(judged[:4], alone[:4], strict=True):
            np.testing.assert_allclose(found[kept], expected, rtol=1e-4)  # sums of another batch
    assert not guard(x).accepted[[2, 4]].any()


def test_of_no_inputs_nothing_is_said(digits: Source, guard: Guard) -> None:
    judged = guard.judge(some(digits, 0))
    assert [len(part) for part in judged[:5]] == [0] * 5
    assert judged.label.dtype == np.int64
    assert judged.flagged.dtype == bool
    assert {name: part.shape for name, part in judged.channels.items()} == {"perturbed": (0,), "adversarial": (0,)}


def test_any_name_is_a_channel_s(tmp_path: Path, digits: Source, victim: LoadedModel, pca: CalibratedDetector) -> None:
    names = ("training", "items", "forward", "channel_", "channel_items", "members")
    guard, x = Guard.fit(victim, {name: [pca] for name in names}, digits), some(digits)
    assert tuple(guard.parts) == names
    assert tuple(guard.judge(x).channels) == names
    with staged(tmp_path / "g") as directory:
        guard.save(directory)
    again = Guard.load(tmp_path / "g")
    assert tuple(again.parts) == names
    assert torch.equal(again.score(x), guard.score(x))


def test_what_is_stored_says_channels_by_their_names_alone(tmp_path: Path, guard: Guard) -> None:
    """As it was before they had other names among the modules: guards saved then are read too."""
    from robustgen.artifacts import read_artifact

    with staged(tmp_path / "g") as directory:
        guard.save(directory)
    stored = {name for name in read_artifact(tmp_path / "g", "guard").tensors if name.startswith("guard.channels.")}
    assert {name.split(".")[2] for name in stored} == {"perturbed", "adversarial"}


def test_a_score_is_a_threshold_of_one_detector(digits: Source, victim: LoadedModel, pca: CalibratedDetector) -> None:
    x, scores = some(digits), np.sort(pca.calibration_scores)
    between = float(scores[-4] + scores[-3]) / 2
    guard = Guard(victim, pca, between)
    assert guard.threshold.value == between
    assert (guard.threshold.fpr, guard.threshold.n_calibration) == (4 / (len(scores) + 1), len(scores))
    assert guard.at(guard.threshold.fpr).threshold.value == scores[-4]  # as many held-out inputs above it
    assert torch.equal(guard(x).accepted, guard(x).score.double() <= between)
    assert Guard(victim, pca, 10**6).threshold.fpr == 1 / (len(scores) + 1)


def test_other_rates_share_the_scores(digits: Source, guard: Guard) -> None:
    stricter = guard.at(0.2)
    x = some(digits)
    assert torch.equal(stricter.score(x), guard.score(x))
    assert stricter.threshold is not None
    assert guard.threshold is not None
    assert stricter.threshold.value < guard.threshold.value
    assert (guard.threshold.fpr, stricter.threshold.fpr) == (0.05, 0.2)


def test_a_channel_with_a_larger_share_rejects_what_it_finds_less_rare(
    tmp_path: Path, digits: Source, victim: LoadedModel, pca: CalibratedDetector, seeing: CalibratedDetector
) -> None:
    channels, x = {"perturbed": [pca], "adversarial": [seeing]}, some(digits)
    label, least = victim.network(x).argmax(1), {}
    for part in (0.1, 0.5, 0.9):
        shares = {"adversarial": part, "perturbed": 1 - part}
        guard = Guard.fit(victim, channels, digits, shares=shares)
        assert guard.shares == pytest.approx(shares)
        assert guard.summary()["shares"] == guard.shares
        least[part] = guard.threshold.value - math.log(2 * part)  # the -log p from which the channel alone rejects
        torch.testing.assert_close(
            guard.score(x),
            (sum(2 * shares[name] * found.exp() for name, found in guard.evidence(x, label).items())).log(),
        )
    assert least[0.1] > least[0.5] > least[0.9]
    with staged(tmp_path / "g") as directory:
        guard.save(directory)
    again = Guard.load(tmp_path / "g")
    assert again.shares == guard.shares
    assert torch.equal(again.score(x), guard.score(x))
    assert Guard.fit(victim, channels, digits, across="fisher").shares is None


def test_saved_whole_and_read_back(tmp_path: Path, digits: Source, guard: Guard) -> None:
    with staged(tmp_path / "g") as directory:
        guard.save(directory)
    again, x = Guard.load(tmp_path / "g"), some(digits)
    assert torch.equal(again.score(x), guard.score(x))
    assert torch.equal(again(x).logits, guard(x).logits)
    assert again.threshold == guard.threshold
    assert (again.calibration_scores == guard.calibration_scores).all()
    assert (again.name, again.within, again.across.how) == (guard.name, "fisher", "or")
    seeing = again.members[-1]
    assert seeing.model is not None
    assert seeing.model.network is again.classifier  # one classifier, stored once


def test_a_member_that_was_exchanged_is_noticed(
    tmp_path: Path, digits: Source, guard: Guard, victim: LoadedModel, pca: CalibratedDetector
) -> None:
    with staged(tmp_path / "g") as directory:
        guard.save(directory)
    with staged(tmp_path / "other") as directory:
        pca.at(0.5).save(directory)
    inside = tmp_path / "g" / "members" / "perturbed.0.pca"
    (inside / MANIFEST).write_text((tmp_path / "other" / MANIFEST).read_text())
    with pytest.raises(ArtifactError, match="not the detector that this guard was made with"):
        Guard.load(tmp_path / "g")


def test_a_place_outside_the_artifact_is_refused(tmp_path: Path, guard: Guard) -> None:
    from robustgen.artifacts import read_artifact, write_artifact

    with staged(tmp_path / "g") as directory:
        guard.save(directory)
    artifact = read_artifact(tmp_path / "g", "guard")
    config = json.loads(json.dumps(artifact.config))
    config["channels"]["perturbed"][0]["place"] = "../../elsewhere"
    write_artifact(tmp_path / "g", "guard", config, artifact.tensors)
    with pytest.raises(ArtifactError, match="no folder of it"):
        Guard.load(tmp_path / "g")


def test_your_own_code_is_asked_for_again(tmp_path: Path, digits: Source, pca: CalibratedDetector) -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    with staged(tmp_path / "g") as directory:
        Guard(network, pca).save(directory)
    with pytest.raises(UsageError, match="your own code"):
        Guard.load(tmp_path / "g")
    (tmp_path / "net.py").write_text(
        "import torch\ndef make():\n    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))\n"
    )
    torch.save(network.state_dict(), tmp_path / "net.pt")
    again = Guard.load(tmp_path / "g", load_model(f"{tmp_path}/net.py:make", weights=tmp_path / "net.pt"))
    assert torch.equal(again(some(digits)).logits, network(some(digits)))


def test_an_input_is_judged_against_a_label_that_is_given(digits: Source, victim: LoadedModel) -> None:
    options = {"preset": "fast", "steps": 20, "width": 8}
    gat = CalibratedDetector.fit("gat", digits, options=options, model=victim)
    guard, x = Guard(victim, gat), some(digits)
    label = victim.network(x).argmax(1)
    assert torch.equal(guard.score(x), guard.score(x, label))
    assert not torch.equal(guard.score(x), guard.score(x, (label + 1) % 10))


def test_what_does_not_fit_is_refused(
    digits: Source, victim: LoadedModel, pca: CalibratedDetector, knn: CalibratedDetector, seeing: CalibratedDetector
) -> None:
    with pytest.raises(UsageError, match="at least one detector"):
        Guard(victim, [])
    with pytest.raises(UsageError, match="leave threshold out"):
        Guard(victim, [pca, knn], pca.threshold)
    with pytest.raises(RobustgenError, match="not calibrated"):
        Guard(victim, [pca, knn]).score(some(digits))
    with pytest.raises(RobustgenError, match="not calibrated"):
        Guard(victim, [pca, knn]).at(0.1)
    for given in (math.nan, True, "0.5"):
        with pytest.raises(UsageError, match="is a Threshold or a score"):
            Guard(victim, pca, given)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="would reject every one"):
        Guard(victim, pca, -1e9)
    for detectors, came in (("pca", "pca"), (["pca"], "pca"), ({"near": pca}, "CalibratedDetector"), (5, "int")):
        with pytest.raises(UsageError, match=f"takes fitted detectors.*{came}"):
            Guard(victim, detectors)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"shape \(n, 1, 8, 8\), but \(40, 64\) came"):
        Guard(victim, pca)(some(digits).flatten(1))
    with pytest.raises(UsageError, match=r"float32, but torch.float64 came"):
        Guard(victim, pca)(some(digits).double())
    with pytest.raises(UsageError, match="a channel is named"):
        Guard(victim, {"a.b": [pca]})
    with pytest.raises(UsageError, match="other weights"):
        Guard(build("mlp", digits.spec.shape, 10, seed=1), seeing)
    with pytest.raises(DataError, match="needs at least"):
        Guard(victim, [pca, knn]).calibrate(digits, 0.001)
