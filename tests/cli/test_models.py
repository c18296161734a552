"""`--model` in all its forms, and what is said of models that an attack cannot be trusted on."""

from __future__ import annotations

import os
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

Attack = Callable[..., Any]


@pytest.fixture
def words(world: Path) -> tuple[object, ...]:
    """All of an attack but the model."""
    return ("attack", "pgd", "--data", world / "two.npz", "--eps", 0.4, "--steps", 2)


@pytest.fixture
def net() -> nn.Module:
    """The network of `models.py:net`, out of what TorchScript and torch.export can take."""
    linear = nn.Linear(36, 2)
    with torch.no_grad():
        linear.weight.copy_(torch.tensor([[-1.0], [1.0]]).expand(2, 36))
        linear.bias.copy_(torch.tensor([16.0, -16.0]))
    return nn.Sequential(nn.Flatten(), linear).eval()


def test_code_from_a_file_and_its_neighbours(run: Attack, words: tuple[object, ...], world: Path) -> None:
    ran = run(*words, "--model", f"{world}/models.py:net", "--json")
    assert (ran.code, ran.err) == (0, "")
    assert (ran.json["n"], ran.json["clean_accuracy"]) == (200, 1.0)
    assert ran.json["robust_accuracy"] < 0.7


def test_code_from_a_module_in_this_folder(run: Attack, words: tuple[object, ...], tmp_path: Path) -> None:
    (tmp_path / "my_own_nets.py").write_text(
        "from torch import nn\ndef net(): return nn.Sequential(nn.Flatten(), nn.Linear(36, 2))\n"
    )
    assert run(*words, "--model", "my_own_nets:net").code == 0


@pytest.mark.parametrize(
    ("function", "says"),
    [
        ("softmax", "probabilities instead of logits"),
        ("random", "outputs that change between two calls"),
        ("detached", "zero gradients: for 100%"),
        ("rounded", "zero gradients: for 100%"),
        ("ten_outputs", "10 outputs and the data 2 classes"),
    ],
)
def test_doubtful_models_are_attacked_with_a_warning(
    run: Attack, words: tuple[object, ...], world: Path, function: str, says: str
) -> None:
    ran = run(*words, "--model", f"{world}/models.py:{function}", "--json")
    assert ran.code == 0
    assert any(says in warning for warning in ran.json["warnings"])
    assert ran.err.startswith("warning: ")
    assert says in ran.err
    assert run(*words, "--model", f"{world}/models.py:{function}", "--quiet").err == ""


@pytest.mark.parametrize(
    ("function", "says"),
    [
        ("nan", ["NaN or infinite", "check its weights"]),
        ("one_output", ["at least 2 classes", "(64, 1)"]),
        ("pair", ["tuple", "(n, classes)"]),
        ("fails_inside", ["LookupError: no such layer", "(1, 6, 6)"]),
        ("raises", ["raises() failed", "boom and more"]),
        ("ends", ["ends() failed", "SystemExit"]),
        ("number", ["number() returned int", "torch.nn.Module"]),
        ("needs", ["needs() failed", "without arguments"]),
        ("ntt", ["'ntt'", "did you mean 'net'"]),
        ("BIAS", ["BIAS() failed", "not callable"]),
    ],
)
def test_code_that_gives_no_classifier(
    refused: Callable[..., str], words: tuple[object, ...], world: Path, function: str, says: list[str]
) -> None:
    line = refused(*words, "--model", f"{world}/models.py:{function}", "--out", "run")
    for word in says:
        assert word in line


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("import no_such_module_here", "No module named 'no_such_module_here'"),
        ("def net(:", "SyntaxError"),
        ("raise SystemExit(3)", "SystemExit: 3"),
    ],
)
def test_code_that_cannot_be_imported(
    refused: Callable[..., str], words: tuple[object, ...], tmp_path: Path, source: str, says: str
) -> None:
    (tmp_path / "broken.py").write_text(source)
    line = refused(*words, "--model", "broken.py:net", "--out", "run")
    assert "importing broken.py failed" in line
    assert says in line


