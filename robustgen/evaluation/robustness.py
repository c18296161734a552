"""How easily is a model fooled: one attack over a whole data set, with intervals, per-sample results, and resume."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
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
from robustgen.evaluation.blocks import read_block, write_block
from robustgen.evaluation.checks import check_model
from robustgen.metrics import Estimate, proportion
from robustgen.runtime import describe, fitting_threads, versions
from robustgen.threat import ThreatModel

_BLOCK_VALUES = 2**26  # input values held at a time (256 MiB as float32), and lost at most when a run is killed

Target = Callable[[Tensor, Tensor], Tensor]
"""(labels (n,), clean logits (n, classes)) -> the class that a targeted attack aims at, per input."""


@dataclass(frozen=True)
class Robustness:
    """What an attack did to a model: `summary` is plain values for JSON, `samples` one array per property, row by row.

    `samples`: index, y, clean_prediction, prediction, success, steps, forward, backward, norm_linf, norm_l2, norm_l1,
    and target for a targeted attack. Inputs that the model gets wrong by itself are not attacked: they count as not
    robust.
    """

    summary: dict[str, Any]
    samples: dict[str, npt.NDArray[Any]]
    clean_accuracy: Estimate
    robust_accuracy: Estimate
    success_rate: Estimate | None


def configuration(attack: Attack) -> dict[str, Any]:
    """An attack's fields as plain values, for JSON."""

    def plain(value: Any) -> Any:
        if is_dataclass(value) and not isinstance(value, type):
            return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
        return getattr(value, "__name__", value) if callable(value) else value

    result: dict[str, Any] = plain(attack)
    return result


def fingerprint(**parts: Any) -> str:
    """One hash of everything a run depends on: a killed run is resumed only by the same run."""
    return hashlib.sha256(to_json(parts).encode()).hexdigest()


