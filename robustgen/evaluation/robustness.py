"""How easily is a model fooled: one attack over a whole data set, with intervals, per-sample results, and resume."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from robustgen.artifacts import to_json, write_atomically
from robustgen.attacks.base import Attack, Progress
from robustgen.data.source import Source, Split
from robustgen.errors import DataError, UsageError
from robustgen.evaluation import diagnosis
from robustgen.evaluation.attacked import Plan, Target, attack_rows
from robustgen.evaluation.blocks import read_block, write_block
from robustgen.evaluation.checks import Finding, check_model
from robustgen.evaluation.curve import curve, in_one_run, sizes
from robustgen.evaluation.quantise import check_box
from robustgen.evaluation.summary import effort, full_steps, rates, summarise
from robustgen.metrics import Estimate
from robustgen.objectives import Model
from robustgen.runtime import describe, fitting_threads, versions

_BLOCK_VALUES = 2**26  # input values held at a time (256 MiB as float32)
_BLOCK_VALUES_CPU = 2**20  # on a CPU, which is slow: a block is what is lost when a run is killed
_LEAST, _MOST = 256, 4096  # inputs of a block


@dataclass(frozen=True)
class Robustness:
    """What an attack did to a model: `summary` is plain values for JSON, `samples` one array per property, row by row.

    `samples`: `index` in the source, `y`, `clean_prediction`, `attacked`; at the adversarial input `prediction`,
    `success`, `margin` (best other logit minus the label's: positive where the label is not predicted) and the change's
    `norm_linf`, `norm_l2`, `norm_l1`, `norm_l0`; `steps`, `restart` and `member` (place in `summary["members"]`) of the
    attack that found it, and `first_success`, the steps taken when the input was first fooled; `eps`, the smallest of
    the run's sizes at which it was fooled, for attacks for the smallest change the size of that change; `forward` and
    `backward` passes; `zero_gradient`; `target` for a targeted attack; `success_unrounded` where adversarial inputs are
    rounded. Inputs that the model gets wrong by itself are not attacked: they count as not robust. -1 stands for never:
    in `first_success` and `eps` of inputs that held, in `restart` and `member` of inputs that were not attacked.
    """

    summary: dict[str, Any]
    samples: dict[str, npt.NDArray[Any]]
    clean_accuracy: Estimate
    robust_accuracy: Estimate
    success_rate: Estimate | None


def fingerprint(**parts: Any) -> str:
    """One hash of everything a run depends on: a killed run is resumed only by the same run."""
    return hashlib.sha256(to_json(parts).encode()).hexdigest()


def evaluate_attack(
    name: str,
    attack: Attack,
    model: Model,
    source: Source,
    *,
    eps: Sequence[float] | None = None,
    split: Split = "test",
    limit: int | None = None,
    target: Target | None = None,
    rounded: bool = False,
    diagnose: bool = True,
    device: torch.device | None = None,
    directory: Path | None = None,
    progress: Progress | None = None,
) -> Robustness:
    """Attack every input of the split that `model` classifies correctly.

    `eps`: sizes of change to give robust accuracy for, the attack's own the largest of them; inputs fooled at one size
    count as fooled at all larger ones and are not attacked again, and an attack for the smallest change runs once.
    `limit`: at most so many inputs, evenly spread over the split. `target`: chooses the targets where the attack's
    objective is targeted. `rounded`: adversarial inputs are rounded to 256 levels and judged after that. `diagnose`:
    attack a few inputs once more to see whether the result can be believed (see `examined`). `directory`: block by
    block, results and adversarial inputs go there, and blocks found there are not computed again; without it nothing is
    written and the adversarial inputs are dropped. `progress` is called with the number of inputs done. Raises
    `UsageError` if model, data and attack do not fit.
    """
    device = device or torch.device("cpu")
    if isinstance(model, torch.nn.Module):
        model.to(device)
    if rounded:
        check_box(attack.threat)
    plan = Plan(attack, sizes(attack, eps), target, rounded)
    began = time.perf_counter()
    rows = source.spread(split, limit)
    first = source.read(rows[:64]).to(device)
    if first.y is None or not len(first):
        raise DataError(
            f"{source.spec.name!r} has no {'labels' if len(first) else 'readable inputs'}: an attack needs labelled "
            "inputs"
        )
    classes = len(source.spec.classes)
    checked = check_model(model, attack.threat, first.x, first.y, classes or None, attack.eot)
    values = first.x[0].numel()
    size = len(rows) if attack.whole else _block_size(values, device)
    blocks, earlier = [], 0.0
    for number, start in enumerate(range(0, len(rows), size)):
        path = None if directory is None else directory / f"block-{number:05d}.npz"
        if path is not None and path.is_file():
            done = read_block(path)
            earlier += float(done.pop("seconds"))
            if progress is not None:
                progress(len(done["index"]))
        else:
            block_began = time.perf_counter()
            with fitting_threads(device, values):
                done = attack_rows(plan, model, source, rows[start : start + size], device, progress)
            if path is not None:
                stored = done | {"seconds": np.asarray(time.perf_counter() - block_began)}
                write_atomically(path, partial(write_block, arrays=stored))
            done.pop("x_adv")
        blocks.append(done)
    samples = {key: np.concatenate([block[key] for block in blocks]) for key in blocks[0]}
    seconds = time.perf_counter() - began + earlier

    steps = full_steps(attack, classes)
    summary = {
        "attack": name,
        **summarise(attack, source, samples),
        **effort(samples, steps, [stage.threat.eps for stage in plan.stages()]),
        **({"ceiling": None} if in_one_run(attack) else {}),  # it goes on after the first success
        "curve": curve(attack, samples, plan.grid),
        "split": split,
        "seconds": seconds,
        "device": describe(device),
        "versions": versions(),
        "diagnosis": [],
    }
    summary["warnings"] = checked.warnings + summary["warnings"]
    found = _with(
        Robustness(summary, samples, *rates(samples)),
        [checked.steady, *diagnosis.from_samples(samples)],
    )
    return examined(found, attack, model, source, device=device) if diagnose else found


def _block_size(values: int, device: torch.device) -> int:
    """Inputs of a block, from what one holds and the device alone, so that a resumed run cuts the same blocks."""
    held = _MOST if device.type != "cpu" else max(_LEAST, min(_MOST, _BLOCK_VALUES_CPU // max(1, values)))
    return max(1, min(held, _BLOCK_VALUES // max(1, values)))


def examined(
    found: Robustness,
    attack: Attack,
    model: Model,
    source: Source,
    *,
    device: torch.device | None = None,
    told: diagnosis.Told = lambda name, share: None,
) -> Robustness:
    """`found` with the checks that attack a few of its inputs once more; `told` which of them begins."""
    steady = all(check["holds"] for check in found.summary["diagnosis"] if check["name"] == "steady-outputs")
    device = device or torch.device("cpu")
    steps = found.summary["steps"]
    return _with(found, diagnosis.from_probe(found.samples, attack, model, source, device, steps, steady, told))


def _with(found: Robustness, findings: list[Finding]) -> Robustness:
    """More findings, and a warning for each that does not hold."""
    summary = found.summary | {
        "diagnosis": found.summary["diagnosis"] + [asdict(finding) for finding in findings],
        "warnings": found.summary["warnings"] + [finding.warning for finding in findings if not finding.holds],
    }
    return replace(found, summary=summary)


def choose_target(how: str) -> Target:
    """`next` (the following class), `least-likely` (lowest clean logit), or a class number as text. Raises
    `UsageError` otherwise.
    """
    if how == "next":
        return lambda y, logits: (y + 1) % logits.shape[1]
    if how == "least-likely":
        return lambda y, logits: logits.argmin(1)
    if not how.isdigit():
        raise UsageError(f"a target is next, least-likely or a class number, but {how!r} came")

    def fixed(y: Tensor, logits: Tensor) -> Tensor:
        if int(how) >= logits.shape[1]:
            raise UsageError(f"target class {how} was asked for, but the model has classes 0 to {logits.shape[1] - 1}")
        return torch.full_like(y, int(how))

    return fixed
