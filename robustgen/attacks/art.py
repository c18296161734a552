"""IBM's Adversarial Robustness Toolbox (ART): our classifiers as its estimators, our attacks as its evasion attacks.

ART is imported only when something is wrapped: that takes seconds, and reads or makes the folder `.art` in the
user's home (ART_DATA_PATH names another). Its attacks draw from NumPy's global generator.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from robustgen.attacks.base import Attack
from robustgen.attacks.passes import evaluated
from robustgen.errors import MissingPackageError, UsageError
from robustgen.objectives import Model

if TYPE_CHECKING:
    from art.attacks import EvasionAttack
    from art.estimators.classification import PyTorchClassifier

_MISSING = "this needs ART, and {} is not installed: pip install adversarial-robustness-toolbox"


@final
class _Shielded(nn.Module):
    """`model` at arm's length: ART's mode switches, moves and `.grad` end here and never reach it.

    Inputs are cast to the parameters' type: ART's HopSkipJump and Boundary hand over float64, which a float32
    convolution refuses. Logits come back where the inputs were, in float32 or wider, since NumPy has no bfloat16. A
    subclass of `nn.Sequential` is called as a whole; ART would call a bare one layer by layer, past its own `forward`.
    """

    def __init__(self, model: Model, device: torch.device) -> None:
        super().__init__()
        self._hidden = (model,)  # in a tuple, so that it is not a submodule
        self._device = device
        # ART's CompositeAdversarialAttackPyTorch reads its device from the first parameter
        self.place = nn.Parameter(torch.zeros((), device=device), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        (model,) = self._hidden
        like = _first_parameter(model, self._device)
        with evaluated(model):
            logits = model(x.to(like.device, like.dtype))
        return logits.to(x.device, torch.promote_types(logits.dtype, torch.float32))


def _first_parameter(model: Model, device: torch.device | None = None) -> Tensor:
    """What inputs have to match; float32 on `device` where there is no parameter."""
    parameters = model.parameters() if isinstance(model, nn.Module) else iter(())
    return next((p for p in parameters if p.is_floating_point()), torch.zeros((), device=device))


def art_classifier(
    model: Model,
    shape: tuple[int, ...],
    classes: int,
    low: float = 0.0,
    high: float = 1.0,
    device: torch.device | None = None,
) -> PyTorchClassifier:
    """`model`, which takes inputs of `shape` in [`low`, `high`], as an ART estimator for ART's evasion attacks.

    `device`: where ART keeps its tensors, None = where the model's parameters are; ART knows the CPU and CUDA, and on
    other devices works from the CPU. The loss is the sum of cross-entropies, so that gradients do not depend on the
    batch size. Unlike an estimator made by hand, attacks leave the model's training mode and `.grad` as they were, and
    for the same reason `fit` trains nothing. Raises `MissingPackageError` without ART.
    """
    try:
        from art.estimators.classification import PyTorchClassifier
    except ModuleNotFoundError as error:
        raise MissingPackageError(_MISSING.format(error.name)) from error
    device = device or _first_parameter(model).device
    with torch.cuda.device(device if device.type == "cuda" else -1):  # ART takes the current one; -1 changes nothing
        return PyTorchClassifier(
            model=_Shielded(model, device),
            loss=nn.CrossEntropyLoss(reduction="sum"),
            input_shape=shape,
            nb_classes=classes,
            clip_values=(low, high),
            device_type="gpu" if device.type == "cuda" else "cpu",
        )


@final
class _Unwrapped(nn.Module):
    """The network of an ART estimator with the estimator's preprocessing before it, differentiable throughout."""

    def __init__(self, estimator: Any) -> None:
        super().__init__()
        self.network = estimator.model
        self._estimator = estimator

    def forward(self, x: Tensor) -> Tensor:
        x, _ = self._estimator._apply_preprocessing(x, y=None, fit=False, no_grad=False)
        logits: Tensor = self.network(x)
        return logits


def _only(bounds: Any) -> list[float]:
    """(low, high), each a number or an array of equal numbers."""
    values = [np.unique(bound) for bound in bounds]
    if any(len(value) != 1 for value in values):
        raise UsageError("an attack needs one box for all values, but the estimator's clip_values differ between them")
    return [float(value[0]) for value in values]


def as_evasion_attack(attack: Attack, estimator: PyTorchClassifier) -> EvasionAttack:
    """`attack` as an ART `EvasionAttack` on `estimator`, for what takes one: ART's adversarial training, its metrics.

    `generate(x, y=None)` takes and returns NumPy arrays (n, *shape), with `y` as class numbers (n,) or one-hot
    (n, classes); without `y` the labels are those that the estimator predicts. Preprocessing that the estimator does
    is part of the attacked model, and its `clip_values` replace the attack's box. The result is what `attack` finds, in
    the type of `x`. Raises `UsageError` for an estimator that is not a `PyTorchClassifier` or whose preprocessing is
    not in torch, and for a targeted attack without `y`; `MissingPackageError` without ART.
    """
    try:
        from art.attacks import EvasionAttack
        from art.estimators.classification import PyTorchClassifier
    except ModuleNotFoundError as error:
        raise MissingPackageError(_MISSING.format(error.name)) from error

    if not isinstance(estimator, PyTorchClassifier):
        raise UsageError(f"an attack needs an ART PyTorchClassifier, but {type(estimator).__name__} came")
    if estimator.preprocessing_operations and not estimator.all_framework_preprocessing:
        raise UsageError("an attack needs gradients of the estimator's preprocessing: use ART's PyTorch versions of it")
    if estimator.clip_values is not None:
        low, high = _only(estimator.clip_values)
        attack = replace(attack, threat=replace(attack.threat, low=low, high=high))

    class RobustgenAttack(EvasionAttack):  # type: ignore[misc]  # ART has no types
        attack_params = (*EvasionAttack.attack_params, "targeted")
        _estimator_requirements = (PyTorchClassifier,)

        def __init__(self) -> None:
            super().__init__(estimator=estimator)
            self._targeted = bool(getattr(attack.objective, "targeted", False))

        def generate(self, x: npt.NDArray[Any], y: npt.NDArray[Any] | None = None, **kwargs: Any) -> npt.NDArray[Any]:
            if kwargs:
                raise UsageError(f"generate takes x and y only, but {', '.join(kwargs)} came too")
            if y is None:
                if self.targeted:
                    raise UsageError("a targeted attack needs y, the classes to reach")
                y = estimator.predict(x)
            labels = np.asarray(y) if np.ndim(y) == 1 else np.argmax(y, axis=1)
            points = torch.from_numpy(np.asarray(x, dtype=np.float32)).to(estimator.device)
            found = attack(
                _Unwrapped(estimator), points, torch.from_numpy(labels.astype(np.int64)).to(estimator.device)
            )
            made: npt.NDArray[Any] = found.cpu().numpy().astype(x.dtype if x.dtype.kind == "f" else np.float32)
            return made

    return RobustgenAttack()
