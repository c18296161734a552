from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from robustgen.errors import DataError
from robustgen.metrics import auroc, proportion, rate_above, roc_points, tpr_at_fpr


def test_auroc_equals_scikit_learns_with_ties_and_any_scale() -> None:
    rng = np.random.default_rng(0)
    for trial in range(200):
        m, n = rng.integers(1, 40, 2)
        scale = 10.0 ** rng.integers(-6, 7)
        normal, odd = (np.round(rng.normal(size=k), trial % 3) * scale + scale for k in (m, n))
        expected = roc_auc_score(np.r_[np.zeros(m), np.ones(n)], np.r_[normal, odd])
        assert auroc(normal, odd).value == pytest.approx(expected, abs=1e-12)


def test_large_scores_do_not_saturate() -> None:
    """A library that squeezes scores into [0, 1] by a sigmoid first gets 0.5 here."""
    assert auroc(np.arange(100.0, 200.0), np.arange(300.0, 400.0)).value == 1.0


def test_auroc_interval_covers_at_its_level() -> None:
    """Normal scores against normal scores shifted by 1.5: the true AUROC is Phi(1.5 / sqrt 2)."""
    from scipy.stats import norm

    truth, rng = float(norm.cdf(1.5 / np.sqrt(2))), np.random.default_rng(1)
    estimates = [auroc(rng.normal(size=60), rng.normal(1.5, size=40)) for _ in range(400)]
    covered = np.mean([e.low <= truth <= e.high for e in estimates])
    assert 0.92 <= covered <= 0.99  # nominal 0.95; three standard errors are 0.033
    assert all(0 <= e.low <= e.value <= e.high <= 1 for e in estimates)


def test_a_perfect_auroc_still_has_an_interval() -> None:
    estimate = auroc([0.0, 1.0, 2.0], [3.0, 4.0])
    assert estimate.value == 1.0
    assert estimate.high == 1.0
    assert 0.2 < estimate.low < 0.95


def test_proportion_is_wilsons_interval() -> None:
    """Known values: 0 of 10 and 5 of 10 (Brown, Cai, DasGupta 2001)."""
    assert proportion(0, 10).high == pytest.approx(0.2775, abs=1e-4)
    assert proportion(5, 10)[:3] == pytest.approx((0.5, 0.2366, 0.7634), abs=1e-4)
    with pytest.raises(DataError, match="at least one"):
        proportion(0, 0)


def test_rates() -> None:
    assert rate_above([0.0, 1.0, 2.0, 3.0], 1.0).value == 0.5
    normal, odd = np.arange(100.0), np.array([94.0, 94.5, 95.0, 200.0])
    assert tpr_at_fpr(normal, odd, 0.05).value == 0.75  # five of a hundred normal scores lie above 94
    assert tpr_at_fpr(normal, odd, 0.0).value == 0.25
    fpr, tpr = roc_points(normal, odd)
    assert (fpr[0], tpr[0], fpr[-1], tpr[-1]) == (0, 0, 1, 1)


@pytest.mark.parametrize("bad", [[], [1.0, np.nan], [np.inf], [[1.0]]])
def test_unusable_scores_are_refused(bad: list[float]) -> None:
    for function in (lambda s: auroc(s, [1.0]), lambda s: auroc([1.0], s), lambda s: rate_above(s, 0.0)):
        with pytest.raises(DataError):
            function(bad)
