"""Where a model to be tested comes from: an artifact, a torchvision name with weights, or the user's own code."""

from __future__ import annotations

import importlib
import importlib.util
import logging
import pickle
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from robustgen.artifacts import is_artifact, read_artifact, state_digest
from robustgen.data.source import DataSpec
from robustgen.errors import ArtifactError, UsageError
from robustgen.models.build import from_config, load_state, torchvision_names
from robustgen.models.normalise import Normalised
from robustgen.registry import suggestion

FORMS = (
    "an artifact directory made by 'robustgen train', torchvision:NAME, module:function, path.py:function, "
    "or a .pt2 / TorchScript file with --trust"
)
TRUST = (
    "it holds code, which runs when it is loaded and used and can do all that you can do on this machine; "
    "pass --trust only for a file whose origin you trust as you would a program's"
)


@dataclass(frozen=True)
class LoadedModel:
    """A network in evaluation mode on the CPU, where it came from, the hash of its weights, and its data's spec if
    that is known.
    """

    network: nn.Module
    origin: str
    sha256: str
    spec: DataSpec | None = None
    rebuild: dict[str, Any] | None = None
    """What `from_config` needs to make it again from its weights alone; None where that would need the user's code."""

    def to_config(self) -> dict[str, Any]:
        """Plain values by which whatever was made with it knows it again, and without user's code can make it again."""
        needed = None if self.rebuild is None else {key: self.rebuild[key] for key in ("arch", "shape", "classes")}
        return {"origin": self.origin, "sha256": self.sha256, "rebuild": needed}


def load_model(
    model: str,
    *,
    weights: Path | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    trust: bool = False,
) -> LoadedModel:
    """Load `model`, one of FORMS. `weights`: a state dict (safetensors, or a torch file read with weights_only) for a
    network in code.

    `mean`, `std`: wrap a network that expects normalised input, so that it takes the data's own range. Raises
    `UsageError` for an unknown form, `ArtifactError` for files that cannot be read or do not fit.
    """
    if (mean is None) != (std is None):
        raise UsageError("--mean and --std belong together: give both or neither")
    spec = rebuild = None
    path = Path(model)
    if is_artifact(path):
        if weights is not None:
            raise UsageError(f"{model} is an artifact and holds its own weights: leave out --weights")
        artifact = read_artifact(path, "classifier")
        network: nn.Module = from_config(artifact.config, artifact.tensors, str(path))
        rebuild = artifact.config if mean is None else None
        try:
            spec = DataSpec.from_json(artifact.config["data"])
        except (KeyError, TypeError, AttributeError) as error:
            raise ArtifactError(
                f"{model} does not say which data it was trained on: make it again with 'robustgen train'"
            ) from error
    elif model.startswith("torchvision:"):
        network = _from_torchvision(model.removeprefix("torchvision:"), weights)
    elif path.suffix in (".pt2", ".pt", ".pth", ".ts") and ":" not in model:
        network = _from_program(path, trust, weights)
    elif ":" in model:
        network = _from_code(model, weights)
    else:
        there = "holds no manifest.json" if path.exists() else "does not exist"
        raise UsageError(f"--model {model} is not a model: as a path it {there}; give {FORMS}")
    if mean is not None and std is not None:
        network = Normalised(network, mean, std)
    return LoadedModel(_evaluation(network), model, state_digest(network.state_dict()), spec, rebuild)


def _evaluation(network: nn.Module) -> nn.Module:
    try:
        return network.eval()
    except NotImplementedError:  # torch.export programs are fixed in the mode they were exported in
        return network


def read_state(path: Path) -> dict[str, Tensor]:
    """A state dict from a safetensors or torch file; executes nothing. Raises `ArtifactError` if it cannot be read as
    one.
    """
    if not path.is_file():
        raise ArtifactError(f"--weights {path}: there is no such file")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        with _without_notes():
            found = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ArtifactError(
            f"--weights {path} holds more than tensors, and loading it would run code: save the network's "
            "state_dict() instead"
        ) from error
    except Exception as error:  # torch and safetensors raise a dozen types on damaged files
        raise ArtifactError(
            f"--weights {path} cannot be read as weights ({type(error).__name__}): give a state dict saved by "
            "torch.save or safetensors"
        ) from error
    if isinstance(found, Mapping) and isinstance(found.get("state_dict"), Mapping):
        found = found["state_dict"]
    if not isinstance(found, Mapping) or not found or not all(isinstance(v, Tensor) for v in found.values()):
        raise ArtifactError(f"--weights {path} is not a state dict (names to tensors): save the network's state_dict()")
    return {str(k).removeprefix("module."): v for k, v in found.items()}