def evaluate_attack(
    name: str,
    attack: Attack,
    model: Callable[[Tensor], Tensor],
    source: Source,
    *,
    split: Split = "test",
    limit: int | None = None,
    target: Target | None = None,
    device: torch.device | None = None,
    directory: Path | None = None,
    progress: Progress | None = None,
) -> Robustness:
    """Attack every input of the split that `model` classifies correctly.

    `limit`: at most so many inputs, evenly spread over the split. `target`: chooses the targets where the attack's
    objective is targeted. `directory`: block by block, results and adversarial inputs go there, and blocks found there
    are not computed again; without it nothing is written and the adversarial inputs are dropped. `progress` is called
    with the number of inputs done. Raises `UsageError` if model, data and attack do not fit.
    """
    device = device or torch.device("cpu")
    if isinstance(model, torch.nn.Module):
        model.to(device)
    began = time.perf_counter()
    rows = source.spread(split, limit)
    first = source.read(rows[:64])
    if first.y is None or not len(first):
        raise DataError(
            f"{source.spec.name!r} has no {'labels' if len(first) else 'readable inputs'}: an attack needs labelled "
            "inputs"
        )
    warnings = check_model(
        model, attack.threat, first.x.to(device), first.y.to(device), len(source.spec.classes) or None
    )

    size = max(1, min(4096, _BLOCK_VALUES // max(1, first.x[0].numel())))
    earlier = 0.0
    blocks = []
    for number, start in enumerate(range(0, len(rows), size)):
        path = None if directory is None else directory / f"block-{number:05d}.npz"
        if path is not None and path.is_file():
            done = read_block(path)
            earlier += float(done.pop("seconds"))
            if progress is not None:
                progress(len(done["index"]))
        else:
            block_began = time.perf_counter()
            with fitting_threads(device, first.x[0].numel()):
                done = _attack_block(attack, model, source, rows[start : start + size], target, device, progress)
            if path is not None:
                stored = done | {"seconds": np.asarray(time.perf_counter() - block_began)}
                write_atomically(path, partial(write_block, arrays=stored))
            done.pop("x_adv")
        blocks.append(done)
    samples = {key: np.concatenate([block[key] for block in blocks]) for key in blocks[0]}
    seconds = time.perf_counter() - began + earlier
    return _summarise(name, attack, source, split, samples, warnings, seconds, device)


def _attack_block(
    attack: Attack,
    model: Callable[[Tensor], Tensor],
    source: Source,
    rows: npt.NDArray[np.int64],
    target: Target | None,
    device: torch.device,
    progress: Progress | None,
) -> dict[str, npt.NDArray[Any]]:
    batch = source.read(rows).to(device)
    if batch.y is None:
        raise DataError(f"{source.spec.name!r} has no labels: an attack needs labelled inputs")
    x, y = batch.x, batch.y
    logits = predict(model, x, attack.rows_at_once(x))
    clean = logits.argmax(1)
    aim = y if target is None else target(y, logits)
    attacked = (clean == y) & ((aim != y) if target is not None else torch.ones_like(y, dtype=torch.bool))
    if progress is not None:
        progress(int((~attacked).sum()))
    result = attack.run(model, x[attacked], aim[attacked], progress, verify=False)
    x_adv, prediction = x.clone(), clean.clone()
    x_adv[attacked] = result.x_adv
    prediction[attacked] = predict(model, result.x_adv, attack.rows_at_once(x)).argmax(
        1
    )  # the verdict is on what will be saved
    counts = torch.zeros(3, len(x), dtype=torch.int64, device=device)
    counts[:, attacked] = torch.stack([result.steps, result.forward, result.backward])
    won = (prediction == aim) if target is not None else (prediction != y)
    found = {
        "index": batch.index,
        "y": y,
        "clean_prediction": clean,
        "prediction": prediction,
        "attacked": attacked,
        "success": attacked & won,
        "steps": counts[0],
        "forward": counts[1] + 1 + attacked.long(),
        "backward": counts[2],
        "zero_gradient": torch.zeros_like(attacked).masked_scatter(attacked, result.zero_gradient),
        "x_adv": x_adv,
        **{
            f"norm_{norm}": ThreatModel(norm, 0.0, attack.threat.low, attack.threat.high).distance(x_adv, x)
            for norm in ("linf", "l2", "l1")
        },
        **({"target": aim} if target is not None else {}),
    }
    return {key: value.cpu().numpy() for key, value in found.items()}


def predict(model: Callable[[Tensor], Tensor], x: Tensor, batch_size: int) -> Tensor:
    """Logits of all rows, a batch at a time, without gradients."""
    with torch.no_grad():
        parts = [model(part) for part in x.split(batch_size)]
    return torch.cat(parts) if len(x) else torch.zeros(0, 1, device=x.device)


def _summarise(
    name: str,
    attack: Attack,
    source: Source,
    split: Split,
    samples: dict[str, npt.NDArray[Any]],
    warnings: list[str],
    seconds: float,
    device: torch.device,
) -> Robustness:
    n, attacked, success = len(samples["y"]), samples["attacked"], samples["success"]
    correct = samples["clean_prediction"] == samples["y"]
    clean = proportion(int(correct.sum()), n)
    robust = proportion(int((correct & ~success).sum()), n)
    rate = proportion(int(success.sum()), int(attacked.sum())) if attacked.any() else None
    classes = len(source.spec.classes)
    warnings = list(warnings)
    if classes and clean.high < min(2 / classes, 0.25 + 0.75 / classes):
        warnings.append(
            f"clean accuracy is {clean.value:.1%}, near chance for {classes} classes: is the right data given, and "
            "does the model expect "
            f"normalised inputs (--mean, --std)?"
        )
    flat = float(samples["zero_gradient"][attacked].mean()) if attacked.any() else 0.0
    if flat > 0.01 and not any("zero gradients" in text for text in warnings):
        warnings.append(
            f"zero gradients: for {flat:.1%} of the attacked inputs the loss had no gradient at the start, so the "
            "attack "
            "could not move; robust accuracy may be overstated: try --loss margin"
        )
    if rate is None:
        warnings.append(
            "no input was attacked: the model classifies none of them correctly (or all have the target class already)"
        )
    norms = {}
    for norm in ("linf", "l2", "l1"):
        sizes = samples[f"norm_{norm}"][success]
        norms[norm] = {"median": float(np.median(sizes)), "max": float(sizes.max())} if len(sizes) else None
    summary = {
        "attack": name,
        "norm": attack.threat.norm,
        "eps": attack.threat.eps,
        "n": n,
        "clean_accuracy": clean.value,
        "clean_accuracy_interval": [clean.low, clean.high],
        "robust_accuracy": robust.value,
        "robust_accuracy_interval": [robust.low, robust.high],
        "success_rate": None if rate is None else rate.value,
        "success_rate_interval": None if rate is None else [rate.low, rate.high],
        "n_attacked": int(attacked.sum()),
        "norms": norms,
        "seconds": seconds,
        "forward_passes": int(samples["forward"].sum()),
        "backward_passes": int(samples["backward"].sum()),
        "warnings": warnings,
        "configuration": configuration(attack),
        "data": source.spec.name,
        "data_sha256": source.spec.sha256,
        "split": split,
        "skipped": dict(source.skipped),
        "seed": attack.seed,
        "device": describe(device),
        "versions": versions(),
    }
    return Robustness(summary, samples, clean, robust, rate)


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
