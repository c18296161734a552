"""An autoencoder and discriminators of GANs together: one class of a labelled image set against the others.

As `one_class`, but the product's `fusion` of several members is fitted once for each class and seed, and all of its
ways to combine are read off it, also of the first two members alone, beside its members alone. Of a GAN also what it is
with scores=discriminator, which is what its network says without the neighbours and edges that its default adds, and
with discriminator+knn: the same networks, scored in another way. Without --refit the second fit is left out, and each
member is fitted on nine tenths of the training inputs; the rest is what the fusion measures them on. With it, members
are what the detectors are by themselves.

    python -m robustgen_benchmarks.one_class_fusion --data fashion-mnist --seeds 0 1 2 --out fusion.json
"""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from pathlib import Path
from typing import cast, get_args

import torch
from torch import Tensor

from robustgen.data.hold_out import hold_out
from robustgen.data.load import load
from robustgen.data.rows import Rows, as_rows
from robustgen.detectors.adversarial import AdversarialDetector
from robustgen.detectors.base import Detector
from robustgen.detectors.combination import Combination
from robustgen.detectors.evidence import Evidence
from robustgen.detectors.fusion import Combine, FusionDetector, joined
from robustgen.detectors.gan_parts import GAN_PARTS
from robustgen.metrics import auroc, tpr_at_fpr
from robustgen_benchmarks.one_class import images, table
from robustgen_benchmarks.results_file import ResultsFile

SCORES = ("discriminator", "discriminator+knn")
"""What a GAN is scored by beside its default."""


class Readings:
    """A fitted fusion, and what it would be if its GANs were scored in other ways."""

    def __init__(self, names: list[str], x: Tensor, seed: int, refit: bool) -> None:
        self.names, self.seed = names, seed
        fused = FusionDetector(members=",".join(names), refit=False, seed=seed).fit(x)
        self.members = [cast(Detector, member) for member in fused.parts]
        kept, held = hold_out(as_rows(x), every=min(10, max(3, len(x) // 50)), seed=seed)
        shown = list(held.batches(500))
        with torch.no_grad():
            self.evidence = {"auto": [cast(Evidence, each) for each in fused.evidence]}
            for scores in SCORES:
                self._score_by(scores, kept)
                self.evidence[scores] = [_known(found) for found in self._scores(shown)]
        self.rows = as_rows(x) if refit else kept
        if refit:
            for member in self.members:
                member.fit(self.rows)

    def __call__(self, test: Tensor) -> dict[str, Tensor]:
        """The scores of all members and combinations."""
        rows = dict[str, Tensor]()
        for scores, evidence in self.evidence.items():
            self._score_by(scores, self.rows)
            own, said = self._scores(list(test.split(500))), "" if scores == "auto" else f": {scores}"
            for name, member, found in zip(self.names, self.members, own, strict=True):
                if not said or isinstance(member, AdversarialDetector):
                    rows[f"{name}{said}, as a member"] = found
            for combine in get_args(Combine):
                rows[f"fusion{said}, {combine}"] = joined(combine, evidence, own)
                if len(own) > 2:
                    rows[f"fusion of the first two{said}, {combine}"] = joined(combine, evidence[:2], own[:2])
        return rows

    def _scores(self, parts: list[Tensor]) -> list[Tensor]:
        return [torch.cat([member.score(part) for part in parts]) for member in self.members]

    def _score_by(self, scores: str, rows: Rows) -> None:
        """Let the GANs, fitted on `rows`, be as those that were made with these scores."""
        for member in self.members:
            if isinstance(member, AdversarialDetector):
                names = member.by_default if scores == "auto" else scores
                kept, held = hold_out(rows, seed=self.seed)
                member.combination = Combination(names, tuple(rows.shape), GAN_PARTS)
                with torch.no_grad():
                    member.combination.prepare(member._views(kept), member._views(held), self.seed)


def _known(scores: Tensor) -> Evidence:
    evidence = Evidence()
    evidence.prepare(scores)
    return evidence


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="fashion-mnist", help="a data name or path, as for robustgen fit")
    parser.add_argument("--classes", type=int, nargs="+", default=list(range(10)))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--members", nargs="+", default=["autoencoder", "gan", "gan network=pooled"])
    parser.add_argument("--refit", action="store_true", help="fit each member again on all training inputs")
    parser.add_argument("--out", type=Path, help="JSON file for the results, and to go on from")
    given = parser.parse_args()
    torch.set_num_threads(1)
    source = load(given.data)
    x, y = images(source, "train", "calibration")
    test, labels = images(source, "test")
    file = ResultsFile(
        given.out,
        f"python -m robustgen_benchmarks.one_class_fusion --data {source.spec.name} --members "
        f"{shlex.join(given.members)} --seeds {' '.join(map(str, given.seeds))}{' --refit' if given.refit else ''}",
        "pyod",
        data_sha256=source.spec.sha256,
    )
    done = file.done("class", "seed")
    for seed in given.seeds:
        for number in given.classes:
            if (number, seed) in done:
                continue
            began = time.process_time()
            read = Readings(given.members, x[y == number], seed, given.refit)
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
