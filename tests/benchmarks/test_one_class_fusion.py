"""What the benchmark reads off a fusion is what the product's fusion says."""

from __future__ import annotations

import torch

from robustgen.detectors.fusion import FusionDetector
from robustgen.detectors.making import make
from robustgen_benchmarks.one_class_fusion import Readings

MEMBERS = ["pca", "gan steps=2 width=4"]


def test_readings_are_those_of_detectors_that_are_fitted_by_themselves(generator: torch.Generator) -> None:
    x, test = (torch.rand(n, 1, 8, 8, generator=generator) for n in (120, 30))
    with torch.no_grad():
        for refit in (True, False):
            found = Readings(MEMBERS, x, 0, refit)(test)
            assert len(found) == 1 + 3 + 3 * 4  # a GAN scored in three ways, four combinations
            for combine in ("harmonic", "deviations"):
                own = FusionDetector(",".join(MEMBERS), combine, refit).fit(x)  # type: ignore[arg-type]
                torch.testing.assert_close(found[f"fusion, {combine}"], own.score(test))
                scored = ",".join([MEMBERS[0], f"{MEMBERS[1]} scores=discriminator"])
                other = FusionDetector(scored, combine, refit).fit(x)  # type: ignore[arg-type]
                torch.testing.assert_close(found[f"fusion: discriminator, {combine}"], other.score(test))
    alone = make("gan", {"steps": 2, "width": 4}).fit(x)
    again = Readings(MEMBERS, x, 0, True)(test)
    torch.testing.assert_close(again[f"{MEMBERS[1]}, as a member"], alone.score(test))
