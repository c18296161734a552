"""Does a guard's score give an attacker something to follow? Measured on the score alone, without attacks.

After Athalye, Carlini, Wagner 2018, "Obfuscated gradients give a false sense of security": gradients that are
shattered, vanish or are drawn at random make a weak detector look strong, and so do scores that hide what they
depend on.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from robustgen.evaluation.check import Check
from robustgen.guard import Guard
from robustgen.randomness import sample_keys, uniform
from robustgen.runtime import seeded
from robustgen.threat import ThreatModel

_MOST = 32  # inputs that are looked at where no more is asked than whether gradients lead
_DIRECTIONS = 16
_DRAWS = 10
_AGREES = 0.9  # cosine between the slopes that gradients promise and those that are there
_MOSTLY = 0.75  # of the points must agree: an inner optimum held fixed (likelihood regret) has a few that do not
_LED = 0.5  # likewise over a step of an attack, where the score may bend


@dataclass
class ScoreProbe:
    """A guard's score around a few inputs: `x` (n, *shape), `pushed` (n, *shape), adversarial ones of the classifier
    within `threat`, and others made of `x`. `eot`: draws that attacks average. `step`: of an attack, in input units.
    """

    guard: Guard
    threat: ThreatModel
    x: Tensor
    pushed: Tensor
    step: float
    eot: int = 1

    def checks(self) -> list[Check]:
        """All of them."""
        return [
            self.steady(),
            self.alone_or_together(),
            self.values(),
            self.gradient(),
            self.fine_differences(),
            self.coarse_differences(),
        ]

    @cached_property
    def points(self) -> Tensor:
        """Clean inputs, others at random in the ball, adversarial ones, and ones far away, (4n, *shape)."""
        keys = sample_keys(self.x, 0)
        near = self.threat.sample(self.x, keys)
        low, high = _ends(self.threat, self.x)
        noise = low + (high - low) * uniform(keys, tuple(self.x.shape[1:]), 7).to(self.x.dtype)
        return torch.cat([self.x, near, self.pushed, (self.x + noise) / 2])

    @cached_property
    def labels(self) -> Tensor:
        """What the classifier says at the points, held fixed while they move."""
        with torch.no_grad():
            return _split(lambda x: self.guard.classifier(x).argmax(1), self.points)

    @cached_property
    def scores(self) -> Tensor:
        return self.score(self.points, self.labels)

    @cached_property
    def spread(self) -> float:
        """Of the scores of normal inputs: from their median to the threshold, a unit that an attacker has to bridge."""
        held = torch.from_numpy(self.guard.calibration_scores)
        threshold = self.guard.threshold
        reach = 0.0 if threshold is None else threshold.value - float(held.median())
        return reach if reach > 0 else float(held.std(correction=0)) or 1.0

    def score(self, x: Tensor, label: Tensor) -> Tensor:
        with torch.no_grad():
            return _split(self.guard.score, x, label)

    def steady(self) -> Check:
        """The same input scored again, the global random state set differently."""
        draws = []
        before = torch.get_rng_state()
        for seed in range(_DRAWS):
            with seeded(seed):
                state = torch.get_rng_state()
                draws.append(self.score(self.x, self.labels[: len(self.x)]))
                touched = not torch.equal(state, torch.get_rng_state())
        assert torch.equal(before, torch.get_rng_state())
        deviation = self._apart(draws[0], torch.stack(draws).double().std(0, correction=0) + draws[0])
        needed = max(1, math.ceil((deviation / 0.1) ** 2))
        found = f"in {_DRAWS} calls on the same inputs the score deviates by up to {deviation:.2g} of its spread"
        if deviation > 1e-4:
            found += f"; the mean of {needed} draws would be steady to a tenth, and attacks average {self.eot}"
        elif touched:
            found += ", but every call moves the global random state"
        return Check(
            "steady-score",
            (deviation <= 1e-4 and not touched) or (self.guard.random and self.eot >= needed),
            found,
            "a score that is drawn at random misleads an attack that sees one draw of it: declare it random, and let "
            "attacks average as many draws as it takes (EOT)",
        )

    def alone_or_together(self) -> Check:
        """A row by itself, in its batch, and in the batch turned round."""
        n = min(16, len(self.x))
        rows, labels = self.points[:: max(1, len(self.points) // n)], self.labels[:: max(1, len(self.points) // n)]
        together = self.score(rows, labels)
        alone = torch.cat([self.score(rows[k : k + 1], labels[k : k + 1]) for k in range(len(rows))])
        turned = self.score(rows.flip(0), labels.flip(0)).flip(0)
        change = self._apart(together, torch.stack([alone, turned]))
        if self.guard.random:
            found = "the score is declared random, so that one row cannot be compared with itself"
        else:
            found = (
                f"a row alone, in its batch, and in another order: scores differ by up to {change:.2g} of their spread"
            )
        return Check(
            "alone-or-together",
            None if self.guard.random else change <= 1e-3,
            found,
            "a score that depends on the rows beside it, or on a row's place among them, hides a seed or a batch "
            "statistic from the attacker: an attack that runs in other batches aims at another score",
        )

    def _apart(self, score: Tensor, others: Tensor) -> float:
        """The largest difference, in spreads; of scores far above these, whose digits end sooner, in tenths of
        themselves.
        """
        return float(((others - score).abs() / (self.spread + 0.1 * score.abs())).amax())

    def values(self) -> Check:
        """Whether scores tell inputs apart."""
        scores, n = self.scores, len(self.scores)
        distinct = len(scores.unique())
        top, bottom = ((scores == end).sum().item() for end in (scores.max(), scores.min()))
        tied = max(top, bottom)
        fine = distinct >= n / 2 and (tied < 3 or tied <= 0.02 * n)
        return Check(
            "score-values",
            None if not fine and not self.guard.differentiable else fine,
            f"{distinct} different scores at {n} points, {top} of them at the highest and {bottom} at the lowest",
            "a score that is constant, in steps (quantised, an argmax) or stuck at an end (saturated, clipped) does "
            "not say which way acceptance lies: attack what it is made of (BPDA, the value before the step), or by "
            "queries",
        )

    @cached_property
    def slopes(self) -> Tensor:
        """Gradients at the points, as an attack sees them: NaN where there is none."""
        return _split(lambda x, label: _slopes(self.guard.score, x, label), self.points, self.labels)

    def gradient(self) -> Check:
        """At clean, random, adversarial and far points."""
        flat = self.slopes.flatten(1)
        finite = flat.isfinite().all(1)
        moves = finite & (flat.nan_to_num() != 0).any(1)
        lacking, n = int((~moves).sum()), len(moves)
        return Check(
            "score-gradient",
            self._with_gradients(lacking <= 0.01 * n),
            f"at {lacking} of {n} points the gradient of the score is zero everywhere or not finite"
            + ("" if self.guard.differentiable else ", and the guard says so"),
            "gradient attacks cannot lower such a score, and it may look strong without being so (a detached, rounded, "
            "saturated or vanishing step): use a stand-in gradient (BPDA) or queries",
        )

    def fine_differences(self) -> Check:
        """Slopes over a step so small that rounding alone matters."""
        score, points, h = self._precise()
        cosine, share = self._agreement(score, points, h)
        agrees = (cosine > _AGREES).double().mean().item()
        exact = "float64" if points.dtype == torch.float64 else "float32"
        found = (
            f"gradients agree with differences over {h:.1g} ({exact}) at {100 * agrees:.0f}% of {len(cosine)} points, "
            f"median cosine {cosine.median().item():.3f} along {_DIRECTIONS} random directions, {share:.2f} of the "
            "promised change along the gradient"
        )
        stand_in = any(getattr(member.detector, "surrogate", False) for member in self.guard.members)
        if stand_in:
            found += "; the gradient is declared to be a stand-in"
        passed = self._with_gradients(agrees >= _MOSTLY and 0.8 < share < 1.25)
        return Check(
            "finite-differences",
            None if stand_in else passed,
            found,
            "the gradient is not that of the score, so that attacks that follow it go astray: look for a step whose "
            "gradient is replaced, scaled or left out, or for noise; kinks (ReLU, max) are met by too few to show",
        )

    def coarse_differences(self) -> Check:
        """Slopes over a step that an attack takes."""
        middle, share = self.over_a_step(self.guard.score)
        return Check(
            "led-by-gradient",
            self._with_gradients(_led(middle, share)),
            f"over an attack's step of {self.step:.2g}, gradients and differences have a median cosine of {middle:.3f} "
            f"along {_DIRECTIONS} random directions, and a step along the gradient changes the score by {share:.2f} of "
            "what it promises",
            "the gradient says nothing of what the score does a step away (shattered gradients): average it over a "
            "neighbourhood, or follow the score without its finest part (BPDA)",
        )

    def over_a_step(self, score: Callable[..., Tensor]) -> tuple[float, float]:
        """(median cosine of gradients and differences over a step, share of the promised change along the gradient)."""
        cosine, share = self._agreement(score, self.points, self.step)
        return cosine.median().item(), share

    def _with_gradients(self, passed: bool) -> bool | None:
        return passed if self.guard.differentiable else None

    def _agreement(self, score: Callable[..., Tensor], points: Tensor, h: float) -> tuple[Tensor, float]:
        """(m,) the cosine between the slopes promised and found along random directions, and the median share of the
        promised change that is found along the gradient's sign.
        """
        m, shape = len(points), tuple(points.shape[1:])
        slopes = _split(lambda x, label: _slopes(score, x, label), points, self.labels).nan_to_num()
        keys = sample_keys(points, 1)
        promised, found = [], []
        for number in range(_DIRECTIONS + 1):
            way = (uniform(keys, shape, number) < 0.5).to(points.dtype) * 2 - 1 if number else slopes.sign()
            with torch.no_grad():
                ahead = _split(score, points + h * way, self.labels)
                found.append((ahead - _split(score, points - h * way, self.labels)) / (2 * h))
            promised.append((slopes * way).reshape(m, -1).sum(1))
        along, ahead = promised.pop(0), found.pop(0)
        share = torch.where(along > 0, ahead / along.clamp(min=1e-300), 0).nan_to_num().median().item()
        a, b = torch.stack(promised, 1).double(), torch.stack(found, 1).double().nan_to_num()
        cosine = (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1)).clamp(min=1e-300)
        return cosine, share

    def _precise(self) -> tuple[Callable[..., Tensor], Tensor, float]:
        """(score, points, the step for differences), in float64 where the guard can be had in it."""
        low, high = _ends(self.threat, self.x)
        try:
            exact: Any = copy.deepcopy(self.guard).double()
            points = self.points.double()
            with torch.no_grad():
                alike = (_split(exact.score, points, self.labels) - self.scores).abs().amax().item()
            if alike <= 1e-2 * self.spread and exact.score(points[:1], self.labels[:1]).dtype == torch.float64:
                return exact.score, points, 1e-6 * (high - low)
        except (RuntimeError, TypeError):  # a step that knows float32 alone
            pass
        return self.guard.score, self.points, 1e-3 * (high - low)


def step_of(threat: ThreatModel, span: float, steps: int = 40) -> float:
    """How far an attack of so many steps goes in one, in input units; `span`: of the box."""
    return min(2.5 * threat.eps / steps, 0.02 * span)


def misleads(guard: Any, threat: ThreatModel, x: Tensor, x_adv: Tensor, score: Callable[..., Tensor]) -> bool:
    """Whether the gradient of `score` says nothing of what its value does a step of an attack away, as the check
    `led-by-gradient` asks, around `x` (n, *shape) and the points `x_adv` that attacks on `guard` came to; of at most 32
    inputs.
    """
    row = torch.linspace(0, len(x) - 1, min(_MOST, len(x)), device=x.device).round().long()
    low, high = _ends(threat, x)
    probe = ScoreProbe(guard, threat, x[row], x_adv[row], step_of(threat, high - low))
    return not _led(*probe.over_a_step(score))


def _led(cosine: float, share: float) -> bool:
    return cosine > _LED and share > 0.1


def _slopes(score: Callable[..., Tensor], x: Tensor, label: Tensor) -> Tensor:
    """The gradient of each row's score, NaN where the score has none."""
    x = x.detach().clone().requires_grad_()
    with torch.enable_grad():
        value = score(x, label)
        if not value.requires_grad:
            return torch.full_like(x, torch.nan)
        found = torch.autograd.grad(value.sum(), x, allow_unused=True)[0]
    return torch.full_like(x, torch.nan) if found is None else found.detach()


def _split(function: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
    return torch.cat([function(*parts) for parts in zip(*(value.split(250) for value in inputs), strict=True)])


def _ends(threat: ThreatModel, x: Tensor) -> tuple[float, float]:
    """The box, or where it is infinite the range of the inputs."""
    low = threat.low if math.isfinite(threat.low) else x.min().item()
    high = threat.high if math.isfinite(threat.high) else x.max().item()
    return low, high
