"""A classifier and calibrated detectors as one system: it classifies an input, or rejects it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, cast, final

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from robustgen.attacks.passes import evaluated
from robustgen.calibration import Threshold, calibrate, p_values
from robustgen.data.source import Source
from robustgen.detectors.attribution import attribute, occlusion
from robustgen.detectors.calibrated import CalibratedDetector
from robustgen.errors import ArtifactError, DataError, RobustgenError, UsageError
from robustgen.guard.channel import Channel, Member
from robustgen.guard.combine import Combine, in_order
from robustgen.guard.given import NORMAL, Detectors, as_loaded, as_threshold, by_channel, one_form, precision_of
from robustgen.guard.in_turn import in_turn
from robustgen.guard.said import GuardOutput, GuardVerdicts
from robustgen.metrics import Array
from robustgen.models.load import LoadedModel
from robustgen.recall import recalled
from robustgen.runtime import seeded

_AT_ONCE = 500
_KEY = "channel_"
"""Before a channel's name among the modules, where names such as "training" are taken."""


@final
class Guard(nn.Module):
    """Classify or reject: an input is accepted if its score is at most `threshold.value`.

    Of one detector the score is its own, and `threshold` by default the one it was calibrated with. Several are brought
    to p-values on held-out normal inputs, combined within their channel (`within`, see `Combine`) and then across
    channels (`across`; "or" rejects what one channel alone finds suspicious enough, `shares` say what part of the false
    alarms each channel may cause, by name, None = all the same); `calibrate` or `Guard.fit` does that, and takes the
    threshold from other held-out inputs, so that the false-alarm rate is guaranteed whatever the
    combination. A plain number as `threshold` is a score, of one detector.

    >>> guard = Guard(classifier, detector)  # doctest: +SKIP
    >>> logits, score, accepted = guard(x)  # doctest: +SKIP

    Raises `UsageError` for detectors that were fitted with another classifier or on data of another form, and for
    what is no fitted detector or no threshold.
    """

    def __init__(
        self,
        classifier: LoadedModel | nn.Module,
        detectors: Detectors,
        threshold: Threshold | float | None = None,
        *,
        within: str = "fisher",
        across: str = "or",
        shares: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__()
        self.loaded = classifier if isinstance(classifier, LoadedModel) else as_loaded(classifier)
        self.classifier, self.within = self.loaded.network, within
        grouped = by_channel(detectors)
        everyone = [fitted for members in grouped.values() for fitted in members]
        self.spec = one_form(everyone)
        self.channels = nn.ModuleDict(
            {
                _KEY + name: Channel([Member(fitted, self.loaded) for fitted in parts], within)
                for name, parts in grouped.items()
            }
        )
        self.across = Combine(across, len(grouped), None if shares is None else in_order(shares, grouped))
        self.single = len(everyone) == 1
        self._threshold: Threshold | None = None
        self._watched = set[str]()  # layers of the classifier that members have asked for
        self.calibration_scores: Array = np.zeros(0)
        if self.single:
            self.calibration_scores = everyone[0].calibration_scores
            self._threshold = everyone[0].threshold
            if threshold is not None:
                self._threshold = as_threshold(threshold, self.calibration_scores)
        elif threshold is not None:
            raise UsageError(
                "a guard of several detectors has a score of its own, whose threshold is not known beforehand: leave "
                "threshold out and use Guard.fit, or calibrate(source, fpr)"
            )

    @classmethod
    def fit(
        cls,
        classifier: LoadedModel | nn.Module,
        detectors: Detectors,
        source: Source,
        *,
        fpr: float = 0.05,
        within: str = "fisher",
        across: str = "or",
        shares: Mapping[str, float] | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> Guard:
        """A guard calibrated on the source's calibration split: see `calibrate`."""
        made = cls(classifier, detectors, within=within, across=across, shares=shares)
        return made.calibrate(source, fpr, progress)

    def calibrate(self, source: Source, fpr: float = 0.05, progress: Callable[[int], None] | None = None) -> Guard:
        """Learn p-values from every second input of the source's calibration split and the threshold from the others,
        and return self. At most a share `fpr` of normal inputs is then rejected, in expectation. A guard of one
        detector takes its threshold from all of them.

        `progress` is called with the number of inputs just scored. Raises `DataError` for data of another form, or too
        few of them for such a rate.
        """
        if source.spec.shape != self.spec.shape:
            raise DataError(
                f"the detectors judge inputs of shape {self.spec.shape}, and those of {source.spec.name!r} have "
                f"{source.spec.shape}"
            )
        rows = source.rows("calibration")
        calibrate(np.arange(len(rows) if self.single else len(rows) // 2), fpr)  # too few are told of now
        with torch.no_grad():
            scores = self._raw(source, rows, progress)
            if self.single:
                found = scores[0][0]
            else:
                first, second = ([part[:, start::2] for part in scores] for start in (0, 1))
                for channel, part in zip(self.parts.values(), first, strict=True):
                    channel.prepare(part)
                self.across.prepare(self._together(first))
                found = self.across(self._together(second))
        held = np.sort(found.double().cpu().numpy())
        if not np.isfinite(held).all():
            raise DataError(f"scores of held-out inputs of {source.spec.name!r} are NaN or infinite: fit again")
        self.take(held, calibrate(held, fpr))
        return self

    def take(self, calibration_scores: Array, threshold: Threshold) -> None:
        """Use this threshold, and these sorted scores of normal inputs for p-values."""
        self.calibration_scores, self._threshold = calibration_scores, threshold

    def _raw(self, source: Source, rows: Any, progress: Callable[[int], None] | None) -> list[Tensor]:
        """The members' own scores of inputs, (k, n) for each channel."""
        parts: list[list[Tensor]] = []
        for start in range(0, len(rows), _AT_ONCE):
            x = source.read(rows[start : start + _AT_ONCE]).x.to(self.device)
            with recalled(self.classifier, self._watched):
                label = self.classifier(x).argmax(1)
                parts.append([channel.scores(x, label) for channel in self.parts.values()])
            if progress is not None:
                progress(len(x))
        return [torch.cat(part, 1) for part in zip(*parts, strict=True)]

    @property
    def parts(self) -> dict[str, Channel]:
        """Its channels by name."""
        return {name.removeprefix(_KEY): cast(Channel, channel) for name, channel in self.channels.items()}

    def _together(self, scores: list[Tensor]) -> Tensor:
        """(channels, n) -log p."""
        pairs = zip(self.parts.values(), scores, strict=True)
        return torch.stack([channel.together(part) for channel, part in pairs])

    def evidence(self, x: Float[Tensor, "n *shape"], label: Int64[Tensor, " n"]) -> dict[str, Float[Tensor, " n"]]:
        """-log p by channel of inputs judged against labels; of a guard of one detector, its score."""
        _ = self.threshold
        if self.single:
            return {name: channel.scores(x, label)[0] for name, channel in self.parts.items()}
        return {name: channel.together(channel.scores(x, label)) for name, channel in self.parts.items()}

    def score(self, x: Float[Tensor, "n *shape"], label: Int64[Tensor, " n"] | None = None) -> Float[Tensor, " n"]:
        """How suspicious inputs are, differentiable in `x`; a row's score does not depend on the rows beside it.

        `label`: the classes they are judged against, for members that know classes; None = those predicted. Raises
        `RobustgenError` before calibration.
        """
        with recalled(self.classifier, self._watched):
            return self._joined(self.evidence(x, self.classifier(x).argmax(1) if label is None else label))

    def rejecting(self, x: Float[Tensor, "n *shape"], label: Int64[Tensor, " n"] | None = None) -> Float[Tensor, " n"]:
        """`score` as far as a verdict needs it, for attackers' searches: the same wherever the guard accepts; what it
        rejects scores above the threshold too, but maybe less than by `score`, since under "or" the channels are asked
        `in_turn`. Gradients lead out of one channel after another.
        """
        if self.single or self.across.how != "or":
            return self.score(x, label)
        with recalled(self.classifier, self._watched):
            label = self.classifier(x).argmax(1) if label is None else label
            return in_turn(list(self.parts.values()), self.across, self.accepts, x, label)

    def _joined(self, evidence: Mapping[str, Tensor]) -> Tensor:
        parts = torch.stack(list(evidence.values()))
        found: Tensor = parts[0] if self.single else self.across(parts)
        return found

    def forward(self, x: Float[Tensor, "n *shape"]) -> GuardOutput:
        self._check(x)
        with recalled(self.classifier, self._watched):
            logits = self.classifier(x)
            score = self._joined(self.evidence(x, logits.argmax(1)))
        return GuardOutput(logits, score, self.accepts(score))

    def accepts(self, score: Float[Tensor, " n"]) -> Bool[Tensor, " n"]:
        """Which scores lead to acceptance; one that is not a number does not."""
        return score.double() <= self.threshold.value

    def judge(self, x: Float[Tensor, "n *shape"]) -> GuardVerdicts:
        """Predicted classes, scores, p-values and verdicts. An input that holds NaN or infinite values is rejected with
        the smallest p-value there is, by all channels.
        """
        x = x.to(self.device)
        self._check(x)
        whole = torch.isfinite(x).flatten(1).all(1)
        if not whole.all():  # not every member takes them
            x = torch.where(whole.reshape(-1, *[1] * (x.dim() - 1)), x, 0.0)
        label, score, evidence = self._seen(x)
        known = whole & ~score.isnan()
        score = torch.where(known, score, torch.inf)
        evidence = {name: torch.where(known, part, torch.inf) for name, part in evidence.items()}
        flagged = ~self.accepts(score)
        apart = self.across.each(torch.stack(list(evidence.values())))
        fires = (apart.double() > self.threshold.value) | (apart == apart.amax(0))
        names = [
            "+".join(name for name, fired in zip(evidence, row, strict=True) if fired) if out else NORMAL
            for row, out in zip(fires.T.tolist(), flagged.tolist(), strict=True)
        ]
        scores = score.double().cpu().numpy()
        return GuardVerdicts(
            label.cpu().numpy(),
            scores,
            self._p_values(scores),
            flagged.cpu().numpy(),
            names,
            {name: part.double().cpu().numpy() for name, part in evidence.items()},
        )

    def _seen(self, x: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """(predicted classes (n,), score (n,), evidence by channel, each (n,)); of no inputs nothing is asked."""
        if not len(x):
            nothing = x.new_zeros(0)
            return nothing.long(), nothing, dict.fromkeys(self.parts, nothing)
        with torch.no_grad(), recalled(self.classifier, self._watched):
            label = self.classifier(x).argmax(1)
            evidence = self.evidence(x, label)
            return label, self._joined(evidence), evidence

    def _p_values(self, scores: Array) -> Array:
        """Of an infinite score the smallest there is; of no scores none."""
        largest = np.finfo(np.float64).max
        return p_values(scores.clip(-largest, largest), self.calibration_scores) if len(scores) else np.zeros(0)

    def _check(self, x: Tensor) -> None:
        """Raise `UsageError` for inputs of another form or precision than the classifier's."""
        if x.shape[1:] != self.spec.shape:
            raise UsageError(
                f"this guard judges inputs of shape (n, {', '.join(map(str, self.spec.shape))}), but {tuple(x.shape)} "
                "came"
            )
        precision = precision_of(self.classifier)
        if x.dtype != precision and not torch.is_autocast_enabled(x.device.type):
            raise UsageError(f"this guard's classifier computes in {precision}, but {x.dtype} came: x.to({precision})")

    def explain(self, x: Float[Tensor, "n *shape"]) -> Float[Tensor, "n *shape"]:
        """How much each value of an input adds to its score above the median training input's: see `attribute`, and
        `occlusion` for members without gradients. The result carries no gradient.
        """
        x, usual = x.to(self.device), self.usual
        if usual is None:
            raise ArtifactError("this guard's detectors were fitted before explanations were known: fit them again")
        start = usual.to(x)
        if self.differentiable:
            return attribute(self.score, x.detach(), start.expand_as(x))
        with torch.no_grad():
            return occlusion(self.score, x, start)

    @property
    def usual(self) -> Tensor | None:
        """The median training input (*shape)."""
        return self.members[0].usual

    def class_name(self, label: int) -> str:
        """What the classifier's class is called: by its data's names, else its number."""
        names = self.loaded.spec.classes if self.loaded.spec is not None else self.spec.classes
        return names[label] if label < len(names) else str(label)

    @property
    def threshold(self) -> Threshold:
        """An input is rejected when its score is above this one's value. Raises `RobustgenError` before calibration."""
        if self._threshold is None:
            raise RobustgenError("this guard is not calibrated: use Guard.fit, or call calibrate(source, fpr)")
        return self._threshold

    @property
    def shares(self) -> dict[str, float] | None:
        """What part of the false alarms each channel may cause, in all 1; None if channels are not joined by "or"."""
        parts = (self.across.weights / self.across.weights.sum()).tolist()
        return dict(zip(self.parts, parts, strict=True)) if self.across.how == "or" else None

    @property
    def members(self) -> list[CalibratedDetector]:
        """Its detectors, channel by channel."""
        return [member.fitted for channel in self.parts.values() for member in channel.everyone]

    @property
    def differentiable(self) -> bool:
        """Whether every member's score has gradients."""
        return all(member.detector.differentiable for member in self.members)

    @property
    def random(self) -> bool:
        """Whether a member may score the same input differently twice, or the classifier answer it differently."""
        return any(member.detector.random for member in self.members) or self.random_classifier

    @cached_property
    def random_classifier(self) -> bool:
        """Whether the classifier answers the same inputs differently twice: it is asked about eight, made up, once."""
        low, high = self.spec.low, self.spec.high
        made = torch.rand(8, *self.spec.shape, generator=torch.Generator().manual_seed(0))
        x = low + (high - low) * made if math.isfinite(high - low) else 4 * made - 2
        x = x.to(self.device, precision_of(self.classifier))
        with torch.no_grad(), evaluated(self.classifier), seeded(0):
            first, second = self.classifier(x), self.classifier(x.clone())  # not the same tensor: it might be recalled
        slack = 1e-4 * float(torch.nan_to_num(first).abs().amax())  # a device may add up in another order
        return not torch.allclose(first, second, rtol=0.0, atol=slack, equal_nan=True)

    @property
    def name(self) -> str:
        """Its detectors' names, those of a channel joined by "+", channels by "|"."""
        return "|".join("+".join(m.name for m in channel.everyone) for channel in self.parts.values())

    @property
    def device(self) -> torch.device:
        return next((p.device for p in self.classifier.parameters()), self.members[0].device)

    def at(self, fpr: float) -> Guard:
        """The same guard, sharing its parts, with the threshold for another false-alarm rate. Raises `RobustgenError`
        before calibration.
        """
        _ = self.threshold
        other = Guard.__new__(Guard)
        other.__dict__ = dict(self.__dict__)
        other._threshold = calibrate(self.calibration_scores, fpr)
        return other

    def summary(self) -> dict[str, Any]:
        """What is known of it, as plain values for JSON."""
        threshold = self.threshold
        return {
            "detector": self.name,
            "classifier": self.loaded.origin,
            "channels": {
                name: [member.fitted.summary() for member in channel.everyone] for name, channel in self.parts.items()
            },
            "within": self.within,
            "across": self.across.how,
            "shares": self.shares,
            "weights": {name: channel.combine.weights.tolist() for name, channel in self.parts.items()},
            "data": self.spec.name,
            "fpr": threshold.fpr,
            "threshold": threshold.value,
            "n_calibration": threshold.n_calibration,
            "differentiable": self.differentiable,
        }

    def save(self, directory: Path) -> None:
        """Write everything needed to judge again into `directory`, a staged one: one artifact, its detectors inside."""
        from robustgen.guard.saved import save

        save(self, directory)

    @staticmethod
    def load(path: Path | str, model: LoadedModel | None = None) -> Guard:
        """Read a saved guard. `model`: its classifier, if that was your own code and is not stored with it.

        Raises `ArtifactError` if the artifact is damaged, `UsageError` if another classifier is given.
        """
        from robustgen.guard.saved import load

        return load(Path(path), model)
