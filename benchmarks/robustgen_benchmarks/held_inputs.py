"""Why do some detectors that were shown no attack hold inputs against attackers who know them?

`magnet` and `denoise-consistency` look at what the classifier says of an input and of what they rebuild of it. A wrong
label passes only where both answers go wrong together, or both nearly tie. Inputs that hold against `adaptive-standard`
are attacked once more, each answer by itself, by Auto-PGD: where the rebuilt one cannot be fooled alone, only a tie is
left to an attacker who knows both.

`conditional-gan` judges an input beside the class that the classifier predicts. Inputs that hold are attacked once more
by PGD on its score alone, beside each wrong class, whatever the classifier says: where none of them is accepted, the
discriminator itself holds.

    python -m robustgen_benchmarks.held_inputs --victim victim/ --detector magnet=magnet/ --out held_inputs.json

A row that is in the file already is not measured again.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from robustgen.attacks.apgd import APGD
from robustgen.attacks.passes import evaluated
from robustgen.attacks.pgd import PGD
from robustgen.data.load import load
from robustgen.detectors.base import Detector
from robustgen.detectors.calibrated import CalibratedDetector
from robustgen.detectors.conditional_gan import ConditionalGANDetector
from robustgen.detectors.denoise_consistency import DenoiseConsistencyDetector
from robustgen.detectors.magnet import MagNetDetector
from robustgen.evaluation.adaptive import evade, rejection_of
from robustgen.guard import Guard
from robustgen.metrics import proportion
from robustgen.models.load import load_model
from robustgen.objectives import Model, Rejection
from robustgen.threat import ThreatModel
from robustgen_benchmarks.behind_victim import options, places, right_ones
from robustgen_benchmarks.results_file import ResultsFile
from robustgen_benchmarks.victims import predictions


class Behind(nn.Module):
    """A classifier that sees what `rebuild` makes of an input: its logits, averaged over what is rebuilt."""

    def __init__(self, network: nn.Module, detector: Detector, rebuild: Callable[[Tensor], list[Tensor]]) -> None:
        super().__init__()
        self.network, self.detector, self.rebuild = network, detector, rebuild

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([self.network(back) for back in self.rebuild(x)]).mean(0)


@dataclass(frozen=True)
class AcceptBeside:
    """Make a detector accept the input beside the class `y`, whatever the classifier says."""

    rejection: Rejection

    def __call__(self, model: Model, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        score, accepted = self.rejection(x, y)
        return -score, accepted


def beside_wrong_classes(guard: Guard, x: Tensor, y: Tensor, classes: int, threat: ThreatModel, steps: int) -> Tensor:
    """(n,) whether the detector alone can be had to accept an input beside any wrong class."""
    objective = AcceptBeside(rejection_of(guard))
    passed = torch.zeros_like(y, dtype=torch.bool)
    for turn in range(1, classes):
        row = (~passed).nonzero()[:, 0]
        label = (y[row] + turn) % classes
        pgd = PGD(threat=threat, objective=objective, steps=steps, step_size=threat.eps / 10, restarts=2)
        moved = pgd(guard.classifier, x[row], label)
        with torch.no_grad():
            passed[row] = objective.rejection(moved, label)[1]
    return passed


def rebuilding(detector: Detector) -> Callable[[Tensor], list[Tensor]]:
    """What the detector's second answers are of. Exits for a detector that has none."""
    if isinstance(detector, MagNetDetector):
        return lambda x: [detector.reconstruct(x)]
    if isinstance(detector, DenoiseConsistencyDetector):
        return lambda x: [detector.denoised(x, noise) for noise in detector.drawn]
    sys.exit("it is for magnet and denoise-consistency, which rebuild inputs, and conditional-gan, which knows classes")


def measured(guard: Guard, x: Tensor, y: Tensor, eps: float, steps: int, seed: int) -> dict[str, Any]:
    """How many inputs hold, and how many of them can be fooled by one answer alone."""
    threat, began = ThreatModel("linf", eps), time.process_time()
    detector: Any = guard.members[0].detector
    with evaluated(guard, channels_last=True):
        found = evade(guard, x, y, threat, seed=seed)
        held = (~found.lost).nonzero()[:, 0]
        if isinstance(detector, ConditionalGANDetector):
            classes = guard.classifier(x[:1]).shape[1]
            passed = beside_wrong_classes(guard, x[held], y[held], classes, threat, steps)
            alone = {"the detector alone, beside any wrong class": int(passed.sum())}
        else:
            behind = Behind(guard.classifier, detector, rebuilding(detector))
            apgd = APGD(threat=threat, steps=steps, seed=seed)
            alone = {
                name: int((predictions(network, apgd(network, x[held], y[held])) != y[held]).sum()) if len(held) else 0
                for name, network in (("as it is", guard.classifier), ("rebuilt", behind))
            }
    return {
        "n": len(x),
        "success": proportion(int(found.lost.sum()), len(x))._asdict(),
        "held": len(held),
        "held_by_class": torch.bincount(y[held], minlength=int(y.max()) + 1).tolist(),
        "held_and_fooled_by": alone,
        "cpu_seconds": time.process_time() - began,
    }


def main() -> None:
    parser = options(__doc__, n=500)
    parser.add_argument("--eps", type=float, default=0.1)
    parser.add_argument("--steps", type=int, default=200, help="of Auto-PGD on one answer")
    given = parser.parse_args()
    torch.set_num_threads(1)
    source, victim = load(given.data), load_model(given.victim)
    x, y = right_ones(source, victim.network, given.n)
    command = (
        "python -m robustgen_benchmarks.held_inputs --victim VICTIM --detector NAME=PLACE "
        f"--data {source.spec.name} --eps {given.eps:g} --n {given.n} --steps {given.steps} --seed {given.seed}"
    )
    file = ResultsFile(given.out, command, data_sha256=source.spec.sha256, victim_sha256=victim.sha256)
    for name, place in places(given.detector).items():
        key = f"{name} {given.eps:g} {given.seed}"
        if key not in file.rows:
            guard = Guard(victim, CalibratedDetector.load(place))
            file.rows[key] = measured(guard, x, y, given.eps, given.steps, given.seed)
            file.save()
        sys.stdout.write(f"{key}: {file.rows[key]}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
