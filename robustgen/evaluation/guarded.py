"""What a classifier with a detector is worth, row by row: pure functions from per-sample arrays to plain values.

An attempt counts as successful when a clean input that was classified correctly became a legal one that is not;
detection is judged on these alone, since what failed to fool is no attack to be caught. Negatives are all clean test
inputs, misclassified ones too, because that is what a detector meets. Thresholds come from calibration scores, never
from the scores they are judged on. Every share is an `Estimate` with its interval, as a dictionary.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from robustgen.calibration import Threshold, calibrate
from robustgen.errors import DataError, UsageError
from robustgen.evaluation.clusters import clustered_auroc, clustered_mean
from robustgen.metrics import Array, Estimate, auroc, proportion, rate_above, scores_array
from robustgen.registry import suggestion

Threat = Literal["Z", "N", "T", "W", "Q"]
"""What is known to whoever changed the inputs. Z: the classifier. N: nothing, changes that keep the label. T: both, but
not their weights. W: both. Q: both, by their answers alone.
"""

RATES = (0.001, 0.01, 0.05)
PREVALENCES = (0.5, 0.1, 0.01, 0.001)

Labels = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
Plain = dict[str, Any]


@dataclass(frozen=True)
class CleanArrays:
    """All clean test inputs (n,): `label`, the `predicted` one, and `score`; and the sorted or unsorted scores of the
    held-out inputs (m,) that thresholds are made of. `others`: clean test inputs of which no attack was made; where
    there are any, they are the negatives, and it is they that false alarms and useful accuracy are counted on.

    Raises `DataError` for arrays that do not fit each other.
    """

    label: Labels
    predicted: Labels
    score: Array
    calibration_scores: Array
    others: CleanArrays | None = None

    def __post_init__(self) -> None:
        scores_array(self.score, "clean scores")
        if not len(self.label) == len(self.predicted) == len(self.score):
            raise DataError(
                f"clean inputs need a label, a prediction and a score each, but {len(self.label)}, "
                f"{len(self.predicted)} and {len(self.score)} came"
            )

    @property
    def right(self) -> Mask:
        """(n,) whether the classifier is right without the detector."""
        return np.asarray(self.predicted == self.label)

    @property
    def negatives(self) -> CleanArrays:
        """What results of attacks are to be told from."""
        return self if self.others is None else self.others

    def threshold(self, fpr: float) -> Threshold:
        """For this share of false alarms; raises as `calibrate` does."""
        return calibrate(self.calibration_scores, fpr)


@dataclass(frozen=True)
class AttackedArrays:
    """What one attack of size `eps` made of clean inputs: `row` (k,), their places among the clean ones, each once, and
    what the system says of the results, `predicted` and `score`.

    `legal`: whether each result lies in the ball and the box, None = all do. `label`: where given, it is compared with
    that of the clean rows. `seconds`: what the attack took; `effort`: what each of its members may spend on an input
    (steps, restarts, targets, queries, draws). `surrogate`: it followed the gradients of a stand-in that was learnt
    from answers, so that a stronger attack may exist. `held`: inputs that it was not tried on, because the classifier
    holds them on its own (`screening`). Raises `UsageError` for an unknown threat, `DataError` for arrays that do not
    fit each other.
    """

    threat: Threat
    attack: str
    norm: str
    eps: float
    row: Labels
    predicted: Labels
    score: Array
    legal: Mask | None = None
    label: Labels | None = None
    seconds: float | None = None
    effort: Mapping[str, Mapping[str, int]] | None = None
    surrogate: bool = False
    held: Mask | None = None

    def __post_init__(self) -> None:
        if self.threat not in get_args(Threat):
            raise UsageError(suggestion(str(self.threat), get_args(Threat), "threat model"))
        scores_array(self.score, f"scores after {self.attack}")
        sizes = {
            len(self.row),
            len(self.predicted),
            len(self.score),
            len(self.row if self.legal is None else self.legal),
            len(self.row if self.held is None else self.held),
        }
        if len(sizes) > 1 or len(np.unique(self.row)) < len(self.row):
            raise DataError(
                f"{self.attack} needs one prediction and one score for each clean input it was run on, each once, but "
                f"{len(self.row)} rows ({len(np.unique(self.row))} different), {len(self.predicted)} predictions and "
                f"{len(self.score)} scores came"
            )

    def wrong(self, clean: CleanArrays) -> Mask:
        """(k,) whether the result is legal and has a wrong label. Raises `DataError` if the rows are not of `clean`."""
        if self.row.min() < 0 or self.row.max() >= len(clean.label):
            raise DataError(
                f"{self.attack} names rows from {self.row.min()} to {self.row.max()}, but there are {len(clean.label)} "
                "clean inputs"
            )
        truth = clean.label[self.row]
        if self.label is not None and not np.array_equal(self.label, truth):
            raise DataError(f"{self.attack} was run with other labels than those of the clean inputs at its rows")
        wrong: Mask = self.predicted != truth
        return wrong if self.legal is None else wrong & self.legal


def told(estimate: Estimate | None) -> Plain | None:
    """An estimate for JSON."""
    return None if estimate is None else estimate._asdict()


def share(mask: Any) -> Estimate | None:
    """The share of True, None where there is nothing to take a share of."""
    return proportion(int(np.sum(mask)), len(mask)) if len(mask) else None


def clean_figures(clean: CleanArrays, fpr: float, **measured: Any) -> Plain:
    """What the detector costs where nobody attacks, at the threshold for `fpr`. `measured`: figures that only whoever
    ran it knows (`ms_per_input`, `fit_seconds`), added as they are.

    `useful`: right and accepted. `false_rejects_wrong`: flags of misclassified inputs, no harm and no attack caught.
    """
    clean = clean.negatives
    threshold = clean.threshold(fpr)
    flagged, right = clean.score > threshold.value, clean.right
    return {
        "n": len(right),
        "accuracy": told(share(right)),
        "useful": told(share(right & ~flagged)),
        "false_alarms": told(share(flagged)),
        "false_rejects_right": told(share(flagged[right])),
        "false_rejects_wrong": told(share(flagged[~right])),
        "n_calibration": threshold.n_calibration,
        "threshold": threshold.value,
        **measured,
    }


def detection_row(clean: CleanArrays, attacked: AttackedArrays, fpr: float) -> Plain:
    """How the detector does against one attack, whose results are judged where the clean input was right.

    `fooled`: successful without the detector, of `n`. `success`: and accepted at `fpr`. The rest tells successful
    results from all clean inputs: `auroc` (`auroc_right_only`: from correctly classified ones alone), `tpr` at the
    thresholds of `RATES`, `fpr_at_95_tpr`, `average_precision` at the mixture that this test happens to be, `precision`
    at `PREVALENCES` of attacks among inputs, from the detection rate and the realised false-alarm rate at `fpr`.
    `failed_flagged`: flags among the attempts that fooled nobody. None where there is nothing to judge, or where the
    calibration inputs are too few for such a small rate. `surrogate`: there, and true, for an attack by the gradients
    of a stand-in. `held`: there for an attack that was not tried on what the classifier holds on its own: how many of
    the `n` that are.
    """
    fooled, scores = _successful(clean, attacked)
    tried = clean.right[attacked.row]
    caught, failed = scores[fooled], scores[tried & ~fooled]
    value, normal = clean.threshold(fpr).value, clean.negatives
    return {
        "threat": attacked.threat,
        "attack": attacked.attack,
        "norm": attacked.norm,
        "eps": attacked.eps,
        "n": int(tried.sum()),
        "fooled": told(share(fooled[tried])),
        "success": told(share((fooled & (scores <= value))[tried])),
        "auroc": told(auroc(normal.score, caught)) if len(caught) else None,
        "auroc_right_only": told(auroc(normal.score[normal.right], caught)) if len(caught) else None,
        "tpr": {f"{rate:g}": told(_rate(clean, caught, rate)) for rate in RATES},
        "fpr_at_95_tpr": _fpr_at_tpr(normal.score, caught, 0.95),
        "average_precision": _average_precision(normal.score, caught),
        "precision": _precision(normal.score, caught, value),
        "failed_flagged": told(rate_above(failed, value)) if len(failed) else None,
        "seconds": attacked.seconds,
        "effort": None if attacked.effort is None else {name: dict(spent) for name, spent in attacked.effort.items()},
        **({"surrogate": True} if attacked.surrogate else {}),
        **({} if attacked.held is None else {"held": int((tried & attacked.held).sum())}),
    }


def noise_row(clean: CleanArrays, changed: AttackedArrays, fpr: float) -> Plain:
    """Flags at `fpr` among harmless changes that kept the predicted label (threat N): of a detector that flags these as
    often as attacks it can only be said that it sees changes.
    """
    changed.wrong(clean)  # the same rows
    kept = changed.predicted == clean.predicted[changed.row]
    flagged = changed.score[kept] > clean.threshold(fpr).value
    return {
        "kind": changed.attack,
        "eps": changed.eps,
        "n": len(kept),
        "kept": int(kept.sum()),
        "flagged": told(share(flagged)),
    }


def means(clean: CleanArrays, attacked: Iterable[AttackedArrays], fpr: float, seed: int = 0) -> Plain:
    """By threat: `fooled`, `success` and `auroc` over all its attacks together, with intervals that count inputs, not
    attempts. A mean flatters (what counts is the worst attack, see `guarded_system`); it is for comparing with others'.
    """
    found: Plain = {}
    everything = list(attacked)
    for threat in ("Z", "T", "W", "Q"):
        own = [one for one in everything if one.threat == threat]
        judged = [(one, *_successful(clean, one), clean.right[one.row]) for one in own]
        if not any(tried.any() for *_, tried in judged):
            continue
        value = clean.threshold(fpr).value
        rows = np.concatenate([one.row[tried] for one, _, _, tried in judged])
        fooled = np.concatenate([mask[tried] for _, mask, _, tried in judged])
        scores = np.concatenate([score[tried] for _, _, score, tried in judged])
        passed = (fooled & (scores <= value)).astype(np.float64)
        normal = clean.negatives.score
        every = np.arange(len(normal)) + (
            0 if clean.others is None else len(clean.label)
        )  # other inputs, other clusters
        found[threat] = {
            "attacks": len(own),
            "fooled": told(clustered_mean(fooled.astype(np.float64), rows, seed=seed)),
            "success": told(clustered_mean(passed, rows, seed=seed)),
            "auroc": told(clustered_auroc(normal, every, scores[fooled], rows[fooled], seed=seed))
            if fooled.any()
            else None,
        }
    return found


def _successful(clean: CleanArrays, attacked: AttackedArrays) -> tuple[Mask, Array]:
    """(whether each result made a right label wrong, its score)."""
    return attacked.wrong(clean) & clean.right[attacked.row], scores_array(attacked.score)


def _rate(clean: CleanArrays, caught: Array, fpr: float) -> Estimate | None:
    if not len(caught) or math.ceil(1 / fpr) - 1 > len(clean.calibration_scores):
        return None
    return rate_above(caught, clean.threshold(fpr).value)


def _fpr_at_tpr(normal: Array, anomalous: Array, tpr: float) -> float | None:
    """The share of normal inputs flagged where the threshold is low enough to flag `tpr` of the anomalous ones."""
    if not len(anomalous):
        return None
    needed = math.ceil(tpr * len(anomalous) - 1e-9)
    return float((normal >= np.sort(anomalous)[len(anomalous) - needed]).mean())


def _average_precision(normal: Array, anomalous: Array) -> float | None:
    from sklearn.metrics import average_precision_score

    if not len(anomalous):
        return None
    truth = np.r_[np.zeros(len(normal)), np.ones(len(anomalous))]
    return float(average_precision_score(truth, np.r_[normal, anomalous]))


def _precision(normal: Array, anomalous: Array, threshold: float) -> Mapping[str, float | None]:
    """By Bayes' rule; None where nothing is flagged at all."""
    if not len(anomalous):
        return {f"{prevalence:g}": None for prevalence in PREVALENCES}
    true, false = float((anomalous > threshold).mean()), float((normal > threshold).mean())

    def precision(prevalence: float) -> float | None:
        flagged = prevalence * true + (1 - prevalence) * false
        return prevalence * true / flagged if flagged else None

    return {f"{prevalence:g}": precision(prevalence) for prevalence in PREVALENCES}


def detection_rows(clean: CleanArrays, attacked: Sequence[AttackedArrays], fpr: float) -> list[Plain]:
    """A row for each attack; changes that are none (threat N) left out."""
    return [detection_row(clean, one, fpr) for one in attacked if one.threat != "N"]
