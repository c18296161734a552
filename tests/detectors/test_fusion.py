"""Several detectors as one: units, tails, ways to combine, and what `auto` stands for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from robustgen.detectors.auto import choice
from robustgen.detectors.evidence import Evidence
from robustgen.detectors.fusion import FusionDetector
from robustgen.detectors.gan import GANDetector
from robustgen.detectors.making import make
from robustgen.errors import UsageError
from robustgen.metrics import auroc
from robustgen.testing import check_detector
from robustgen.training import descent


@pytest.mark.parametrize("combine", ["harmonic", "fisher", "smallest", "deviations"])
def test_every_combination_keeps_the_contract(combine: str) -> None:
    check_detector(lambda: FusionDetector("knn k=3,pca scores=likelihood", combine), (10,))  # type: ignore[arg-type]


def test_a_killed_fit_goes_on_with_the_member_it_was_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, generator: torch.Generator
) -> None:
    monkeypatch.setattr(descent, "_CHECKPOINT_EVERY", -1.0)
    x, steps = torch.randn(120, 6, generator=generator), []

    def fit(stop: int | None, checkpoint: Path | None) -> FusionDetector:
        steps.clear()

        def progress(done: int, total: int, loss: float) -> None:
            steps.append(done)
            if len(steps) == stop:
                raise KeyboardInterrupt

        made = FusionDetector("knn k=3,autoencoder code=2 epochs=4 batch_size=20")
        return made.fit(x, progress=progress, checkpoint=checkpoint)

    whole, n = fit(None, None).state_dict(), len(steps)
    for stop in (n // 4, 3 * n // 4):  # in the first training of the member, and in that on all inputs
        with pytest.raises(KeyboardInterrupt):
            fit(stop, tmp_path / "c.pt")
        assert list(tmp_path.iterdir())
    resumed = fit(None, tmp_path / "c.pt").state_dict()
    assert len(steps) < n // 2
    assert all(torch.equal(resumed[name], value) for name, value in whole.items())
    assert not list(tmp_path.iterdir())


def evidence(scores: torch.Tensor) -> Evidence:
    found = Evidence()
    found.prepare(scores)
    return found.double()


def test_evidence_is_minus_log_p_of_an_exponential(generator: torch.Generator) -> None:
    """Scores that are exponential have -log p = score: inside, and far beyond the held-out ones."""
    scores = torch.empty(20_000, dtype=torch.float64).exponential_(generator=generator)
    points = torch.tensor([0.1, 1, 2, 5, 10, 20, 40], dtype=torch.float64)
    torch.testing.assert_close(evidence(scores)(points), points, rtol=0.05, atol=0.05)


@pytest.mark.parametrize("n", [1, 2, 7, 50])
def test_evidence_rises_with_the_score_everywhere(generator: torch.Generator, n: int) -> None:
    for scores in (torch.randn(n, generator=generator), torch.randint(0, 3, (n,), generator=generator), torch.ones(n)):
        points = torch.linspace(-9, 9, 500, dtype=torch.float64, requires_grad=True)
        found = evidence(scores.float())(points)
        assert torch.isfinite(found).all()
        assert (found.diff() > 0).all()
        (slope,) = torch.autograd.grad(found.sum(), points)
        assert (slope > 0).all()


def test_another_unit_of_a_member_changes_nothing(generator: torch.Generator) -> None:
    scores, new = torch.randn(60, generator=generator).double(), torch.randn(20, generator=generator).double()
    torch.testing.assert_close(evidence(1000 * scores - 7)(1000 * new - 7), evidence(scores)(new), rtol=1e-4, atol=1e-4)


def test_what_one_member_sees_the_fusion_sees(generator: torch.Generator) -> None:
    """Anomalies in a low-variance direction escape kNN, those of a gap between clusters escape PCA."""
    side = torch.randint(0, 2, (800, 1), generator=generator) * 8.0 - 4
    x = torch.cat([side + torch.randn(800, 1, generator=generator), torch.randn(800, 7, generator=generator)], 1)
    x[:, 7] = x[:, 1] + 0.01 * x[:, 7]
    train, normal = x[:600], x[600:]
    gap, tilted = normal[:100].clone(), normal[100:].clone()
    gap[:, 0] = 0.3 * torch.randn(100, generator=generator)
    tilted[:, 7] = tilted[:, 1] + 0.2 * torch.randn(100, generator=generator)
    odd = torch.cat([gap, tilted])

    def caught(name: str, options: dict[str, object]) -> float:
        detector = make(name, options).fit(train)
        return float(auroc(detector.score(normal).double().numpy(), detector.score(odd).double().numpy()).value)

    members = ("knn k=5", "pca scores=likelihood components=7")
    alone = max(caught("knn", {}), caught("pca", {"scores": "likelihood", "components": 7}))
    assert caught("fusion", {"members": ",".join(members)}) > alone + 0.02


def test_members_are_made_from_their_words() -> None:
    detector = FusionDetector("knn k=3 method=largest, k-means clusters=4,pca", seed=7)
    knn, means, pca = detector._made()
    assert knn.config == {"k": 3, "method": "largest", "bank": 20_000, "scale": "auto", "seed": 7}
    assert means.config["clusters"] == 4
    assert means.config["seed"] == 7
    assert pca.config["components"] is None
    assert detector.config["members"] == "knn k=3 method=largest, k-means clusters=4,pca"
    assert not FusionDetector("knn,isolation-forest").differentiable


@pytest.mark.parametrize(
    ("members", "says"),
    [
        ("", "unknown detector ''"),
        ("knn,pac", "did you mean 'pca'"),
        ("knn k", "NAME=VALUE"),
        ("knn n=3", "no option 'n'"),
        ("knn k=0", "k=0"),
    ],
)
def test_members_that_make_no_sense(members: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        FusionDetector(members)


def test_few_rows_are_enough(generator: torch.Generator) -> None:
    for n in (4, 12, 40):
        x = torch.rand(n, 3, generator=generator)
        detector = FusionDetector("knn,k-means clusters=2,pca").fit(x)
        assert torch.isfinite(detector.score(x)).all()
        assert detector.score(torch.full((1, 3), 9.0)) > detector.score(x).max()


def test_far_inputs_still_differ(generator: torch.Generator) -> None:
    detector = FusionDetector().fit(torch.rand(100, 4, generator=generator))
    scores = detector.score(torch.tensor([[10.0], [100.0], [1000.0]]).expand(3, 4)).numpy()
    assert np.diff(scores).min() > 1


def test_auto_goes_by_the_shape_of_the_data() -> None:
    assert choice((7,)) == "fusion"
    assert choice((1, 28, 28)) == "autoencoder"


@pytest.mark.parametrize(
    ("shape", "names", "combine"),
    [
        ((7,), ["KNNDetector", "KMeansDetector", "GaussianMixtureDetector", "PCADetector"], "harmonic"),
        ((1, 28, 28), ["AutoencoderDetector", "GANDetector", "GANDetector"], "deviations"),
    ],
)
def test_members_go_by_the_shape_of_the_data(shape: tuple[int, ...], names: list[str], combine: str) -> None:
    detector = FusionDetector()
    detector._prepare(shape)
    assert [type(part).__name__ for part in detector.parts] == names
    assert detector.combined_by == combine
    gans = [part for part in detector.parts if isinstance(part, GANDetector)]
    assert [part.network for part in gans] == ["auto", "pooled"][: len(gans)]
    named = FusionDetector("knn,pca", "fisher")
    named._prepare(shape)
    assert named.combined_by == "fisher"


def test_deviations_are_added_and_a_stored_fusion_says_the_same(generator: torch.Generator) -> None:
    x = torch.rand(120, 1, 8, 8, generator=generator)
    options = "autoencoder preset=fast,gan scores=discriminator+knn preset=fast steps=10", "deviations"
    made = FusionDetector(*options).fit(x)  # type: ignore[arg-type]
    scores = [part.score(x) for part in made.parts]  # type: ignore[operator]
    units = [each.deviations(own) for each, own in zip(made.evidence, scores, strict=True)]  # type: ignore[operator]
    torch.testing.assert_close(made.score(x), units[0] + units[1])
    again = FusionDetector(*options).restore((1, 8, 8), made.state_dict())  # type: ignore[arg-type]
    assert torch.equal(again.score(x), made.score(x))
