"""An autoencoder and a GAN's discriminator together: one class of a labelled image set against the others.

As `one_class`, but the product's `fusion` of several members is fitted once for each class and seed, without a second
fit, and all of its ways to combine are read off it, beside its members alone (each fitted on nine tenths of the
training inputs; the rest is what the fusion measures them on). Of a GAN also what it is with scores=discriminator,
which is what its network says without the neighbours and edges that its default adds, and with discriminator+knn: the
same networks, scored in another way.

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
from robustgen.detectors.combination import Combination
from robustgen.detectors.evidence import Evidence
from robustgen.detectors.fusion import Combine, FusionDetector
from robustgen.detectors.gan_parts import GAN_PARTS
from robustgen.metrics import auroc, tpr_at_fpr
from robustgen_benchmarks.one_class import images, table
from robustgen_benchmarks.results_file import ResultsFile

SCORES = ("discriminator", "discriminator+knn")
"""What a GAN is scored by beside its default."""


class Readings:
    """A fusion fitted without its second fit, and what it would be if its GANs were scored in other ways."""

    def __init__(self, names: list[str], x: Tensor, seed: int) -> None:
        self.names, self.seed = names, seed
        self.fused = FusionDetector(members=",".join(names), refit=False, seed=seed).fit(x)
        self.kept, self.held = hold_out(as_rows(x), every=min(10, max(3, len(x) // 50)), seed=seed)
        members = zip(names, self.fused.parts, strict=True)
        self.gans = {name: member for name, member in members if isinstance(member, AdversarialDetector)}

    def __call__(self, test: Tensor) -> dict[str, Tensor]:
        """The scores of all members and combinations."""
        own = self._scores(list(test.split(500)))
        rows = {f"{name}, as a member": found for name, found in zip(self.names, own, strict=True)}
        rows |= self._joined(own, "fusion")
        for scores in SCORES if self.gans else ():
            for member in self.gans.values():
                # as one that was made with these scores is prepared: the fusion kept a part, and it a part of that
                kept, held = hold_out(self.kept, seed=self.seed)
                member.combination = Combination(scores, tuple(test.shape[1:]), GAN_PARTS)
                member.combination.prepare(member._views(kept), member._views(held), self.seed)
            for evidence, found in zip(self.fused.evidence, self._scores(list(self.held.batches(500))), strict=True):
                cast(Evidence, evidence).prepare(found)
            again = self._scores(list(test.split(500)), own)
            named = zip(self.names, again, strict=True)
            rows |= {f"{name}: {scores}, as a member": found for name, found in named if name in self.gans}
            rows |= self._joined(again, f"fusion with {scores}")
        return rows

    def _scores(self, parts: list[Tensor], known: list[Tensor] | None = None) -> list[Tensor]:
        """What each member says; of those that are no GANs, what is `known`."""
        members = [cast(Detector, member) for member in self.fused.parts]
        return [
            known[place] if known and name not in self.gans else torch.cat([member.score(part) for part in parts])
            for place, (name, member) in enumerate(zip(self.names, members, strict=True))
        ]

    def _joined(self, scores: list[Tensor], name: str) -> dict[str, Tensor]:
        return {f"{name}, {combine}": joined(self.fused, combine, scores) for combine in get_args(Combine)}


def joined(fused: FusionDetector, combine: Combine, scores: list[Tensor]) -> Tensor:
    """What `fused` would make of its members' scores by another combination."""
    fused.combined_by = combine
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
            read = Readings(given.members, x[y == number], seed)
            seconds = time.process_time() - began
            with torch.no_grad():
                rows = read(test)
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
