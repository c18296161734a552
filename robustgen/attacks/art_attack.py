"""Any evasion attack of ART as one of ours."""

from __future__ import annotations

import contextlib
import inspect
import io
import os
import random
import re
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import NoneType
from typing import Any, ClassVar, Union, final, get_args

import numpy as np
import torch
from torch import Tensor

from robustgen.attacks.art import art_classifier
from robustgen.attacks.art_names import IMAGES, OWN_BATCH, PROBABILITIES, TOWARDS, VECTORS, art_name
from robustgen.attacks.base import Attack, Found, Progress
from robustgen.attacks.passes import Passes
from robustgen.errors import MissingPackageError, RobustgenError, UsageError
from robustgen.objectives import Misclassify
from robustgen.registry import suggestion
from robustgen.threat import Norm

_DECIDED = ("self", "classifier", "estimator", "norm", "eps", "targeted", "batch_size", "verbose", "summary_writer")
_ORDER: dict[str, Any] = {
    "None": NoneType,
    "bool": bool,
    "int": int,
    "float": float,
    "tuple": tuple,
    "dict": dict,
    "str": str,
}


@final
@dataclass(frozen=True, kw_only=True)
class ArtAttack(Attack):
    """The evasion attack `name` of the Adversarial Robustness Toolbox (Nicolae et al. 2018), made legal and verified.

    `name`: ART's class, in any case, with or without dashes; `art_names.ART` lists them. `parameters`: arguments of its
    constructor. The threat model and the fields here decide norm, eps, targeted and batch_size where ART's attack has
    them; `eps_step` keeps its proportion to eps if it is not given. What leaves the ball or the box, as ART's searches
    for the smallest change may, is projected into it, and success is what a pass says at that point.

    ART works through NumPy, a row at a time in places, and draws from NumPy's global state, which is seeded and put
    back, so that a row's result depends on those beside it; its HopSkipJump and BoundaryAttack draw their starts from
    the operating system. Passes are counted exactly in total and spread evenly over the rows. `steps` of the result
    counts forward passes.
    """

    norms: ClassVar[tuple[Norm, ...]] = ("linf", "l2", "l1", "l0")
    whole: ClassVar[bool] = True

    name: str
    parameters: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "name", art_name(self.name))
        object.__setattr__(self, "parameters", dict(self.parameters))
        if not isinstance(self.objective, Misclassify):
            raise UsageError("ART's attacks know misclassification and a target class only, but another objective came")
        if self.name in TOWARDS and not self.objective.targeted:
            raise UsageError(f"art:{self.name} aims at a class: give one (--targeted next)")
        if self.parameters:
            known = parameters_of(self.name)
            for option in self.parameters:
                if option not in known:
                    raise UsageError(suggestion(option, known, f"option of art:{self.name}"))

    def _run(self, passes: Passes, x: Tensor, y: Tensor, progress: Progress, verify: bool) -> Found:
        found = Found.nothing(x)
        if not len(x):
            return found
        row = torch.arange(len(x), device=x.device)
        if self.threat.eps > 0:
            found.x_adv = self._generated(passes, x, y)
        outside = ~self.threat.allows(found.x_adv, x)
        found.x_adv[outside] = self.threat.project(found.x_adv[outside], x[outside])
        found.steps = passes.forward.clone()
        if verify:
            for part in row.split(passes.rows_at_once):
                found.success[part] = passes.judge(part, found.x_adv[part], y[part]).achieved
            found.first_success = torch.where(found.success, found.steps, -1)
        progress(len(x))
        return found

    def _generated(self, passes: Passes, x: Tensor, y: Tensor) -> Tensor:
        """What ART makes of `x`; where that is not a number, `x` itself."""
        if self.name in IMAGES and x.dim() != 4:
            raise UsageError(f"art:{self.name} needs images (channels, height, width), but {tuple(x.shape[1:])} came")
        if self.name in VECTORS and x.dim() != 2:
            raise UsageError(f"art:{self.name} needs vectors, but inputs of shape {tuple(x.shape[1:])} came")
        classes = passes.logits(torch.arange(1, device=x.device), x[:1]).shape[1]
        counted = _Counted(passes, x, self.name in PROBABILITIES)
        estimator = art_classifier(
            counted, tuple(x.shape[1:]), classes, self.threat.low, self.threat.high, device=x.device
        )
        kind = _kind(self.name)
        inputs, labels = x.cpu().numpy(), torch.nn.functional.one_hot(y, classes).float().cpu().numpy()
        with quiet(self.seed, x.device), explained(self.name):
            attack = kind(estimator, **self._arguments(kind, passes.rows_at_once))
            if self.name == "LowProFool":
                attack.fit_importances(inputs, y.cpu().numpy())
            if self.name == "ShadowAttack":
                aims = labels if self._targeted else [None] * len(x)
                parts = zip(inputs, aims, strict=True)
                made = np.concatenate([attack.generate(a[None], None if b is None else b[None]) for a, b in parts])
            else:
                made = attack.generate(inputs, labels)
        counted.charge()
        points = torch.from_numpy(np.asarray(made, dtype=np.float64)).to(x.device)
        return torch.where(torch.isfinite(points), points.to(x.dtype), x)

    @property
    def _targeted(self) -> bool:
        return bool(getattr(self.objective, "targeted", False))

    def _arguments(self, kind: type, rows_at_once: int) -> dict[str, Any]:
        """Of ART's constructor: what the threat model and the fields decide, then `parameters`."""
        known = inspect.signature(kind).parameters
        default = {name: parameter.default for name, parameter in known.items()}
        eps = self.threat.eps
        decided: dict[str, Any] = {"eps": eps, "verbose": False}
        if isinstance(default.get("norm"), int | float):
            if self.threat.norm == "l0":
                raise UsageError(f"art:{self.name} works in linf, l2 and l1, but norm l0 was asked for")
            decided["norm"] = {"linf": np.inf, "l2": 2, "l1": 1}[self.threat.norm]
        if "eps_step" in known and "eps" in known:
            decided["eps_step"] = eps * default["eps_step"] / default["eps"]
        if self.name not in OWN_BATCH:
            decided["batch_size"] = rows_at_once
        if "targeted" in known:
            decided["targeted"] = self._targeted
        elif self._targeted and self.name not in TOWARDS:
            raise UsageError(f"art:{self.name} has no targeted form: leave the target out")
        return {name: value for name, value in decided.items() if name in known} | dict(self.parameters)


