"""An autoencoder and a GAN's discriminator together: one class of a labelled image set against the others.

As `one_class`, but the product's `fusion` of several members is fitted once for each class and seed, without a second
fit, and all of its ways to combine are read off it, beside its members alone (each fitted on nine tenths of the
training inputs; the rest is what the fusion measures them on). "discriminator" is a GAN with scores=discriminator:
what its network says, without the neighbours and edges that its default adds; it is the same network.

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


def with_discriminators(
    names: list[str], fused: FusionDetector, x: Tensor, test: Tensor, seed: int
) -> dict[str, Tensor]:
    """What `fused` would say if its GANs had scores=discriminator: each alone, and every combination."""
    other = FusionDetector(members=",".join(names), refit=False, seed=seed)
    other._build(tuple(x.shape[1:]))
    other.parts = fused.parts
    _, held = hold_out(as_rows(x), every=min(10, max(3, len(x) // 50)), seed=seed)

    def say(part: Tensor) -> list[Tensor]:
        return [
            -member.critic(part) if isinstance(member, AdversarialDetector) else cast(Detector, member).score(part)
            for member in fused.parts
        ]

    inside = [torch.cat(scores) for scores in zip(*map(say, held.batches(500)), strict=True)]
    outside = [torch.cat(scores) for scores in zip(*map(say, test.split(500)), strict=True)]
    for evidence, scores in zip(other.evidence, inside, strict=True):
        cast(Evidence, evidence).prepare(scores)
    rows = {
        f"{name}: discriminator, as a member": scores
        for name, member, scores in zip(names, fused.parts, outside, strict=True)
        if isinstance(member, AdversarialDetector)
    }
    for combine in get_args(Combine):
        rows[f"fusion with the discriminator alone, {combine}"] = joined(other, combine, outside)
    return rows


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
            began = time.process_time()
            fused = FusionDetector(members=",".join(given.members), refit=False, seed=seed).fit(x[y == number])
            seconds = time.process_time() - began
            with torch.no_grad():
                parts = [
                    torch.cat([m.score(part) for part in test.split(500)]) for m in cast(list[Detector], fused.parts)
                ]
                rows = dict(zip([f"{name}, as a member" for name in given.members], parts, strict=True))
                rows |= {f"fusion, {combine}": joined(fused, combine, parts) for combine in get_args(Combine)}
                if any(isinstance(member, AdversarialDetector) for member in fused.parts):
                    rows |= with_discriminators(given.members, fused, x[y == number], test, seed)
            results = []
            for name, scores in rows.items():
                inside, outside = scores[labels == number].double().numpy(), scores[labels != number].double().numpy()
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