@pytest.mark.parametrize(
    ("model", "says"),
    [
        ("nowhere", ["nowhere", "does not exist", "path.py:function"]),
        ("nowhere.py:net", ["no file nowhere.py"]),
        ("no_such_module_here:net", ["No module named 'no_such_module_here'"]),
        (":net", [":net"]),
        ("nowhere.pt2", ["nowhere.pt2", "no such file"]),
        ("torchvision:resnt18", ["'resnt18'", "did you mean 'resnet18'"]),
        ("torchvision:resnet18", ["--weights", "downloads none"]),
    ],
)
def test_models_that_are_not_there(
    refused: Callable[..., str], words: tuple[object, ...], model: str, says: list[str]
) -> None:
    line = refused(*words, "--model", model, "--out", "run")
    for word in says:
        assert word in line


def test_results_or_data_given_as_a_model(refused: Callable[..., str], words: tuple[object, ...], world: Path) -> None:
    assert "is a detector, but a classifier is needed" in refused(*words, "--model", world / "detector")
    for name in ("results", "photos", "two.npz"):
        assert "is not a model" in refused(*words, "--model", world / name)


def test_labels_beyond_the_outputs_wherever_they_stand(refused: Callable[..., str], world: Path) -> None:
    common = ("attack", "fgsm", "--data", world / "sorted.npz", "--eps", 0.1)  # label 4 comes after a hundred of 0
    line = refused(*common, "--model", f"{world}/models.py:three_outputs")
    assert "labels go up to 4, but the model has 3 outputs" in line


def test_what_a_model_prints_does_not_mix_with_the_result(run: Attack, words: tuple[object, ...], world: Path) -> None:
    ran = run(*words, "--model", f"{world}/models.py:talks", "--json")
    assert ran.code == 0
    assert ran.json["n"] == 200
    assert ran.err.startswith("hello from the model\nand again\n")
    ran = run(*words, "--model", f"{world}/models.py:warns", "--json")
    assert (ran.code, ran.json["n"]) == (0, 200)
    assert ran.err.startswith("warning: this model is old (models.py, line ")
    assert ran.err.count("\n") == 1


def test_weights_for_code(run: Attack, refused: Callable[..., str], words: tuple[object, ...], world: Path) -> None:
    flipped = {"layer.weight": torch.ones(2, 36), "layer.bias": torch.tensor([0.0, 1.0])}
    save_file(flipped, "flipped.safetensors")
    torch.save({"state_dict": {f"module.{key}": value for key, value in flipped.items()}}, "flipped.pt")
    for name in ("flipped.safetensors", "flipped.pt"):
        found = run(*words, "--model", f"{world}/models.py:net", "--weights", name, "--json").json
        assert found["clean_accuracy"] == 0.5
    torch.save({"layer.weight": torch.ones(3, 36)}, "other.pt")
    line = refused(*words, "--model", f"{world}/models.py:net", "--weights", "other.pt")
    assert "missing: layer.bias" in line
    assert "layer.weight (3, 36) instead of (2, 36)" in line
    torch.save({"epoch": 3}, "note.pt")
    assert "not a state dict" in refused(*words, "--model", f"{world}/models.py:net", "--weights", "note.pt")
    assert "no such file" in refused(*words, "--model", f"{world}/models.py:net", "--weights", "missing.pt")
    Path("cut.pt").write_bytes(Path("flipped.pt").read_bytes()[:200])
    Path("noise.safetensors").write_bytes(b"noise")
    for name in ("cut.pt", "noise.safetensors"):
        assert "cannot be read as weights" in refused(*words, "--model", f"{world}/models.py:net", "--weights", name)
    assert "leave out --weights" in refused(*words, "--model", world / "victim", "--weights", "flipped.pt")


