from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from robustgen.artifacts import staged
from robustgen.attacks.pgd import PGD
from robustgen.data.source import DataSpec
from robustgen.errors import ArtifactError, UsageError
from robustgen.models import ARCHITECTURES
from robustgen.models.build import build
from robustgen.models.load import LoadedModel, load_model, read_state
from robustgen.models.normalise import Normalised
from robustgen.threat import ThreatModel
from robustgen.training.classifier import TrainedClassifier
from toys import small_cnn

NETWORK = """
import torch
from torch import nn

def net():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 3))

def wrong():
    return 5

def failing():
    raise KeyError("no weights for you")
"""


@pytest.fixture
def code(tmp_path: Path) -> Path:
    path = tmp_path / "mynet.py"
    path.write_text(NETWORK)
    return path


@pytest.mark.parametrize("arch", [*ARCHITECTURES, "torchvision:resnet18", "mobilenet_v3_small"])
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32)])
def test_architectures_take_inputs_of_the_data_and_repeat_from_their_seed(arch: str, shape: tuple[int, ...]) -> None:
    state = torch.get_rng_state()
    network = build(arch, shape, 7, mean=[0.5], std=[0.2], seed=3).eval()
    assert torch.equal(torch.get_rng_state(), state)
    x = torch.rand(2, *shape)
    assert network(x).shape == (2, 7)
    assert torch.equal(build(arch, shape, 7, mean=[0.5], std=[0.2], seed=3).eval()(x), network(x))
    assert not torch.equal(build(arch, shape, 7, mean=[0.5], std=[0.2], seed=4).eval()(x), network(x))


@pytest.mark.parametrize(
    ("arch", "shape", "classes", "message"),
    [
        ("small-cnnn", (1, 8, 8), 3, "did you mean 'small-cnn'"),
        ("resnet19", (1, 8, 8), 3, "torchvision:resnet18"),
        ("small-cnn", (12,), 3, "use mlp"),
        ("small-resnet", (1, 4, 4), 3, "at least 8 x 8"),
        ("torchvision:resnet18", (12,), 3, "1 or 3 channels"),
        ("torchvision:alexnet", (1, 8, 8), 3, "cannot take images of 8 x 8"),
        ("small-cnn", (1, 8, 8), 1, "at least 2 classes"),
    ],
)
def test_unfit_architectures_are_refused(arch: str, shape: tuple[int, ...], classes: int, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        build(arch, shape, classes)


def test_normalising_inside_equals_normalising_outside() -> None:
    network = small_cnn().eval()
    x = torch.rand(5, 1, 8, 8)
    torch.testing.assert_close(Normalised(network, [0.4], [0.3])(x), network((x - 0.4) / 0.3))
    for mean, std in (([0.1, 0.2], [1.0]), ([0.1], [0.0]), ([], [])):
        with pytest.raises(UsageError, match="std above 0"):
            Normalised(network, mean, std)
    with pytest.raises(UsageError, match="have 2 values, but the inputs have 1 channels"):
        Normalised(network, [0.1, 0.2], [1.0, 1.0])(x)


def test_a_normalised_victim_is_attacked_as_one_with_folded_weights(generator: torch.Generator) -> None:
    """eps is in input units: wrapping (x - m) / s or folding it into the first layer gives the same fooled set."""
    inner = nn.Sequential(nn.Flatten(), nn.Linear(20, 16), nn.ReLU(), nn.Linear(16, 4))
    folded = nn.Sequential(nn.Flatten(), nn.Linear(20, 16), nn.ReLU(), nn.Linear(16, 4))
    folded.load_state_dict(inner.state_dict())
    with torch.no_grad():
        folded[1].weight.copy_(inner[1].weight / 0.25)
        folded[1].bias.copy_(inner[1].bias - inner[1].weight.sum(1) * 0.5 / 0.25)
    x = torch.rand(60, 20, generator=generator)
    y = folded(x).argmax(1)
    attack = PGD(threat=ThreatModel("linf", 0.05), steps=10)
    assert torch.equal(attack.run(Normalised(inner, [0.5], [0.25]), x, y).success, attack.run(folded, x, y).success)


def test_an_artifact_comes_back_as_it_was(tmp_path: Path) -> None:
    network = build("small-cnn", (1, 8, 8), 4, mean=[0.3], std=[0.4], seed=5).eval()
    spec = DataSpec("toy", "image", (1, 8, 8), ("a", "b", "c", "d"))
    rebuild = {"arch": "small-cnn", "shape": [1, 8, 8], "classes": list(spec.classes), "data": spec.to_json()}
    with staged(tmp_path / "victim") as directory:
        TrainedClassifier(LoadedModel(network, "x", "", spec, rebuild), {}).save(directory)
    loaded = load_model(str(tmp_path / "victim"))
    x = torch.rand(3, 1, 8, 8)
    assert torch.equal(loaded.network(x), network(x))
    assert loaded.spec == spec
    with pytest.raises(UsageError, match="leave out --weights"):
        load_model(str(tmp_path / "victim"), weights=tmp_path / "w.pt")


def test_code_from_a_file_or_a_module(code: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reference = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    weights = code.with_name("w.pt")
    torch.save({"state_dict": {f"module.{k}": v for k, v in reference.state_dict().items()}}, weights)
    x = torch.rand(2, 1, 8, 8)
    assert torch.equal(load_model(f"{code}:net", weights=weights).network(x), reference(x))
    monkeypatch.syspath_prepend(str(code.parent))
    loaded = load_model("mynet:net", weights=weights, mean=[0.5], std=[0.5])
    torch.testing.assert_close(loaded.network(x), reference((x - 0.5) / 0.5))
    sys.modules.pop("mynet")


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("{code}:nett", "did you mean 'net'"),
        ("{code}:wrong", "returned int"),
        ("{code}:failing", "no weights for you"),
        ("{missing}.py:net", "no file"),
        ("no_such_module:net", "importing no_such_module failed"),
        ("nothing-here", "does not exist"),
        ("torchvision:resnet19", "did you mean 'resnet18'|did you mean"),
        ("torchvision:resnet18", "needs --weights"),
    ],
)
def test_models_that_are_not_there(model: str, message: str, code: Path) -> None:
    with pytest.raises(UsageError, match=message):
        load_model(model.format(code=code, missing=code.with_name("gone")))


