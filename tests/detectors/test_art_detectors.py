"""ART's detectors by name: the numbers of ART called directly, the contract, and what ART's own objects do not keep."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from robustgen.artifacts import staged
from robustgen.attacks.art_attack import quiet
from robustgen.data.load import load
from robustgen.detectors.art_names import ART_DETECTORS, EXCLUDED, art_detector_name
from robustgen.detectors.calibrated import CalibratedDetector
from robustgen.detectors.making import accepts, declared, kind_of, make
from robustgen.detectors.watching import WatchingDetector
from robustgen.errors import DataError, MissingPackageError, UsageError
from robustgen.guard import Guard
from robustgen.models.build import build
from robustgen.models.load import LoadedModel
from robustgen.registry import resolve
from robustgen.testing import check_detector
from robustgen.training.classifier import train
from robustgen.training.descent import Recipe
from robustgen_cli.list import TABLES
from toys import small_mlp

needs_art = pytest.mark.skipif(importlib.util.find_spec("art") is None, reason="ART is not installed")

NAMES = tuple(f"art:{name}" for name in ART_DETECTORS)
TAUGHT: dict[str, Any] = {"eps": 0.3, "epochs": 15, "arch": "mlp", "batch_size": 64}


def beside(name: str, classifier: nn.Module, **options: Any) -> WatchingDetector:
    """A fresh detector of ART that watches `classifier`."""
    detector = make(name, options)
    assert isinstance(detector, WatchingDetector)
    detector.watch(classifier)
    return detector


class Waves(nn.Module):
    """Two classes that change several times along every value: what an attack adds differs from input to input."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(size, generator=torch.Generator().manual_seed(0)))
        self.last = nn.Tanh()

    def forward(self, x: Tensor) -> Tensor:
        lead = self.last((torch.sin(8 * x.flatten(1)) * self.weight).sum(1))
        return torch.stack([lead, -lead], 1)


@needs_art
@pytest.mark.parametrize("shape", [pytest.param((1, 4, 4), marks=pytest.mark.slow), (6,)])
def test_scanning_keeps_the_contract(shape: tuple[int, ...]) -> None:
    check_detector(lambda: beside("art:SubsetScanning", small_mlp(shape, classes=2), most=50), shape)


@needs_art
@pytest.mark.parametrize("name", ["art:BinaryInput", "art:BinaryActivation"])
def test_taught_ones_keep_the_contract(name: str) -> None:
    shape = (1, 8, 8)
    judge = Waves(64) if name == "art:BinaryInput" else small_mlp(shape, classes=2, seed=1)
    check_detector(lambda: beside(name, judge, **TAUGHT), shape)


@needs_art
@pytest.mark.parametrize("scoring", ["BerkJones", "HigherCriticism", "KolmarovSmirnov"])
def test_scanning_gives_arts_scores(scoring: Any, generator: torch.Generator) -> None:
    from art.defences.detector.evasion import SubsetScanningDetector
    from art.estimators.classification import PyTorchClassifier

    network = small_mlp((6,))
    x, new = torch.randn(80, 6, generator=generator), 2 * torch.randn(30, 6, generator=generator)
    estimator = PyTorchClassifier(network, nn.CrossEntropyLoss(), (6,), 4)
    theirs = SubsetScanningDetector(estimator, x.numpy(), "2", scoring_function=scoring, verbose=False)
    expected = theirs.detect(new.numpy(), batch_size=1)[0]["scores"]
    found = beside("art:SubsetScanning", small_mlp((6,)), layer="2", scoring_function=scoring).fit(x).score(new)
    np.testing.assert_array_equal(found.numpy(), expected.astype(np.float32))


@needs_art
def test_an_input_without_an_unusual_unit_scores_0_where_art_stops(generator: torch.Generator) -> None:
    x = torch.rand(50, 3, generator=generator)
    network = nn.Sequential(nn.ReLU(), nn.Linear(3, 2))
    detector = beside("art:SubsetScanning", network).fit(x)
    scores = detector.score(torch.tensor([[-1.0, -1.0, -1.0], [2.0, -1.0, -1.0], [2.0, 2.0, 2.0]]))
    assert scores[0] == 0
    torch.testing.assert_close(scores[1:], torch.tensor([1.0, 3.0]) * torch.tensor(51.0).log())


