"""Foreign inputs: other data, or made-up images, none of which belong to the data that a detector was fitted on."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import ClassVar, final

import torch
from torch import Tensor

from robustgen.bench.cell import ASIDE, Cell, Found, Work
from robustgen.bench.judged import fit, score, worth
from robustgen.bench.places import open_data
from robustgen.bench.prepared import Configured
from robustgen.errors import UsageError
from robustgen.metrics import Array

MADE = ("noise", "blank", "constant", "hflip", "vflip")
"""Kinds of foreign images that are made of numbers, or (turned) of the test images themselves."""


def made(kind: str, test: Tensor, n: int, seed: int) -> Tensor:
    """At most `n` images of a kind of `MADE`, each value one of 256 levels as in an image file. `test` in [0, 1]."""
    generator, shape = torch.Generator().manual_seed(seed), tuple(test.shape[1:])
    if kind == "noise":
        return torch.randint(256, (n, *shape), generator=generator).float() / 255
    if kind == "blank":
        return torch.zeros(1, *shape)
    if kind == "constant":
        levels = torch.randint(256, (n, *[1] * len(shape)), generator=generator).float() / 255
        return levels.expand(-1, *shape).clone()
    return test[:n].flip(-1 if kind == "hflip" else -2)


@final
@dataclass(frozen=True)
class OutOfDistribution(Cell):
    """AUROC of test images of `data` against `n` of each kind of `foreign`: names of data, or of `MADE`.

    `train`: how many training images, evenly spread; None = all.
    """

    kind: ClassVar[str] = "out-of-distribution"
    data: str
    detector: Configured
    foreign: tuple[str, ...] = MADE
    train: int | None = None
    n: int = 1000
    seed: int = field(default=0, metadata=ASIDE)  # the detector's options hold it

    @property
    def sources(self) -> tuple[str, ...]:
        return (self.data, *(name for name in self.foreign if name not in MADE))

    @property
    def title(self) -> str:
        return f"out-of-distribution {self.detector.detector}, seed {self.seed}"

    def run(self, work: Work) -> Found:
        source = work.source(self.data)
        if source.spec.kind != "image" or (source.spec.low, source.spec.high) != (0.0, 1.0):
            raise UsageError(f"{source.spec.name!r} is no set of images in [0, 1], which this protocol is for")
        x = source.read(source.spread("train", self.train)).x
        fitted = fit(self.detector, x, work.device, work.progress)
        test = source.read(source.spread("test", self.n)).x
        began = time.perf_counter()
        arrays: dict[str, Array] = {"normal": score(fitted.detector, test, work.device)}
        seconds = time.perf_counter() - began
        found, words = {}, {}
        for number, name in enumerate(self.foreign):
            if name in MADE:
                other = made(name, test, self.n, 0)
            else:
                opened = open_data(name, like=source.spec)
                other = opened.read(opened.spread("test", self.n)).x
            arrays[f"foreign_{number}"] = score(fitted.detector, other, work.device)
            words[f"foreign_{number}"] = name
            found[_short(name)] = worth(arrays["normal"], arrays[f"foreign_{number}"])
        metrics = {
            "foreign": found,
            "arrays": words,
            "fit_seconds": fitted.seconds,
            "fit_cpu_seconds": fitted.cpu_seconds,
            "ms_per_input": 1000 * seconds / len(test),
            "data_sha256": source.spec.sha256,
        }
        return Found(metrics, arrays)


def _short(name: str) -> str:
    """The last part of a path without its ending."""
    return name.rstrip("/").rpartition("/")[2].partition(".")[0]
