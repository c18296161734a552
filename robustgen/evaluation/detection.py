"""How well a detector tells anomalous inputs from normal ones, and its verdicts on inputs one by one."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import torch

from robustgen.artifacts import RESULTS, read_artifact, staged, to_json
from robustgen.data.source import Source, Split
from robustgen.detectors.calibrated import CalibratedDetector
from robustgen.errors import UsageError
from robustgen.guard.guard import Guard
from robustgen.metrics import Array, Estimate, auroc, rate_above, roc_points


@dataclass(frozen=True)
class Verdict:
    """One input: its name, its score (higher = more anomalous), its p-value among normal inputs, whether it is
    flagged, and where an explanation was asked for, that. A guard says too which class is predicted (`label`), what is
    the matter with the input (`verdict`), and -log p by channel.
    """

    input: str
    score: float
    p_value: float
    flagged: bool
    explanation: Mapping[str, Any] | None = None
    label: str | None = None
    verdict: str | None = None
    channels: Mapping[str, float] | None = None


Judge = CalibratedDetector | Guard


Explain = Callable[[torch.Tensor, list[Verdict]], list[Verdict]]
"""(inputs of a batch, verdicts on them) -> the same verdicts, some with an explanation"""


def detect(
    detector: Judge,
    source: Source,
    split: Split = "test",
    batch_size: int = 500,
    limit: int | None = None,
    update: bool = False,
    explain: Explain = lambda _, verdicts: verdicts,
) -> Iterator[Verdict]:
    """Judge every readable input of the split (the first `limit` only, if given), in order, a batch at a time.

    With `update` the detector takes in each batch after it was judged, so that what comes later is judged in its light.
    """
    for batch in source.batches(split, batch_size, limit=limit):
        names = [source.label(row) for row in batch.index.tolist()]
        explained = explain(batch.x, _verdicts(detector, batch.x, names))
        if update:
            assert isinstance(detector, CalibratedDetector)  # the caller has seen to it
            detector.update(batch.x)
        yield from explained


def _verdicts(detector: Judge, x: torch.Tensor, names: list[str]) -> list[Verdict]:
    if isinstance(detector, CalibratedDetector):
        judged = zip(names, *detector.judge(x), strict=True)
        return [Verdict(name, float(score), float(p), bool(flagged)) for name, score, p, flagged in judged]
    found = detector.judge(x)
    return [
        Verdict(
            name,
            float(found.score[row]),
            float(found.p_value[row]),
            bool(found.flagged[row]),
            label=detector.class_name(int(found.label[row])),
            verdict=found.verdict[row],
            channels={channel: float(values[row]) for channel, values in found.channels.items()},
        )
        for row, name in enumerate(names)
    ]


def write_back(detector: CalibratedDetector, path: Path, sha256: str) -> None:
    """Put an updated detector in the place of the artifact that it was read from, whose hash was `sha256`; files beside
    it stay. Raises `UsageError` if another run has changed it since.
    """
    with staged(path, force=True) as directory:
        if read_artifact(path, "detector").sha256 != sha256:
            raise UsageError(f"{path} was changed by another run since it was read: start again, one after the other")
        shutil.copytree(path, directory, dirs_exist_ok=True)
        detector.save(directory)
        results = directory / RESULTS
        known = json.loads(results.read_text(encoding="utf-8")) if results.is_file() else {}
        results.write_text(to_json(known | detector.summary()), encoding="utf-8")


def familiarity(detector: Judge, source: Source) -> list[str]:
    """A warning if the inputs to be judged include those that the detector was fitted on."""
    if source.spec.sha256 != detector.spec.sha256 or len(source.rows("test")) < len(source.rows("all")):
        return []
    return [
        f"{source.spec.name!r} is the data that the detector was fitted and calibrated on: most of these inputs score "
        "lower than new ones would, so fewer are flagged than the false-alarm rate says"
    ]


def write_verdicts(file: TextIO, verdicts: Iterable[Verdict], form: str) -> None:
    """Write verdicts row by row: `csv` with a header and without explanations, or `jsonl`, one JSON object a line.

    A guard's have two columns more, the class predicted and the verdict. In CSV a name that a spreadsheet would run as
    a formula is given a leading apostrophe.
    """
    if form == "jsonl":
        for verdict in verdicts:
            values = {key: value for key, value in asdict(verdict).items() if value is not None}
            file.write(json.dumps(values, ensure_ascii=False) + "\n")
        return
    writer, header = csv.writer(file), False
    for verdict in verdicts:
        guarded = () if verdict.verdict is None else ("label", "verdict")
        if not header:
            writer.writerow((*VERDICT_COLUMNS, *guarded))
            header = True
        writer.writerow([*verdict_cells(verdict), *(harmless(str(getattr(verdict, name))) for name in guarded)])
    if not header:
        writer.writerow(VERDICT_COLUMNS)


VERDICT_COLUMNS = ("input", "score", "p_value", "flagged")


def verdict_cells(verdict: Verdict) -> list[str | int]:
    """A verdict as cells of a CSV file under `VERDICT_COLUMNS`, safe to open in a spreadsheet."""
    return [harmless(verdict.input), repr(verdict.score), repr(verdict.p_value), int(verdict.flagged)]


def harmless(text: str) -> str:
    """`text` with a leading apostrophe if a spreadsheet would run it as a formula."""
    return f"'{text}" if text[:1] in "=+-@\t\r" else text


@dataclass(frozen=True)
class Separation:
    """One detector against one kind of anomalous input: rates at its own threshold, and over all thresholds."""

    false_alarms: Estimate
    detected: Estimate
    auroc: Estimate
    roc: tuple[Array, Array]


def separate(threshold: float, normal: Any, anomalous: Mapping[str, Any]) -> dict[str, Separation]:
    """For every kind of anomalous scores: how they stand against the `normal` test scores and the calibrated
    threshold.
    """
    alarms = rate_above(normal, threshold)
    return {
        kind: Separation(alarms, rate_above(scores, threshold), auroc(normal, scores), roc_points(normal, scores))
        for kind, scores in anomalous.items()
    }


def scores_of(detector: CalibratedDetector, x: torch.Tensor, batch_size: int = 500) -> Array:
    """Scores of a tensor of inputs (n, *shape), as float64."""
    return np.concatenate([detector.judge(part).score for part in x.split(batch_size)])