@needs_art
def test_all_places_of_a_convolution_are_scanned(generator: torch.Generator) -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(72, 2)).eval()
    detector = beside("art:SubsetScanning", network, most=20).fit(torch.rand(40, 1, 8, 8, generator=generator))
    assert detector.state_dict()["ranked"].shape == (20, 72)
    assert not network[1]._forward_hooks


@needs_art
def test_the_first_activation_is_scanned_where_none_is_named(generator: torch.Generator) -> None:
    x = torch.rand(50, 6, generator=generator)
    scores = [
        beside("art:SubsetScanning", small_mlp((6,)), layer=layer).fit(x).score(x)
        for layer in ("first", "2", "last", "4")
    ]
    assert torch.equal(beside("art:SubsetScanning", small_mlp((6,))).fit(x).score(x), scores[0])
    assert torch.equal(scores[0], scores[1])
    assert torch.equal(scores[2], scores[3])
    assert not torch.equal(scores[0], scores[2])


@needs_art
@pytest.mark.parametrize("name", ["BinaryInputDetector", "BinaryActivationDetector"])
def test_taught_ones_give_what_arts_give(name: str, generator: torch.Generator) -> None:
    """The same network, attacked inputs, seed and epochs, through ART's own estimators."""
    import art.defences.detector.evasion as theirs
    from art.estimators.classification import PyTorchClassifier

    network = small_mlp((6,))
    x, new = torch.rand(200, 6, generator=generator), torch.rand(20, 6, generator=generator)
    inside = name == "BinaryActivationDetector"
    chosen = {"layer": "2"} if inside else {}
    ours = beside(f"art:{name}", network, eps=0.4, epochs=3, seed=5, **chosen).fit(x)
    attacked = ours._attacked(x)  # type: ignore[operator]
    assert len(attacked) >= 8
    assert (network(attacked).argmax(1).bincount(minlength=4) > 0).any()
    width = 24 if inside else 6
    taught = build("mlp", (width,), 2, seed=5)
    given = torch.cat([x, attacked]).numpy()
    label = np.eye(2, dtype=np.float32)[[0] * len(x) + [1] * len(attacked)]
    with quiet(5, torch.device("cpu")):
        optimizer = torch.optim.Adam(taught.parameters(), lr=1e-3)
        estimator = PyTorchClassifier(taught, nn.CrossEntropyLoss(), (width,), 2, optimizer=optimizer)
        if inside:
            classifier = PyTorchClassifier(network, nn.CrossEntropyLoss(), (6,), 4)
            detector: Any = theirs.BinaryActivationDetector(classifier, estimator, "2")
        else:
            detector = theirs.BinaryInputDetector(estimator)
        detector.fit(given, label, batch_size=128, nb_epochs=3)
    said = detector.detect(new.numpy())[0]["predictions"]
    np.testing.assert_allclose(ours.score(new).detach().numpy(), said[:, 1] - said[:, 0], rtol=1e-5, atol=1e-6)


@needs_art
def test_taught_ones_have_gradients(generator: torch.Generator) -> None:
    x = torch.rand(100, 6, generator=generator)
    for name in ("art:BinaryInput", "art:BinaryActivation"):
        judge = small_mlp((6,))
        detector = beside(name, judge, eps=0.4, epochs=2).fit(x).double()
        judge.double()
        point = torch.rand(3, 6, generator=generator, dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(detector.score, (point,))
        assert not any(parameter.requires_grad for parameter in detector.parameters())


@pytest.fixture(scope="module")
def judge() -> LoadedModel:
    return train(load("digits"), "mlp", recipe=Recipe(epochs=6)).model


@needs_art
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if "Scanning" in name else []) for name in NAMES]
)
def test_it_is_stored_without_pickles_and_guards(name: str, judge: LoadedModel, tmp_path: Path) -> None:
    source = load("digits")
    options = {"most": 200} if "Scanning" in name else {"epochs": 2, "most": 300}
    fitted = CalibratedDetector.fit(name, source, options=options, model=judge)
    with staged(tmp_path / "d") as directory:
        fitted.save(directory)
    assert sorted(path.suffix for path in (tmp_path / "d").iterdir()) == [".json", ".safetensors"]
    again = CalibratedDetector.load(tmp_path / "d")
    x = next(iter(source.batches("test", 40))).x
    np.testing.assert_array_equal(fitted.judge(x).score, again.judge(x).score)
    assert again.summary() == fitted.summary()
    guard = Guard(judge.network, fitted)
    assert guard.differentiable == ("Scanning" not in name)
    np.testing.assert_array_equal(guard(x).score.detach().double().numpy(), fitted.judge(x).score)


