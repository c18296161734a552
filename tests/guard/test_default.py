"""What the guard is made of where no detectors are named."""

from __future__ import annotations

import pytest

from robustgen.data.load import load
from robustgen.guard.default import ADVERSARIAL, members


@pytest.mark.parametrize(("preset", "several"), [("fast", 1), ("default", 1), ("best", 3)])
def test_the_best_guard_has_several_discriminators_of_seeds_of_their_own(preset: str, several: int) -> None:
    wanted = members(load("digits").spec, preset, 7)
    adversarial = wanted.pop(ADVERSARIAL)
    assert [one.name for one in adversarial] == ["gat"] * several
    assert [one.options["seed"] for one in adversarial] == list(range(7, 7 + several))
    every = [*adversarial, *(one for part in wanted.values() for one in part)]
    assert {one.options["seed"] for one in every if "seed" in one.options and one.name != "gat"} == {7}
    assert {one.options["preset"] for one in every if "preset" in one.options} == {preset}
