"""Guards as programs for other run-times: torch.export and ONNX, checked against the guard itself."""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from robustgen.errors import MissingPackageError, RobustgenError, UsageError
from robustgen.guard.guard import Guard
from robustgen.guard.said import GuardOutput

FORMS = (".pt2", ".onnx")
_TOLERANCE = 1e-3
"""Of logits and scores, relative to their size: other run-times add up in another order."""
_STEEP = 1e-2
"""The same where the guard's own rounding is larger than that: p-values are steep where normal scores lie close."""

_TRACED = 11
"""Inputs that the program is made with: a number that is no other size in it, as 1 and 2 are."""


@dataclass(frozen=True)
class Parity:
    """How an exported program compares with the guard on `n` inputs: the largest difference of logits and of scores,
    relative to 1 + their size, and on how many inputs the decision differs. `rounding`: by how much the guard's own
    score differs from what it is in double precision.
    """

    n: int
    logits: float
    score: float
    decisions: int
    rounding: float = 0.0

    @property
    def holds(self) -> bool:
        """No decision differs, and numbers only by rounding."""
        allowed = min(_STEEP, max(_TOLERANCE, 4 * self.rounding))
        return self.decisions == 0 and self.logits <= _TOLERANCE and self.score <= allowed


def export(guard: Guard, path: Path, x: Float[Tensor, "n *shape"]) -> Parity:
    """Write the guard as a program to `path`, .pt2 (torch.export) or .onnx, and compare it with the guard on `x`, two
    inputs at least. It takes inputs (n, *shape) in the data's range and gives logits, scores and which inputs are
    accepted, for any n; in ONNX they are named x, logits, score and accepted.

    Raises `UsageError` for another ending, members that cannot be written as a program or too few inputs,
    `MissingPackageError` without the packages of ONNX, `RobustgenError` if the program does not do what the guard does.
    """
    if path.suffix not in FORMS:
        raise UsageError(f"{path} does not end in {' or '.join(FORMS)}: choose such a name")
    if len(x) < 2:
        raise UsageError(f"two inputs at least are needed to compare the program with the guard, but {len(x)} came")
    if path.suffix == ".onnx":
        _require_onnx()
    x = x.to(guard.device)
    program = _exported(guard, x)
    if path.suffix == ".pt2":
        with _quiet():
            torch.export.save(program, path)
            run: Callable[[Tensor], Any] = torch.export.load(path).module()  # what was written, not what is known here
    else:
        run = _onnx(program, path)
    with torch.no_grad():
        own = guard(x)
        parity = replace(compare(own, GuardOutput(*run(x))), rounding=_rounding(guard, x, own))
    if not parity.holds:
        path.unlink(missing_ok=True)
        raise RobustgenError(
            f"the exported program does not do what the guard does: on {parity.n} inputs logits differ by up to "
            f"{parity.logits:.2g}, scores by {parity.score:.2g}, {parity.decisions} decisions; nothing was kept"
        )
    return parity


def compare(own: GuardOutput, other: GuardOutput) -> Parity:
    """The guard's output and a program's on the same inputs."""

    def difference(a: Tensor, b: Tensor) -> float:
        return float(((a.double() - b.double()).abs() / (1 + a.double().abs())).amax())

    different = own.accepted != other.accepted.to(own.accepted.device)
    return Parity(
        len(own.score),
        difference(own.logits, other.logits.to(own.logits.device)),
        difference(own.score, other.score.to(own.score.device)),
        int(different.sum()),
    )


def _rounding(guard: Guard, x: Tensor, own: GuardOutput) -> float:
    """By how much scores differ from those in double precision; 0 where there is none."""
    try:
        exact = copy.deepcopy(guard).double()(x.double())
    except (RuntimeError, TypeError):  # a device without it, or a member that insists on single precision
        return 0.0
    return compare(own, exact).score


@final
class _Program(nn.Module):
    """A guard that gives a plain tuple, which other run-times know."""

    def __init__(self, guard: Guard) -> None:
        super().__init__()
        self.guard = guard

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        logits, score, accepted = self.guard(x)
        return logits, score, accepted


def _exported(guard: Guard, x: Tensor) -> Any:
    try:
        with _quiet():
            dynamic = ({0: torch.export.Dim("n", min=1)},)
            few = x[torch.arange(_TRACED, device=x.device) % len(x)]
            return torch.export.export(_Program(guard).eval(), (few,), dynamic_shapes=dynamic)
    except Exception as error:  # anything at all can come out of tracing
        without = [m.name for m in guard.members if not m.detector.differentiable]
        hint = f"; {', '.join(without)} cannot be written as one" if without else ""
        raise UsageError(
            f"{guard.name} cannot be written as a program ({type(error).__name__}: {str(error).splitlines()[0]}){hint}"
        ) from error


def _onnx(program: Any, path: Path) -> Callable[[Tensor], Any]:
    import onnxruntime

    with _quiet():
        try:
            # its optimiser takes x + 1e-8 for x, which under a square root it is not
            made = torch.onnx.export(
                program,
                dynamo=True,
                verbose=False,
                optimize=False,
                input_names=["x"],
                output_names=list(GuardOutput._fields),
            )
        except Exception as error:  # of the exporter, which names its own stages
            reason = str(error.__cause__ or error).strip().splitlines()[0]
            raise UsageError(f"ONNX has no word for something in this guard ({reason}): export to .pt2") from error
        assert made is not None
        made.save(path)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors: its warnings are of its own matters, and coloured
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = list(GuardOutput._fields)
    return lambda x: [torch.from_numpy(part) for part in session.run(names, {"x": x.cpu().numpy()})]


def _require_onnx() -> None:
    try:
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise MissingPackageError(
            "ONNX needs the packages onnx, onnxscript and onnxruntime: pip install 'robustgen[onnx]', or export to .pt2"
        ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Torch and the exporter warn and log of their own matters."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)