def test_torchvision_takes_its_class_count_from_the_weights(tmp_path: Path) -> None:
    from torchvision import models

    network = models.resnet18(num_classes=5).eval()
    torch.save(network.state_dict(), tmp_path / "w.pth")
    x = torch.rand(2, 3, 32, 32)
    loaded = load_model("torchvision:resnet18", weights=tmp_path / "w.pth").network
    assert torch.equal(loaded(x), network(x))
    with pytest.raises(ArtifactError, match="do not fit the network"):
        load_model("torchvision:resnet34", weights=tmp_path / "w.pth")


class Bomb:
    """Unpickling it would make a directory: the proof that it was not unpickled is that there is none."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


def test_weights_never_run_code(code: Path, tmp_path: Path) -> None:
    torch.save({"1.weight": torch.zeros(3, 64), "evil": Bomb(tmp_path / "ran")}, tmp_path / "bomb.pt")
    with pytest.raises(ArtifactError, match="would run code"):
        load_model(f"{code}:net", weights=tmp_path / "bomb.pt")
    assert not (tmp_path / "ran").exists()


def test_weights_that_cannot_be_read(code: Path, tmp_path: Path) -> None:
    (tmp_path / "junk.pt").write_bytes(b"junk" * 100)
    (tmp_path / "junk.safetensors").write_bytes(b"junk" * 100)
    torch.save([torch.zeros(1)], tmp_path / "list.pt")
    torch.save({"1.weight": torch.zeros(3, 64)}, tmp_path / "half.pt")
    for name, message in (
        ("junk.pt", "cannot be read|would run code"),
        ("junk.safetensors", "cannot be read"),
        ("list.pt", "not a state dict"),
        ("half.pt", "missing: 1.bias"),
        ("gone.pt", "no such file"),
    ):
        with pytest.raises(ArtifactError, match=message):
            load_model(f"{code}:net", weights=tmp_path / name)


def test_safetensors_weights(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"a": torch.arange(3.0)}, tmp_path / "w.safetensors")
    assert torch.equal(read_state(tmp_path / "w.safetensors")["a"], torch.arange(3.0))


@pytest.mark.parametrize("suffix", [".ts", ".pt2"])
def test_programs_are_loaded_only_with_trust_and_can_be_attacked(
    suffix: str, tmp_path: Path, generator: torch.Generator
) -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    x = torch.rand(6, 1, 8, 8, generator=generator)
    path = tmp_path / f"net{suffix}"
    if suffix == ".ts":
        torch.jit.save(torch.jit.script(network), str(path))
    else:
        batch = torch.export.Dim("batch")
        torch.export.save(torch.export.export(network, (x,), dynamic_shapes=({0: batch},)), path)
    with pytest.raises(UsageError, match="needs --trust: it holds code"):
        load_model(str(path))
    loaded = load_model(str(path), trust=True).network
    torch.testing.assert_close(loaded(x), network(x))
    y = network(x).argmax(1)
    attack = PGD(threat=ThreatModel("linf", 0.3), steps=5, random_start=False)
    torch.testing.assert_close(attack(loaded, x, y), attack(network, x, y))
    with pytest.raises(ArtifactError, match="no such file"):
        load_model(str(tmp_path / f"gone{suffix}"), trust=True)
    path.write_bytes(b"junk")
    with pytest.raises(ArtifactError, match="cannot be loaded"):
        load_model(str(path), trust=True)


def test_mean_needs_std(code: Path) -> None:
    with pytest.raises(UsageError, match="belong together"):
        load_model(f"{code}:net", mean=[0.5])
