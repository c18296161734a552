"""A classifier as IBM's Adversarial Robustness Toolbox (ART) sees it: for its attacks, and as a second opinion on ours.

ART is imported only when a classifier is wrapped: that takes seconds, and reads or makes the folder `.art` in the
user's home (ART_DATA_PATH names another). Its attacks draw from NumPy's global generator.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, final

import torch
from torch import Tensor, nn

from robustgen.attacks.passes import evaluated
from robustgen.errors import MissingPackageError
from robustgen.objectives import Model

if TYPE_CHECKING:
    from art.estimators.classification import PyTorchClassifier


@final
class _Shielded(nn.Module):
    """`model` at arm's length: ART's mode switches, moves and `.grad` end here and never reach it.

    Inputs are cast to the parameters' type: ART's HopSkipJump and Boundary hand over float64, which a float32
    convolution refuses. Logits come back where the inputs were, in float32 or wider, since NumPy has no bfloat16. A
    subclass of `nn.Sequential` is called as a whole; ART would call a bare one layer by layer, past its own `forward`.
    """

    def __init__(self, model: Model) -> None:
        super().__init__()
        self._hidden = (model,)  # in a tuple, so that it is not a submodule

    def forward(self, x: Tensor) -> Tensor:
        (model,) = self._hidden
        like = _first_parameter(model)
        with evaluated(model):
            logits = model(x.to(like.device, like.dtype))
        return logits.to(x.device, torch.promote_types(logits.dtype, torch.float32))


def _first_parameter(model: Model) -> Tensor:
    """What inputs have to match; float32 on the CPU where there is no parameter."""
    parameters = model.parameters() if isinstance(model, nn.Module) else iter(())
    return next((p for p in parameters if p.is_floating_point()), torch.zeros(()))


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
        raise MissingPackageError(
            f"this needs ART, and {error.name} is not installed: pip install adversarial-robustness-toolbox"
        ) from error
    device = device or _first_parameter(model).device
    with torch.cuda.device(device if device.type == "cuda" else -1):  # ART takes the current one; -1 changes nothing
        return PyTorchClassifier(
            model=_Shielded(model),
            loss=nn.CrossEntropyLoss(reduction="sum"),
            input_shape=shape,
            nb_classes=classes,
            clip_values=(low, high),
            device_type="gpu" if device.type == "cuda" else "cpu",
        )