def _from_torchvision(name: str, weights: Path | None) -> nn.Module:
    from torchvision import models

    if name not in torchvision_names():
        raise UsageError(suggestion(name, torchvision_names(), "torchvision model"))
    if weights is None:
        raise UsageError(f"torchvision:{name} needs --weights FILE, the state dict to load: robustgen downloads none")
    state = read_state(weights)
    auxiliary = {"init_weights": False, "aux_logits": any(k.startswith(("aux", "AuxLogits")) for k in state)}
    options = auxiliary if name in ("googlenet", "inception_v3") else {}
    with torch.device("meta"):
        published = models.get_model(name, weights=None, **options).state_dict()
    # trained for another number of classes than the published 1000, weights differ from it in their last layer alone
    others = [len(v) for k, v in state.items() if k in published and v.dim() and v.shape != published[k].shape]
    network: nn.Module = models.get_model(name, weights=None, num_classes=others[0] if others else 1000, **options)
    load_state(network, state, str(weights))
    return network


def _from_program(path: Path, trust: bool, weights: Path | None) -> nn.Module:
    if not path.is_file():
        raise ArtifactError(f"--model {path}: there is no such file")
    if not trust:
        raise UsageError(
            f"--model {path} needs --trust: {TRUST}; for a bare state dict use --model path.py:function --weights "
            f"{path}"
        )
    if weights is not None:
        raise UsageError(f"{path} is a whole program and holds its own weights: leave out --weights")
    try:
        with _without_notes():
            if path.suffix == ".pt2":
                program: nn.Module = torch.export.load(path).module()
                return program
            script: nn.Module = torch.jit.load(str(path), map_location="cpu")
        return script
    except Exception as error:  # any type at all can come from foreign code
        raise ArtifactError(
            f"--model {path} cannot be loaded as a {'torch.export' if path.suffix == '.pt2' else 'TorchScript'} file "
            f"({type(error).__name__}: {str(error).partition('.')[0]}): save it again with "
            f"{'torch.export.save' if path.suffix == '.pt2' else 'torch.jit.save'}; for a bare state dict use --model "
            f"path.py:function --weights {path}"
        ) from error


def _from_code(model: str, weights: Path | None) -> nn.Module:
    place, _, name = model.rpartition(":")
    if place.endswith(".py") and not Path(place).is_file():
        raise UsageError(f"--model {model}: there is no file {place}")
    with _importable(Path(place).parent if place.endswith(".py") else Path()):
        try:
            module = _import(place)
        except (Exception, SystemExit) as error:  # the user's module may raise anything, and a script may end itself
            raise UsageError(
                f"--model {model}: importing {place} failed ({type(error).__name__}: {error}); give {FORMS}"
            ) from error
        if not hasattr(module, name):
            functions = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
            raise UsageError(suggestion(name, functions or ["(none)"], f"function in {place}"))
        try:
            network = getattr(module, name)()
        except (Exception, SystemExit) as error:  # likewise
            raise UsageError(
                f"--model {model}: {name}() failed ({type(error).__name__}: {error}); it must return the network when "
                "called without arguments"
            ) from error
    if not isinstance(network, nn.Module):
        raise UsageError(
            f"--model {model}: {name}() returned {type(network).__name__}, and a torch.nn.Module is needed"
        )
    if weights is not None:
        load_state(network, read_state(weights), str(weights))
    return network


@contextmanager
def _without_notes() -> Iterator[None]:
    """Torch warns of what is odd or out of date about a file and logs the traceback of what it raises; the file is what
    it is, and what matters raises.
    """
    logger = logging.getLogger("torch.export")
    before, logger.disabled = logger.disabled, True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.disabled = before


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """Have the modules in `folder` importable, as when Python runs a script there."""
    place = str(folder.resolve())
    sys.path.insert(0, place)
    try:
        yield
    finally:
        if place in sys.path:
            sys.path.remove(place)


def _import(place: str) -> ModuleType:
    """Run and return the module of a .py file, or the module of that dotted name."""
    if not place.endswith(".py"):
        return importlib.import_module(place)
    found = importlib.util.spec_from_file_location(f"robustgen_user_{Path(place).stem}", place)
    if found is None or found.loader is None:
        raise ImportError("it is not a Python file")
    module = importlib.util.module_from_spec(found)
    sys.modules[found.name] = module
    found.loader.exec_module(module)
    return module
