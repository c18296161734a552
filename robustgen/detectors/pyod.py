"""Any detector of PyOD as one of ours: its configuration and training inputs are kept, never the object itself."""

from __future__ import annotations

import importlib
import inspect
import io
import json
import random
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from types import NoneType
from typing import Any, final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from robustgen.data.rows import Rows
from robustgen.detectors.base import Detector
from robustgen.detectors.neighbours import kept_rows
from robustgen.detectors.pyod_names import pyod_name
from robustgen.detectors.standardise import Scale, require_scale
from robustgen.errors import ArtifactError, DataError, MissingPackageError, UsageError
from robustgen.registry import suggestion
from robustgen.runtime import seeded
from robustgen.training.descent import TrainingProgress

_PROBES = 16
_DECIDED = ("self", "random_state", "n_features", "verbose", "device", "contamination")
_FAILURES = (ValueError, TypeError, RuntimeError, NameError, AttributeError, ArithmeticError, LookupError)


@final
class PyODDetector(Detector):
    """The detector `model` of PyOD (Zhao, Nasrullah, Li 2019), with `arguments` of its constructor as a JSON object.

    Its score is PyOD's decision function, without gradients. Where that depends on the other inputs of a batch (ECOD,
    COPOD) or on chance (VAE), inputs are scored one at a time, from the same seed. PyOD draws from the global random
    states of Python, NumPy and torch: they are seeded for it and put back.

    PyOD stores objects as pickles, which can execute code when they are read. Here at most `most` training inputs,
    drawn by `seed`, are kept as numbers; a restored detector is fitted on them again when it first scores, and raises
    `ArtifactError` if it then scores some of them otherwise than before. `scale`: see `Detector`. Raises `UsageError`
    for a model or parameter that PyOD does not have, `MissingPackageError` without PyOD, `DataError` where PyOD fails
    or gives infinite scores.
    """

    differentiable = False

    kept: Tensor
    expected: Tensor
    alone: Tensor

    def __init__(
        self, model: str = "KNN", arguments: str = "{}", most: int = 20_000, scale: Scale = "auto", seed: int = 0
    ) -> None:
        super().__init__()
        self.model, self.arguments, self.most = pyod_name(model), arguments, most
        self.scale, self.seed = require_scale(scale), seed
        if most < 2:
            raise UsageError(f"a detector of PyOD needs at least 2 training inputs, but most={most} came")
        try:
            self._given: dict[str, Any] = dict(json.loads(arguments))
        except ValueError as error:
            raise UsageError(f"arguments are a JSON object, but {arguments!r} came: {error}") from error
        known = parameters_of(model) if self._given else {}
        for name in self._given:
            if name not in known:
                raise UsageError(suggestion(name, known, f"option of pyod:{self.model}"))
        self._fitted: Any = None
        self.register_buffer("kept", torch.empty(0, 0))
        self.register_buffer("expected", torch.empty(0, dtype=torch.float64))
        self.register_buffer("alone", torch.tensor(False))

    def _build(self, shape: tuple[int, ...]) -> None:
        self._fitted = None

    def _fit(self, rows: Rows, progress: TrainingProgress | None) -> None:
        kept = kept_rows(rows, self.most, self.seed).cpu()
        self._fitted = self._refit(kept)
        probes = _numbers(kept)[:_PROBES]
        together, apart = self._decide(probes), np.concatenate([self._decide(probes[i : i + 1]) for i in _each(probes)])
        alone = not np.allclose(together, apart, rtol=1e-6, atol=1e-12)
        if not np.isfinite(apart).all():
            raise DataError(
                f"PyOD's {self.model} gives infinite scores for these data, as its PCA does for constant or dependent "
                "columns: take a detector of robustgen's own"
            )
        self.kept = kept.to(self._device)
        self.alone = torch.tensor(alone, device=self._device)
        self.expected = torch.from_numpy(apart if alone else together).to(self._device)

    def _score(self, x: Tensor, condition: Tensor | None) -> Tensor:
        if self._fitted is None:
            self._fitted = self._refit(self.kept.cpu())
            found = self._decisions(_numbers(self.kept)[:_PROBES])
            if not np.allclose(found, self.expected.cpu().numpy(), rtol=1e-4, atol=1e-8):
                raise ArtifactError(
                    f"PyOD's {self.model}, fitted again on the same inputs, scores them otherwise than when it was "
                    "saved: this is another version of PyOD, or it cannot be seeded. Fit it again here"
                )
        return torch.from_numpy(self._decisions(_numbers(x))).to(x)

    def _refit(self, kept: Tensor) -> Any:
        arguments = dict(self._given)
        kind = _kind(self.model)
        wanted = inspect.signature(kind.__init__).parameters
        decided = {"random_state": self.seed, "n_features": kept.shape[1], "verbose": 0}
        arguments |= {name: value for name, value in decided.items() if name in wanted}
        with _apart(self.seed), self._named():
            return kind(**arguments).fit(_numbers(kept))

    def _decisions(self, x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        if not len(x):
            return np.empty(0)
        if not self.alone:
            return self._decide(x)
        return np.concatenate([self._decide(x[i : i + 1]) for i in _each(x)])

    def _decide(self, x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        with _apart(self.seed), self._named():
            return np.asarray(self._fitted.decision_function(x), np.float64).reshape(-1)

    @contextmanager
    def _named(self) -> Iterator[None]:
        """Say that a failure is PyOD's."""
        try:
            yield
        except ImportError as error:
            raise MissingPackageError(f"PyOD's {self.model} needs a package that is not installed: {error}") from error
        except _FAILURES as error:
            raise DataError(
                f"PyOD's {self.model} failed ({type(error).__name__}: {error}): give other options, or a detector of "
                "robustgen's own"
            ) from error


def parameters_of(model: str) -> dict[str, Any]:
    """The types of the options of PyOD's `model` that can be written as text, by name. Loads PyOD."""
    found: dict[str, Any] = {}
    for name, parameter in inspect.signature(_kind(pyod_name(model)).__init__).parameters.items():
        default = parameter.default
        if name in _DECIDED or parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
            continue
        if isinstance(default, bool):
            found[name] = bool
        elif isinstance(default, int):
            found[name] = int | float
        elif isinstance(default, (float, str)):
            found[name] = type(default)
        elif isinstance(default, (list, tuple)):
            found[name] = tuple
        elif default is None:
            found[name] = NoneType | bool | int | float | str
    return found


def _kind(model: str) -> Any:
    module = {"AutoEncoder": "auto_encoder", "DeepSVDD": "deep_svdd"}.get(model, model.lower())
    try:
        with _apart(0):  # what PyOD imports draws too
            return getattr(importlib.import_module(f"pyod.models.{module}"), model)
    except ModuleNotFoundError as error:
        raise MissingPackageError(
            f"this needs PyOD, and {error.name} is not installed: pip install 'robustgen[pyod]'"
        ) from error


def _numbers(x: Tensor) -> npt.NDArray[np.float64]:
    return x.detach().flatten(1).double().cpu().numpy()


def _each(x: npt.NDArray[np.float64]) -> range:
    return range(len(x))


@contextmanager
def _apart(seed: int) -> Iterator[None]:
    """PyOD draws from global generators, prints, warns, and some of it (QMCD) sets torch's threads: all from `seed`,
    unheard, and put back.
    """
    python, state, threads = random.getstate(), np.random.get_state(), torch.get_num_threads()  # noqa: NPY002
    try:
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        with seeded(seed), torch.enable_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
                yield
    finally:
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
        random.setstate(python)
        np.random.set_state(state)  # noqa: NPY002
