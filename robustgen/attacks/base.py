"""The contract of an attack: checked inputs, an untouched model, a result whose every row is legal."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar, Literal, final, get_args

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from robustgen.attacks.passes import Passes, Precision, evaluated
from robustgen.errors import UsageError
from robustgen.objectives import Misclassify, Model, Objective
from robustgen.threat import Norm, ThreatModel

Mode = Literal["evaluate", "max-loss", "last"]
"""`evaluate`: a row stops at its first verified success, which is returned. `max-loss`: all steps, and the point of
highest loss is returned, a success before any failure. `last`: all steps, and the last point (for training).
"""

Progress = Callable[[float], None]
"""Called with the number of inputs just settled; an attack made of several counts each for its share."""


@dataclass
class Found:
    """What a method returns for n rows: see `AttackResult`, which adds the passes that it cost."""

    x_adv: Tensor
    success: Tensor
    steps: Tensor
    first_success: Tensor
    restart: Tensor
    member: Tensor

    @classmethod
    def nothing(cls, x: Tensor) -> Found:
        """Where an attack begins: the clean inputs, nothing achieved."""
        zero = torch.zeros(len(x), dtype=torch.int64, device=x.device)
        return cls(x.clone(), zero.bool(), zero.clone(), zero - 1, zero.clone(), zero.clone())

    def put(self, row: Tensor, other: Found) -> None:
        """Take the rows of `other` over into the places `row`."""
        for name, value in vars(other).items():
            getattr(self, name)[row] = value

    def __getitem__(self, row: Tensor) -> Found:
        return Found(*(value[row] for value in vars(self).values()))


@dataclass(frozen=True)
class AttackResult:
    """What an attack found, row by row in the order of the inputs."""

    x_adv: Float[Tensor, "n *shape"]
    """Always legal; where the attack failed, its best attempt (never silently the clean input)."""
    success: Bool[Tensor, " n"]
    """The objective was achieved at `x_adv`, as seen by a forward pass at that very point."""
    steps: Int64[Tensor, " n"]
    """Steps (queries, for attacks without gradients) taken to the returned point, within its restart."""
    first_success: Int64[Tensor, " n"]
    """Steps taken on the row, all restarts together, when it was first fooled; -1 where it never was."""
    restart: Int64[Tensor, " n"]
    """The restart (or target, for attacks that try several) that found the returned point."""
    member: Int64[Tensor, " n"]
    """Which of the attack's `members` found the returned point; 0 for an attack that is not made of others."""
    forward: Int64[Tensor, " n"]
    """Forward passes spent on the row; `backward` likewise."""
    backward: Int64[Tensor, " n"]
    zero_gradient: Bool[Tensor, " n"]
    """The first gradient of the row was exactly zero everywhere: the model gives the attack nothing to go by."""