class Program:
    """Pickled, it runs a command when it is read."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.canary}",)


def test_no_file_is_run_on_the_way_in(
    refused: Callable[..., str], words: tuple[object, ...], world: Path, tmp_path: Path
) -> None:
    canary = tmp_path / "canary"
    Path("old.pt").write_bytes(pickle.dumps(Program(canary)))
    torch.save({"layer.weight": Program(canary)}, "new.pt")
    np.save("inputs.npy", np.array([Program(canary)], dtype=object))
    for name in ("old.pt", "new.pt"):
        line = refused(*words, "--model", f"{world}/models.py:net", "--weights", name)
        assert "would run code" in line
        assert "needs --trust" in refused(*words, "--model", name)
    refused("attack", "fgsm", "--data", "inputs.npy", "--eps", 0.1, "--model", world / "victim")
    assert not canary.exists()
    pickle.loads(Path("old.pt").read_bytes())  # the canary would have sung
    assert canary.exists()


@pytest.mark.parametrize("form", ["exported.pt2", "script.pt"])
def test_programs_only_on_trust_and_then_with_gradients(
    run: Attack, refused: Callable[..., str], words: tuple[object, ...], net: nn.Module, world: Path, form: str
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if form == "script.pt":
            torch.jit.script(net).save(form)
        else:
            batch = torch.export.Dim("batch")
            torch.export.save(torch.export.export(net, (torch.rand(4, 1, 6, 6),), dynamic_shapes=({0: batch},)), form)
    line = refused(*words, "--model", form)
    assert f"--model {form} needs --trust: it holds code" in line
    ran = run(*words, "--model", form, "--trust", "--json")
    same = run(*words, "--model", f"{world}/models.py:net", "--json")
    assert (ran.code, ran.err) == (0, "")
    for key in ("clean_accuracy", "robust_accuracy", "backward_passes", "warnings"):
        assert ran.json[key] == same.json[key]
    assert "leave out --weights" in refused(*words, "--model", form, "--trust", "--weights", form)


def test_programs_that_cannot_be_used(refused: Callable[..., str], words: tuple[object, ...], net: nn.Module) -> None:
    torch.save(net.state_dict(), "weights.pt")
    line = refused(*words, "--model", "weights.pt", "--trust")
    assert "cannot be loaded as a TorchScript file" in line
    assert "--model path.py:function --weights weights.pt" in line
    Path("noise.pt2").write_bytes(b"noise")
    assert "cannot be loaded as a torch.export file" in refused(*words, "--model", "noise.pt2", "--trust")
    torch.export.save(torch.export.export(net, (torch.rand(4, 1, 6, 6),)), "four.pt2")
    line = refused(*words, "--model", "four.pt2", "--trust")
    assert "any number of such inputs" in line


def test_torchvision_with_weights_in_either_form(run: Attack, refused: Callable[..., str], world: Path) -> None:
    from torchvision.models import resnet18

    state = resnet18(num_classes=10).state_dict()
    torch.save(state, "r.pt")
    save_file({key: value.contiguous() for key, value in state.items()}, "r.safetensors")  # which sorts the names
    np.savez("rgb.npz", x=np.random.default_rng(0).random((6, 3, 32, 32), np.float32), y=np.arange(6))
    words = ("attack", "fgsm", "--data", "rgb.npz", "--eps", "8/255", "--model", "torchvision:resnet18", "--json")
    pytorch, sorted_names = (run(*words, "--weights", name) for name in ("r.pt", "r.safetensors"))
    assert (pytorch.code, sorted_names.code) == (0, 0)
    assert pytorch.json["model_sha256"] == sorted_names.json["model_sha256"]
    assert pytorch.json["configuration"] == sorted_names.json["configuration"]
    usual = ("--mean", "0.485,0.456,0.406", "--std", "0.229,0.224,0.225")
    assert run(*words, "--weights", "r.pt", *usual).code == 0
    line = refused(
        "attack", "fgsm", "--data", "rgb.npz", "--eps", 0.1, "--model", "torchvision:resnet34", "--weights", "r.pt"
    )
    assert "do not fit" in line
    assert "missing: layer1.2" in line


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--mean", "0.5"], "--mean and --std belong together"),
        (["--std", "0.5"], "--mean and --std belong together"),
        (["--mean", "0.5", "--std", "0"], "std above 0"),
        (["--mean", "0.5,0.5", "--std", "1,1,1"], "one value a channel"),
        (["--mean", "0,0,0", "--std", "1,1,1"], "have 3 values, but the inputs have 1 channels"),
    ],
)
def test_normalisation_that_does_not_fit(
    refused: Callable[..., str], words: tuple[object, ...], world: Path, options: list[str], says: str
) -> None:
    assert says in refused(*words, "--model", world / "victim", *options)


def test_normalisation_is_part_of_the_model(
    run: Attack, misused: Callable[..., str], words: tuple[object, ...], world: Path
) -> None:
    model = ("--model", f"{world}/models.py:net", "--json")
    plain, same = run(*words, *model).json, run(*words, *model, "--mean", "0", "--std", "1").json
    other = run(*words, *model, "--mean", "0.5", "--std", "0.5").json
    assert plain["robust_accuracy"] == same["robust_accuracy"]
    assert other["clean_accuracy"] < plain["clean_accuracy"]
    assert other["eps"] == plain["eps"]
    assert "'abc' is not a number" in misused(*words, *model, "--mean", "abc", "--std", "1")