@needs_art
def test_too_weak_an_attack_is_named(generator: torch.Generator) -> None:
    with pytest.raises(DataError, match=r"at eps 1e-06 changes the classifier's answer on \d+ of 50"):
        beside("art:BinaryInput", small_mlp((6,)), eps=1e-6).fit(torch.rand(50, 6, generator=generator))


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("art:SubsetScanning", {"scoring_function": "Berk"}, "BerkJones, HigherCriticism"),
        ("art:SubsetScanning", {"most": 1}, "most=1"),
        ("art:BinaryInput", {"eps": 0.0}, "above 0"),
        ("art:BinaryInput", {"epochs": 0}, "epochs must be at least 1"),
        ("art:BinaryActivation", {"most": 3}, "most=3"),
        ("art:BinaryInput", {"layer": "2"}, "no option 'layer'"),
    ],
)
def test_bad_options_are_refused(name: str, options: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        make(name, options)


@pytest.mark.parametrize(("layer", "words"), [("auto", "one layer"), ("2,4", "one layer"), ("22", "unknown layer")])
def test_it_looks_at_one_layer(layer: str, words: str, generator: torch.Generator) -> None:
    with pytest.raises(UsageError, match=words):
        beside("art:SubsetScanning", small_mlp((6,)), layer=layer).fit(torch.rand(9, 6, generator=generator))


@needs_art
def test_every_detector_of_art_is_named_or_excluded() -> None:
    from art.defences.detector import evasion, poison
    from art.defences.detector.poison import PoisonFilteringDefence

    found = {
        name
        for module in (evasion, poison)
        for name, kind in vars(module).items()
        if isinstance(kind, type)
        and kind not in (evasion.EvasionDetector, PoisonFilteringDefence)
        and issubclass(kind, (evasion.EvasionDetector, PoisonFilteringDefence))
    }
    assert found == {*ART_DETECTORS, *EXCLUDED}


def test_names_are_forgiving_and_refusals_give_reasons() -> None:
    for name in ("art:BinaryInputDetector", "art:binary-input-detector", "BINARY_INPUT"):
        assert art_detector_name(name) == "BinaryInputDetector"
    for name, entry in ART_DETECTORS.items():
        assert kind_of(f"art:{name}") is declared(f"art:{name}") is resolve(ART_DETECTORS, name, "detector")
        assert entry.help
    assert accepts("art:SubsetScanning", "seed")
    with pytest.raises(UsageError, match="did you mean 'SubsetScanning'"):
        make("art:SubsetScaning", {})
    with pytest.raises(UsageError, match="art:BeyondDetectorPyTorch cannot be used here: it needs a self-supervised"):
        make("art:beyond", {})
    with pytest.raises(UsageError, match="poisoned training inputs"):
        make("art:activation-defence", {})


@pytest.mark.parametrize("name", NAMES)
def test_without_art_it_says_what_to_install(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "art", None)
    for module in [module for module in sys.modules if module.startswith("art.defences")]:
        monkeypatch.delitem(sys.modules, module)
    x = torch.rand(20, 6)
    with pytest.raises(MissingPackageError, match="pip install adversarial-robustness-toolbox"):
        beside(name, small_mlp((6,))).fit(x).score(x)


def test_names_are_listed_without_loading_art() -> None:
    code = "import sys, robustgen.detectors.art_names; print({'art', 'torch', 'numpy'} & set(sys.modules))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "set()"
    assert set(NAMES) < set(TABLES["detectors"])
