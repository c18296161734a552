"""The second domain: what an attack makes of training inputs, no further from them than it may."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from robustgen.data.load import load
from robustgen.errors import DataError, UsageError
from robustgen.evaluation.domains import adversarial, with_other
from robustgen.models.build import build
from robustgen.report.translations import translation_sheet
from robustgen.threat import ThreatModel


@pytest.mark.parametrize("threat", [ThreatModel("linf", 0.1), ThreatModel("l2", 0.7)])
def test_attacked_inputs_are_legal_bytes_of_the_training_split(threat: ThreatModel) -> None:
    source, network = load("digits"), build("small-cnn", (1, 8, 8), 10).eval()
    made = adversarial(source, network, ("pgd", threat))
    rows = source.rows("train")
    x, x_adv = source.read(rows).x, made.read(made.rows("train")).x
    assert x_adv.shape == x.shape
    torch.testing.assert_close(255 * x_adv, (255 * x_adv).round())
    # the digits have 17 shades, which are no bytes: half a level more
    slack = 0.5 / 255 * (1 if threat.norm == "linf" else 8)
    assert (threat.distance(x_adv, x) <= threat.eps + slack + 1e-6).all()
    assert (x_adv != x).flatten(1).any(1).double().mean() > 0.9
    again = adversarial(source, network, ("pgd", threat))
    assert again.spec.sha256 == made.spec.sha256
    assert adversarial(source, network, ("pgd", threat), seed=1).spec.sha256 != made.spec.sha256


def test_the_other_domain_is_data_or_an_attack() -> None:
    source = load("digits")
    found = with_other(source, "digits", None, 0, lambda done: None)
    assert found.spec.classes == ("digits", "digits")
    with pytest.raises(UsageError, match="give it with --model"):
        with_other(source, "attack:pgd:0.1", None, 0, lambda done: None)
    with pytest.raises(UsageError, match="did you mean 'digits'"):
        with_other(source, "digit", None, 0, lambda done: None)


def test_rows_of_a_sheet_belong_together() -> None:
    x = np.random.default_rng(0).random((11, 1, 5, 5))
    figure = translation_sheet([("input", x), ("as normal", 1 - x), ("colour", np.repeat(x, 3, 1))], "a title")
    assert len(figure.axes) == 33
    with pytest.raises(DataError, match=r"\[11, 3\]"):
        translation_sheet([("input", x), ("as normal", x[:3])], "a title")
