"""The contract of a detector: fit on normal inputs, score any; state in buffers and parameters; saved without
pickles.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, TypeVar, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from robustgen.data.rows import Rows, as_rows
from robustgen.detectors.attribution import attribute, occlusion, typical
from robustgen.detectors.standardise import Scale, Standardise, StandardRows
from robustgen.errors import ArtifactError, RobustgenError, UsageError
from robustgen.training.descent import TrainingProgress

D = TypeVar("D", bound="Detector")  # not Self: the tests' run-time shape checks work method by method


class Detector(nn.Module, ABC):
    """Scores how anomalous an input is. Subclasses write `_fit` and `_score`, and `_build` if they hold networks.

    The constructor takes configuration only (numbers, strings) and stores each argument under its own name, so that a
    saved detector can be made again: `config`, `shape` and the state dict are all of it.

    The columns of tables are standardised first (`scale`), so that `_fit` and `_score` get them in one unit.
    """

    shape: tuple[int, ...] | None = None
    """The shape of one input, known once fitted."""

    _checkpoint: Path | None = None
    """Where a training in steps keeps its state."""

    scale: Scale = "auto"
    """"standard": (x - mean) / standard deviation, value by value, as on the training inputs; "none": inputs as they
    come; "auto": standard for vectors (tables), none for images. An option of detectors whose constructor takes it."""

    differentiable: bool = True
    """Whether scores have gradients with respect to inputs."""

    surrogate: bool = False
    """Whether these gradients are a stand-in, such as that of the identity for rounding, rather than derivatives of the
    score: finite differences will not agree with them."""

    random: bool = False
    """Whether the same input may score differently twice: attackers who know it then average draws, and are judged by
    most of fresh ones."""

    conditional: bool = False
    """Whether an input is judged against a label, which `score` then needs; `fit` needs labelled inputs."""

    labelled: ClassVar[bool] = False
    """Whether `fit` needs labelled inputs though `score` asks for no label."""

    version: ClassVar[int] = 1
    """Raised when the same options and data would now give another detector: what a suite has stored is fitted again.
    """

    typical: Tensor
    """(*shape) the median of each value over training inputs, in their own units, known once fitted."""

    def __init__(self) -> None:
        super().__init__()
        self.standardise: Standardise | None = None
        self.register_buffer(
            "_placed", torch.empty(0), persistent=False
        )  # follows .to(device) before there is any state
        self.register_buffer("typical", torch.empty(0))

    @final
    def fit(self: D, data: Any, *, progress: TrainingProgress | None = None, checkpoint: Path | None = None) -> D:
        """Learn what normal inputs look like, and return self. A second fit forgets the first.

        `data`: a tensor (n, *shape), a `Source` (its training split), a torch `Dataset`, or batches that can be gone
        through twice. Work is done on the device the detector is on. `checkpoint`: a file from which a killed training
        goes on, if the detector is trained in steps. Raises `DataError` for data that cannot be used.
        """
        rows = data if isinstance(data, Rows) else as_rows(data)
        self._checkpoint = checkpoint
        self._prepare(tuple(rows.shape))
        self.typical = typical(rows).float().to(self._device)
        if self.standardise is not None:
            self.standardise.prepare(rows)
            rows = StandardRows(rows, self.standardise)
        self._fit(rows, progress)
        self.eval()
        for parameter in self.parameters():
            parameter.requires_grad_(False)
        return self

    @final
    def score(self, x: Float[Tensor, "n *shape"], condition: Tensor | None = None) -> Float[Tensor, " n"]:
        """Anomaly scores (n,), differentiable in `x`; a row's score does not depend on the rows beside it.

        `condition` is what a conditional detector judges the input against (a predicted label, a paired image). Raises
        `RobustgenError` before `fit`, `UsageError` for inputs of another shape or type.
        """
        self._check(x)
        if x.shape[0] == 0:  # not every layer takes an empty batch
            return x.flatten(1).sum(1)
        return self._score(self.standardised(x), condition)

    @final
    def explain(self, x: Float[Tensor, "n *shape"], condition: Tensor | None = None) -> Float[Tensor, "n *shape"]:
        """How much each value of an input adds to its score, above a normal counterpart's; independent of the batch.

        A detector made of errors value by value gives these errors. Otherwise the values come from gradients integrated
        from the counterpart (the reconstruction, or the median training input; see `attribute`), and sum to score(x) -
        score(counterpart). Scores without a gradient are explained by `occlusion`, whose values need not sum to
        anything. The result carries no gradient. Raises as `score` does.
        """
        self._check(x)
        if x.shape[0] == 0:
            return x.detach()
        x = self.standardised(x.detach())
        with torch.no_grad():
            own = self._map(x, condition)
            if own is not None:
                return own
            if not self.differentiable:
                return occlusion(lambda z: self._score(z, _repeated(condition, len(z))), x, self._usual(x))
            start = self._counterpart(x)
        return attribute(lambda z: self._score(z, condition), x, start)

    def _check(self, x: Tensor) -> None:
        if self.shape is None:
            raise RobustgenError(f"{type(self).__name__} is not fitted: call fit(data) before score(x)")
        if tuple(x.shape[1:]) != self.shape or not x.is_floating_point():
            raise UsageError(
                f"this detector was fitted on floating-point inputs of shape {self.shape}, but {tuple(x.shape[1:])} "
                f"{x.dtype} came"
            )

    @final
    def standardised(self, x: Tensor) -> Tensor:
        """Inputs as `_fit` and `_score` see them."""
        return x if self.standardise is None else self.standardise(x)

    @final
    def restored(self, z: Tensor) -> Tensor:
        """The inputs that `standardised` makes into `z`."""
        return z if self.standardise is None else self.standardise.back(z)

    @property
    @final
    def config(self) -> dict[str, Any]:
        """The constructor's arguments, by name."""
        return {
            name: getattr(self, name) for name in inspect.signature(type(self).__init__).parameters if name != "self"
        }

    @final
    def restore(self: D, shape: tuple[int, ...], state: Mapping[str, Tensor]) -> D:
        """Take over the state of a fitted detector of the same configuration. Raises `ArtifactError` if it does not
        fit.
        """
        self._prepare(shape)
        try:
            for name, value in state.items():  # fitted arrays have the size that the fit gave them
                path, _, leaf = name.rpartition(".")
                owner = self.get_submodule(path)
                if leaf in owner._buffers:
                    setattr(owner, leaf, value.to(self._device))
            self.load_state_dict(dict(state))
        except (RuntimeError, AttributeError) as error:
            raise ArtifactError(
                f"the stored state does not fit a {type(self).__name__} ({str(error).splitlines()[0]}): fit it again"
            ) from error
        self.eval()
        for parameter in self.parameters():
            parameter.requires_grad_(False)
        return self

    def _prepare(self, shape: tuple[int, ...]) -> None:
        self.shape = shape
        wanted = len(shape) == 1 if self.scale == "auto" else self.scale == "standard"
        self.standardise = Standardise(shape).to(self._device) if wanted else None
        self._build(shape)

    def _build(self, shape: tuple[int, ...]) -> None:
        """Make the networks for inputs of `shape`, with fresh weights."""

    def _map(self, x: Tensor, condition: Tensor | None) -> Tensor | None:
        """What `explain` gives, where the score is made of parts that belong to values of the input."""
        return None

    def _counterpart(self, x: Tensor) -> Tensor:
        """A normal input for each of `x`, (n, *shape), from which its explanation starts."""
        return self._usual(x).expand_as(x)

    def _usual(self, x: Tensor) -> Tensor:
        return self.standardised(self.typical.to(x.dtype))

    @property
    def _device(self) -> torch.device:
        placed = self.get_buffer("_placed")
        return placed.device

    @abstractmethod
    def _fit(self, rows: Rows, progress: TrainingProgress | None) -> None: ...

    @abstractmethod
    def _score(self, x: Tensor, condition: Tensor | None) -> Tensor: ...


def _repeated(condition: Tensor | None, n: int) -> Tensor | None:
    return None if condition is None else condition.repeat(n // len(condition), *[1] * (condition.ndim - 1))
