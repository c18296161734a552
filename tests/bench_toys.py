"""Cells that cost nothing, and metrics of guards written by hand: for tests of the bench. Processes import this too."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, final

import numpy as np
import torch

from robustgen.artifacts import read_artifact, write_artifact
from robustgen.bench.cell import Cell, Found, Work
from robustgen.errors import RobustgenError


def note(log: str, text: str) -> None:
    """Add a line to a file, whole even if several processes do."""
    with Path(log).open("a", encoding="utf-8") as file:
        file.write(f"{text}\n")


@final
@dataclass(frozen=True)
class Base(Cell):
    """Something that others need: leaves a file."""

    kind: ClassVar[str] = "base"
    log: str
    seed: int = 0

    @property
    def title(self) -> str:
        return f"base {self.seed}"

    def run(self, work: Work) -> Found:
        note(self.log, f"base {self.seed}")
        (work.directory / "number").write_text(str(10 * self.seed), encoding="utf-8")
        return Found({"made": True})


@final
@dataclass(frozen=True)
class Toy(Cell):
    """Records that it ran; `wait` seconds; `fault`: what goes wrong."""

    kind: ClassVar[str] = "toy"
    log: str
    base: Base
    detector: str = "a"
    wait: float = 0.0
    fault: str = ""
    seed: int = 0

    @property
    def title(self) -> str:
        return f"toy {self.detector} {self.seed}"

    def run(self, work: Work) -> Found:
        note(self.log, f"begin {self.detector} {self.seed} {os.getpid()}")
        number = int((work.place(self.base) / "number").read_text(encoding="utf-8"))
        time.sleep(self.wait)
        if self.fault == "error" and not Path(f"{self.log}.mended").exists():
            raise RobustgenError("a planted fault")
        if self.fault == "death":
            os._exit(9)
        work.progress(1.0)
        note(self.log, f"end {self.detector} {self.seed}")
        values = np.random.default_rng([self.seed, len(self.detector)]).normal(size=5)
        return Found({"value": number + float(values.sum())}, {"values": values})


@final
@dataclass(frozen=True)
class Keeper(Cell):
    """Something that others need: leaves an artifact."""

    kind: ClassVar[str] = "keeper"

    @property
    def title(self) -> str:
        return "a keeper"

    def run(self, work: Work) -> Found:
        write_artifact(work.directory, "number", {}, {"number": torch.tensor(7)})
        return Found({})


@final
@dataclass(frozen=True)
class Reader(Cell):
    """Reads it."""

    kind: ClassVar[str] = "reader"
    kept: Keeper

    @property
    def title(self) -> str:
        return "its reader"

    def run(self, work: Work) -> Found:
        return Found({"number": int(read_artifact(work.place(self.kept)).tensors["number"])})


def estimate(value: float, n: int = 500, width: float = 0.02) -> dict[str, Any]:
    """An `Estimate` as JSON."""
    return {"value": value, "low": max(0.0, value - width), "high": min(1.0, value + width), "n": n}


def metrics(
    detector: str, victim: str, seed: int, skill: float, adaptive: bool = True, masked: bool = False
) -> dict[str, Any]:
    """What an adversarial cell stores. `skill`, in [0, 1]: how well the detector does."""
    shift = 0.01 * seed
    sizes = (0.05, 0.1, 0.2)
    rows = [
        {
            "threat": "Z",
            "attack": attack,
            "norm": "linf",
            "eps": eps,
            "n": 1000,
            "fooled": estimate(0.9 if eps > 0.05 else 0.2),
            "success": estimate(0.5 * (1 - skill) + shift),
            "auroc": estimate(0.6 + 0.35 * skill - shift),
            "auroc_right_only": estimate(0.6 + 0.36 * skill),
            "tpr": {"0.001": estimate(0.2 * skill), "0.01": estimate(0.5 * skill), "0.05": estimate(0.9 * skill)},
            "fpr_at_95_tpr": 0.4,
            "average_precision": 0.8,
            "precision": {"0.5": 0.93, "0.1": 0.61, "0.01": 0.12, "0.001": 0.014},
            "failed_flagged": None,
            "seconds": 2.0,
        }
        for attack in ("fgsm", "pgd")
        for eps in sizes
    ]
    if adaptive:
        rows += [
            {
                "threat": threat,
                "attack": attack,
                "norm": "linf",
                "eps": 0.1,
                "n": 500,
                "fooled": estimate(1.0),
                "success": estimate(1 - 0.6 * skill),
                "auroc": None,
                "auroc_right_only": None,
                "tpr": None,
                "precision": None,
                "failed_flagged": None,
                "seconds": 20.0,
            }
            for threat, attack in (("T", "surrogate"), ("W", "adaptive-standard"), ("Q", "square"))
        ]
    systems = []
    for eps in sizes:
        lost = min(1.0, (1 - 0.7 * skill) * (0.6 + 2 * eps) + shift) if adaptive else None
        blind = 0.4 * (1 - skill)
        worst = max(blind, lost or 0.0)
        systems.append(
            {
                "norm": "linf",
                "eps": eps,
                "n": 500,
                "robust_accuracy": estimate(1 - worst),
                "fc": estimate(0.95 * (1 - worst)),
                "success_oblivious": estimate(blind),
                "success_adaptive": None if lost is None else estimate(lost),
                "success_worst": estimate(worst),
                "rejected_small": {"eps/8": estimate(0.06), "eps/4": estimate(0.09), "eps/2": estimate(0.2)},
                "tramer": {"bound": None, "of": None, "passed": None, "classifier": None},
                "attacks": ["Z fgsm", "Z pgd", "W adaptive-standard"],
            }
        )
    known = ("certified_robust_accuracy", "certified_useful", "by_classifier", "by_detector")
    certified: dict[str, Any] = {"norm": "linf", "eps": 0.1, "method": "interval", "n": 1000, "why": None}
    if detector == "gat":
        certified |= dict.fromkeys(known, estimate(0.5 * skill + shift))
    else:
        certified |= dict.fromkeys(known) | {"why": f"no bounds are known of the scores of {detector}"}
    checks = [
        {
            "name": name,
            "passed": not (masked and name == "gradients"),
            "found": "3 of 100 gradients are zero.",
            "means": f"If {name} fails, attackers were held up by the computation, not by the detector.",
        }
        for name in ("monotone", "whole box", "gradients")
    ]
    return {
        "detector": detector,
        "victim": victim,
        "seed": seed,
        "fpr": 0.05,
        "clean": {
            "n": 1000,
            "accuracy": estimate(0.91 if victim == "plain" else 0.83),
            "useful": estimate(0.87 if victim == "plain" else 0.8),
            "false_alarms": estimate(0.05),
            "false_rejects_right": estimate(0.04),
            "false_rejects_wrong": estimate(0.2),
            "ms_per_input": 1.5,
            "fit_seconds": 12.0,
            "n_calibration": 6000,
            "threshold": 1.25,
        },
        "rows": rows,
        "noise": [
            {"kind": "sign", "eps": 0.05, "kept": 900, "flagged": estimate(0.8 * (1 - skill))},
            {"kind": "blur", "eps": 1, "kept": 950, "flagged": estimate(0.1)},
        ],
        "systems": systems,
        "checks": checks,
        "certified": certified,
        "sentence": f"{detector} accepts a share of adaptive inputs.",
    }
