"""An autoencoder and a GAN's discriminator together: one class of a labelled image set against the others.

As `one_class`, but the product's `fusion` of several members is fitted once for each class and seed, and all of its
ways to combine are read off it, beside its members alone: with members that have seen nine tenths of the training
inputs (the rest is what the fusion measures them on), and, as `fusion` does by default, with the same fitted again on
all of them ("fitted again"). "discriminator" is a GAN with scores=discriminator: what its network says, without the
neighbours and edges that its default adds; it is the same network.

    python -m robustgen_benchmarks.one_class_fusion --data fashion-mnist --members autoencoder gan --out fusion.json
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import cast, get_args

import torch
from torch import Tensor

from robustgen.data.hold_out import hold_out
from robustgen.data.load import load
from robustgen.data.rows import as_rows
from robustgen.detectors.adversarial import AdversarialDetector
from robustgen.detectors.base import Detector
from robustgen.detectors.evidence import Evidence
from robustgen.detectors.fusion import Combine, FusionDetector
from robustgen.metrics import auroc, tpr_at_fpr
from robustgen_benchmarks.one_class import images, table
from robustgen_benchmarks.results_file import ResultsFile


class Readings:
    """A fusion fitted without its second fit, and beside it what it would be with scores=discriminator of its GANs."""

    def __init__(self, names: list[str], x: Tensor, seed: int) -> None:
        self.names = names
        self.own = FusionDetector(members=",".join(names), refit=False, seed=seed).fit(x)
        self.alone: FusionDetector | None = None
        if any(isinstance(member, AdversarialDetector) for member in self.own.parts):
            self.alone = FusionDetector(members=",".join(names), refit=False, seed=seed)
            self.alone._build(tuple(x.shape[1:]))
            self.alone.parts = self.own.parts
            _, held = hold_out(as_rows(x), every=min(10, max(3, len(x) // 50)), seed=seed)
            inside = [self._alone(part) for part in held.batches(500)]
            for evidence, scores in zip(self.alone.evidence, zip(*inside, strict=True), strict=True):
                cast(Evidence, evidence).prepare(torch.cat(scores))

    def fit_again(self, x: Tensor) -> None:
        """The members see all of the inputs; what they were measured by stays."""
        for member in self.own.parts:
            cast(Detector, member).fit(x)

    def __call__(self, test: Tensor, suffix: str = "") -> dict[str, Tensor]:
        """The scores of all members and combinations."""
        parts = test.split(500)
        own = [torch.cat([cast(Detector, member).score(part) for part in parts]) for member in self.own.parts]
        rows = {f"{name}, as a member{suffix}": scores for name, scores in zip(self.names, own, strict=True)}
        rows |= {f"fusion, {combine}{suffix}": joined(self.own, combine, own) for combine in get_args(Combine)}
        if self.alone is None:
            return rows
        alone = [torch.cat(scores) for scores in zip(*map(self._alone, parts), strict=True)]
        for name, member, scores in zip(self.names, self.own.parts, alone, strict=True):
            if isinstance(member, AdversarialDetector):
                rows[f"{name}: discriminator, as a member{suffix}"] = scores
        for combine in get_args(Combine):
            rows[f"fusion with the discriminator alone, {combine}{suffix}"] = joined(self.alone, combine, alone)
        return rows

    def _alone(self, x: Tensor) -> list[Tensor]:
        return [
            -member.critic(x) if isinstance(member, AdversarialDetector) else cast(Detector, member).score(x)
            for member in self.own.parts
        ]


def joined(fused: FusionDetector, combine: Combine, scores: list[Tensor]) -> Tensor:
    """What `fused` would make of its members' scores by another combination."""
    fused.combine = combine
    return fused.joined(scores)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="fashion-mnist", help="a data name or path, as for robustgen fit")
    parser.add_argument("--classes", type=int, nargs="+", default=list(range(10)))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--members", nargs="+", default=["autoencoder", "gan"])
    parser.add_argument("--out", type=Path, help="JSON file for the results, and to go on from")
    given = parser.parse_args()
    torch.set_num_threads(1)
    source = load(given.data)
    x, y = images(source, "train", "calibration")
    test, labels = images(source, "test")
    file = ResultsFile(
        given.out,
        f"python -m robustgen_benchmarks.one_class_fusion --data {source.spec.name} --members "
        f"{' '.join(given.members)} --seeds {' '.join(map(str, given.seeds))}",
        "pyod",
        data_sha256=source.spec.sha256,
    )
    done = file.done("class", "seed")
    for seed in given.seeds:
        for number in given.classes:
            if (number, seed) in done:
                continue
            own, results = x[y == number], []
            began = time.process_time()
            read = Readings(given.members, own, seed)
            seconds = time.process_time() - began
            for suffix in ("", ", fitted again"):
                if suffix:
                    began = time.process_time()
                    read.fit_again(own)
                    seconds += time.process_time() - began
                with torch.no_grad():
                    rows = read(test, suffix)
                for name, scores in rows.items():
                    inside = scores[labels == number].double().numpy()
                    outside = scores[labels != number].double().numpy()
                    found = {
                        "auroc": auroc(inside, outside).value,
                        "tpr_at_5": tpr_at_fpr(inside, outside, 0.05).value,
                        "cpu_seconds": seconds,
                    }
                    results.append({"detector": name, "class": number, "seed": seed, **found})
                    sys.stderr.write(f"class {number} seed {seed} {name}: {found['auroc']:.4f}\n")
            file.add(*results)
    sys.stdout.write(table(file.results))


if __name__ == "__main__":
    main()
