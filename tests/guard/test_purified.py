from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from robustgen.attacks.pgd import PGD
from robustgen.data.load import load
from robustgen.data.source import Source
from robustgen.detectors.calibrated import CalibratedDetector
from robustgen.detectors.pca import PCADetector
from robustgen.errors import UsageError
from robustgen.evaluation.purification import masked_gradients, oblivious
from robustgen.evaluation.robustness import evaluate_attack
from robustgen.guard.purified import Purified
from robustgen.metrics import proportion
from robustgen.threat import ThreatModel
from robustgen.training.classifier import train
from robustgen.training.descent import Recipe
from toys import Linear2


@pytest.fixture(scope="module")
def digits() -> Source:
    return load("digits")


@pytest.fixture(scope="module")
def pca(digits: Source) -> CalibratedDetector:
    return CalibratedDetector.fit("pca", digits, options={"components": 10})


@pytest.fixture(scope="module")
def victim(digits: Source) -> nn.Module:
    return train(digits, "mlp", recipe=Recipe(epochs=10)).model.network


def inputs(source: Source, n: int) -> torch.Tensor:
    return source.read(source.rows("test")[:n]).x


def test_it_is_the_classifier_of_what_is_rebuilt(digits: Source, pca: CalibratedDetector, victim: nn.Module) -> None:
    purified, x = Purified(victim, pca).eval(), inputs(digits, 8)
    assert isinstance(pca.detector, PCADetector)
    rebuilt = pca.detector.reconstruct(x)
    assert torch.equal(purified.purify(x), rebuilt)
    assert torch.equal(purified(x), victim(rebuilt))
    torch.testing.assert_close(purified(x[3:5]), purified(x)[3:5])
    torch.testing.assert_close(purified.purify(rebuilt), rebuilt, atol=1e-5, rtol=0)  # a projection


def test_gradients_go_through_the_purifier(digits: Source, pca: CalibratedDetector) -> None:
    """Those of a linear classifier are its weight projected onto the principal subspace."""
    weight = torch.randn(64, generator=torch.Generator().manual_seed(1))
    purified = Purified(Linear2(weight, 0.1), pca)
    x = inputs(digits, 4).requires_grad_()
    (found,) = torch.autograd.grad(purified(x)[:, 1].sum(), x)
    assert isinstance(pca.detector, PCADetector)
    directions = pca.detector.directions
    torch.testing.assert_close(found.flatten(1), (weight @ directions.T @ directions).expand(4, -1))


@pytest.mark.parametrize("name", ["autoencoder", "vae"])
def test_networks_purify_with_gradients(name: str, digits: Source, victim: nn.Module, tmp_path: Path) -> None:
    fitted = CalibratedDetector.fit(name, digits, options={"epochs": 1})
    fitted.save(tmp_path)
    purified, again = Purified(victim, fitted).eval(), Purified(victim, CalibratedDetector.load(tmp_path)).eval()
    x = inputs(digits, 5).requires_grad_()
    assert purified.purify(x).shape == x.shape
    torch.testing.assert_close(again(x), purified(x), rtol=0, atol=0)
    (slope,) = torch.autograd.grad(purified(x)[:, 0].sum(), x)
    assert (slope.flatten(1).abs().amax(1) > 0).all()


def test_what_cannot_rebuild_an_input_is_refused(digits: Source, victim: nn.Module) -> None:
    forest = CalibratedDetector.fit("isolation-forest", digits)
    with pytest.raises(UsageError, match=r"isolation-forest cannot rebuild .* use one of pca, autoencoder"):
        Purified(victim, forest)
    trained = train(digits, "mlp", recipe=Recipe(epochs=1)).model
    with pytest.raises(UsageError, match="through a model or a code"):
        Purified(victim, CalibratedDetector.fit("pca", digits, model=trained))
    with pytest.raises(UsageError, match="cannot rebuild an input without its label"):
        Purified(victim, CalibratedDetector.fit("conditional-vae", digits, model=trained, options={"epochs": 1}))


def test_data_of_another_form_is_refused(digits: Source, pca: CalibratedDetector, tmp_path: Path) -> None:
    import numpy as np

    np.savez(tmp_path / "small.npz", x=np.random.default_rng(0).random((200, 1, 6, 6)), y=np.arange(200) % 2)
    purified = Purified(nn.Flatten(), pca)
    purified.check(digits.spec)
    with pytest.raises(UsageError, match=r"fitted on inputs of 'digits', of shape \(1, 8, 8\)"):
        purified.check(load(str(tmp_path / "small.npz")).spec)


def test_an_attacker_who_knows_of_it_does_more(digits: Source, pca: CalibratedDetector, victim: nn.Module) -> None:
    purified = Purified(victim, pca)
    attack = PGD(threat=ThreatModel("linf", 0.15), steps=10)
    adaptive = evaluate_attack("pgd", attack, purified, digits, limit=120)
    rows = digits.spread("test", 120)
    unaware = oblivious(attack, purified, digits, rows)
    bare = evaluate_attack("pgd", attack, victim, digits, limit=120, diagnose=False)
    assert unaware.purified_clean == adaptive.clean_accuracy
    assert unaware.clean == bare.clean_accuracy
    assert unaware.robust == bare.robust_accuracy  # going on after the first success loses none of them
    assert adaptive.robust_accuracy.value < unaware.purified_robust.value
    assert masked_gradients(unaware, adaptive.robust_accuracy) == []
    assert "hides its gradients" in masked_gradients(unaware, proportion(120, 120))[0]
    again = oblivious(attack, purified, digits, rows)
    assert again == unaware


def test_no_change_leaves_what_is_right(digits: Source, pca: CalibratedDetector, victim: nn.Module) -> None:
    found = oblivious(PGD(threat=ThreatModel("linf", 0.0), steps=1), Purified(victim, pca), digits,
                      digits.spread("test", 50))  # fmt: skip
    assert found.robust == found.clean
    assert found.purified_robust == found.purified_clean
    assert set(found.to_json()) == {"clean", "robust", "purified_clean", "purified_robust"}
