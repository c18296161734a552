"""What measurements of detectors behind one classifier share: their options, and the inputs that it has right."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path

from torch import nn

from robustgen.data.source import Source
from robustgen_benchmarks.victims import Inputs, first, predictions


def options(description: str | None, n: int, needed: bool = True) -> argparse.ArgumentParser:
    """--data, --victim, --detector (there must be one if `needed`), --n (by default `n`), --seed and --out."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="fashion-mnist")
    parser.add_argument("--victim", required=True, help="a classifier made by robustgen train")
    parser.add_argument(
        "--detector", action="append", default=[], required=needed, help="NAME=PLACE, made by robustgen fit"
    )
    parser.add_argument("--n", type=int, default=n, help="test inputs")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    return parser


def places(jobs: Iterable[str]) -> dict[str, Path]:
    """The places that were given as NAME=PLACE, by name."""
    return {name: Path(place) for name, place in (job.split("=", 1) for job in jobs)}


def right_ones(source: Source, network: nn.Module, among: int, n: int | None = None) -> Inputs:
    """Of the first `among` test inputs those that `network` has right, `n` at most."""
    x, y = first(source, among)
    right = (predictions(network, x) == y).nonzero()[:n, 0]
    return Inputs(x[right], y[right])