def parameters_of(name: str) -> dict[str, Any]:
    """The arguments of ART's attack `name` that can be written as text, with their types; imports ART.

    Those that the threat model and the options of every attack decide are left out.
    """
    kind = _kind(art_name(name))
    found = {}
    for option, parameter in inspect.signature(kind).parameters.items():
        plain = _plain(parameter.annotation)
        if option not in _DECIDED and plain not in ((), (NoneType,)):
            found[option] = Union[plain]  # noqa: UP007  # of a tuple that is known at run time only
    return found


def _plain(annotation: Any) -> tuple[Any, ...]:
    """The plain types in an annotation, most of which are text in ART, in the order in which to try them."""
    if isinstance(annotation, str):
        text = re.sub(r"\[[^\[\]]*\]", "", annotation)
    else:
        text = " ".join(getattr(part, "__name__", "") for part in get_args(annotation) or (annotation,))
    words = set(re.findall(r"\w+", text.replace("NoneType", "None")))
    return tuple(kind for word, kind in _ORDER.items() if word in words)


def _kind(name: str) -> Any:
    with explained(name):
        try:
            import art.attacks.evasion as evasion
        except ModuleNotFoundError as error:
            if error.name is None or error.name.partition(".")[0] != "art":
                raise
            raise MissingPackageError(
                "this needs ART, which is not installed: pip install adversarial-robustness-toolbox"
            ) from error
        if not hasattr(evasion, name):  # ART leaves it out where numba is missing
            raise ModuleNotFoundError(f"no attack {name}", name="numba")
    return getattr(evasion, name)


@final
class _Counted:
    """The model as ART calls it, on the device and in the type of `x`; every row through it is counted."""

    def __init__(self, passes: Passes, x: Tensor, probabilities: bool) -> None:
        self._passes, self._like, self._probabilities = passes, x[:1], probabilities
        self._forward = self._backward = 0

    def __call__(self, x: Tensor) -> Tensor:
        if x.requires_grad:
            x.register_hook(self._back)
        self._forward += len(x) * self._passes.eot
        point = x.to(self._like)
        logits = torch.stack([self._passes.view(point) for _ in range(self._passes.eot)]).mean(0)
        return (logits.softmax(1) if self._probabilities else logits).to(x.device)

    def _back(self, gradient: Tensor) -> None:
        self._backward += len(gradient) * self._passes.eot

    def charge(self) -> None:
        """Spread the counts evenly, what does not divide over the first rows."""
        for counter, total in ((self._passes.forward, self._forward), (self._passes.backward, self._backward)):
            share, rest = divmod(total, len(counter))
            counter += share
            counter[:rest] += 1


@contextlib.contextmanager
def quiet(seed: int, device: torch.device) -> Iterator[None]:
    """No prints, bars or warnings; generators seeded and put back; files in a place that goes."""
    numpy_state, python_state, place = np.random.get_state(), random.getstate(), os.getcwd()  # noqa: NPY002
    silence = io.StringIO()
    devices = [device] if device.type == "cuda" else []
    with contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.redirect_stdout(silence))
        stack.enter_context(contextlib.redirect_stderr(silence))
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        stack.enter_context(torch.random.fork_rng(devices))
        os.chdir(stack.enter_context(tempfile.TemporaryDirectory()))
        try:
            np.random.seed(seed % 2**32)  # noqa: NPY002  # ART's attacks draw from it
            random.seed(seed)
            torch.manual_seed(seed)
            yield
        finally:
            os.chdir(place)
            np.random.set_state(numpy_state)  # noqa: NPY002
            random.setstate(python_state)


@contextlib.contextmanager
def explained(name: str) -> Iterator[None]:
    """What ART finds wrong, as errors of ours."""
    try:
        yield
    except RobustgenError:
        raise
    except ModuleNotFoundError as error:
        raise MissingPackageError(
            f"art:{name} needs {error.name}, which is not installed: pip install {error.name}"
        ) from error
    except (ValueError, TypeError, NotImplementedError) as error:
        raise UsageError(f"art:{name} refused: {error}") from error