@dataclass(frozen=True, kw_only=True)
class Attack(ABC):
    """An attack is its configuration; calling it changes nothing but its result. Subclasses write `_run` alone.

    `threat`: what is allowed. `objective`: what is wanted; `y` in a call is then the true label, or the target label
    for a targeted objective. `seed`: of all random choices, which belong to samples, not to places in a batch.
    `batch_size`: how many rows go through the model at once, None = what suits the device; halved when memory runs
    out; the result does not depend on it. `eot`: draws of a randomised model that every pass averages. `precision`:
    "bfloat16" searches in that, verifies every success in the model's own precision and attacks what is left once more
    in that, so that robust accuracy can only be lower or equal; "mixed" takes gradients in bfloat16, where the device
    has it, and every verdict in the model's own precision, and attacks nothing twice (it is the stacks of layers,
    `nn.Sequential`, of a model and of a detector that become faster). `compile`: run the model through `torch.compile`,
    which pays for long attacks.
    """

    norms: ClassVar[tuple[Norm, ...]] = ("linf", "l2", "l1")
    channels_last: ClassVar[bool] = True
    """Whether the attack takes many passes, so that the faster memory order pays."""
    minimal: ClassVar[bool] = False
    """Whether it looks for the smallest change that succeeds (which counts as success where it is within eps), so that
    one run gives the whole curve of robust accuracy against eps.
    """
    targetable: ClassVar[bool] = True
    bounded: ClassVar[tuple[Norm, ...]] = ()
    """The norms in which it needs walls: a box that is not infinite."""
    whole: ClassVar[bool] = False
    """Whether a row's result depends by nature on the rows it is run with (one perturbation for all of them)."""
    whole_box: ClassVar[bool] = False
    """Whether it makes sense only where `eps` covers the whole box."""

    threat: ThreatModel
    objective: Objective = field(default_factory=Misclassify)
    seed: int = 0
    batch_size: int | None = None
    eot: int = 1
    precision: Precision = "float32"
    compile: bool = False

    def __post_init__(self) -> None:
        if self.batch_size is not None and self.batch_size < 1:
            raise UsageError(f"batch_size must be at least 1, but {self.batch_size} came")
        if self.eot < 1:
            raise UsageError(f"eot, the number of draws to average, must be at least 1, but {self.eot} came")
        if self.precision not in get_args(Precision):
            raise UsageError(f"precision is one of {', '.join(get_args(Precision))}, but {self.precision!r} came")
        if self.precision == "mixed" and self.compile:
            raise UsageError("mixed precision changes from pass to pass, which a compiled model cannot: leave one out")
        if self.precision == "bfloat16" and self.minimal:
            raise UsageError(
                "an attack for the smallest change needs float32: in bfloat16 it would stop at a larger one"
            )
        if self.threat.norm not in self.norms:
            raise UsageError(
                f"{type(self).__name__} works in {', '.join(self.norms)}, but norm {self.threat.norm} was asked for"
            )
        if self.threat.norm in self.bounded and not math.isfinite(self.threat.high - self.threat.low):
            raise UsageError(
                f"{type(self).__name__} in {self.threat.norm} needs values with a lowest and a highest, and these "
                "inputs have none (a table's columns): use pgd, apgd-t, square or deepfool"
            )
        if getattr(self.objective, "targeted", False) and not self.targetable:
            raise UsageError(f"{type(self).__name__} has no targeted form: use pgd, apgd-ce or apgd-dlr")

    @property
    def members(self) -> tuple[str, ...]:
        """The attacks that this one is made of, in the order in which they run."""
        return (type(self).__name__,)

    @final
    def rows_at_once(self, x: Float[Tensor, "n *shape"]) -> int:
        """`batch_size`, or what suits inputs like `x`: on a CPU what its cache holds, elsewhere what keeps it busy; up
        to half as many more, so that no small rest is left.
        """
        if self.batch_size is not None:
            return self.batch_size
        most, values = (256, torch.get_num_threads() * 100_000) if x.device.type == "cpu" else (1024, 1 << 25)
        size = max(16, min(most, values // max(1, math.prod(x.shape[1:]))))
        return max(16, math.ceil(len(x) / max(1, round(len(x) / size))))

    @final
    def __call__(self, model: Model, x: Float[Tensor, "n *shape"], y: Int64[Tensor, " n"]) -> Float[Tensor, "n *shape"]:
        """The adversarial inputs alone."""
        return self.run(model, x, y, verify=False).x_adv

    @final
    def run(
        self,
        model: Model,
        x: Float[Tensor, "n *shape"],
        y: Int64[Tensor, " n"],
        progress: Progress | None = None,
        verify: bool = True,
    ) -> AttackResult:
        """Attack all rows of `x` (n, *shape) in [low, high] with labels `y` (n,) int64, on the device where `x` is.

        Without `verify` a method may spare the pass that only tells whether it succeeded: `success` then means nothing.
        Raises `UsageError` when `x` and `y` do not fit each other, or `x` is not floating-point, finite and inside the
        box.
        """
        check_inputs(self.threat, x, y)
        x, progress = x.detach(), progress or (lambda _: None)
        with evaluated(model, self.channels_last):
            if self.precision != "bfloat16":
                passes = self._passes(model, x, self.precision)
                found = self.search(passes, x, y, progress, verify)
            else:
                found, passes = self._screened(model, x, y, progress)
        found.x_adv = found.x_adv.contiguous()
        return AttackResult(
            **vars(found), forward=passes.forward, backward=passes.backward, zero_gradient=passes.zero_gradient
        )

    @abstractmethod
    def _run(self, passes: Passes, x: Tensor, y: Tensor, progress: Progress, verify: bool) -> Found:
        """Attack valid inputs, with every pass through `passes`. Without `verify` only `x_adv` will be used: a method
        may spare passes that tell no more than success.
        """

    def _passes(self, model: Model, x: Tensor, precision: Precision) -> Passes:
        return Passes(
            model,
            self.objective,
            len(x),
            x.device,
            rows_at_once=self.rows_at_once(x),
            channels_last=self.channels_last,
            eot=self.eot,
            precision=precision,
            compiled=self.compile,
        )

    def _screened(self, model: Model, x: Tensor, y: Tensor, progress: Progress) -> tuple[Found, Passes]:
        """Search in bfloat16; what does not hold in full precision is attacked there again."""
        screen = self._passes(model, x, self.precision)
        found = self.search(screen, x, y, lambda _: None)
        passes = self._passes(model, x, "float32")
        rows = torch.arange(len(x), device=x.device)
        for part in rows.split(passes.rows_at_once):
            found.success[part] = passes.judge(part, found.x_adv[part], y[part]).achieved
        left = rows[~found.success]
        progress(len(x) - len(left))
        again = passes.part(left, self.objective)
        found.put(left, self.search(again, x[left], y[left], progress))
        passes.absorb(left, again)
        passes.absorb(rows, screen)
        passes.zero_gradient = torch.where(found.success, False, passes.zero_gradient)
        return found, passes

    @final
    def search(self, passes: Passes, x: Tensor, y: Tensor, progress: Progress, verify: bool = True) -> Found:
        """What `run` does once inputs are checked and the model is prepared; for attacks that are made of others.

        Of an attack for the smallest change, and of one that may have moved what is to stay still, what lies outside
        the ball is no success, and is drawn back into it.
        """
        found = self._run(passes, x, y, progress, verify)
        if self.minimal or self.threat.still is not None:
            outside = ~self.threat.allows(found.x_adv, x)
            found.success &= ~outside
            found.x_adv[outside] = self.threat.project(found.x_adv[outside], x[outside])
        return found


def check_inputs(threat: ThreatModel, x: Tensor, y: Tensor) -> None:
    """Raise `UsageError` unless `x` and `y` are what an attack works on."""
    if not x.is_floating_point():
        raise UsageError(
            f"an attack needs floating-point inputs in [{threat.low:g}, {threat.high:g}], but {x.dtype} came: divide "
            "uint8 images by 255"
        )
    if x.dim() < 2 or y.shape != x.shape[:1] or y.dtype != torch.int64:
        raise UsageError(
            f"an attack needs x of shape (n, ...) and int64 labels y of shape (n,), but x {tuple(x.shape)} and "
            f"y {tuple(y.shape)} {y.dtype} came"
        )
    if not len(x):
        return
    if not torch.isfinite(x).all():
        raise UsageError("the inputs hold NaN or infinite values: drop or fill those rows before an attack")
    lowest, highest = x.min().item(), x.max().item()
    if lowest < threat.low or highest > threat.high:
        raise UsageError(
            f"the inputs lie in [{lowest:g}, {highest:g}], outside the box [{threat.low:g}, {threat.high:g}]: scale "
            "them, or "
            f"let the model normalise inside, so that eps is in input units"
        )


def check_counts(**counts: int) -> None:
    """Raise `UsageError` unless each is a whole number from 1 up."""
    for name, count in counts.items():
        if not isinstance(count, int) or count < 1:
            raise UsageError(f"{name} must be a whole number from 1 up, but {count} came")
