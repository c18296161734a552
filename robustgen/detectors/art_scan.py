"""ART's subset scanning: the group of a layer's units that is most unusual together."""

from __future__ import annotations

from typing import Any, final

import numpy as np
import torch
from torch import Tensor

from robustgen.data.rows import Rows
from robustgen.detectors.art_layer import ArtLayer, art_detectors
from robustgen.detectors.neighbours import kept_rows
from robustgen.detectors.watching import WatchingDetector
from robustgen.errors import UsageError
from robustgen.training.descent import TrainingProgress

_SCORINGS = {"BerkJones": "bj", "HigherCriticism": "hc", "KolmarovSmirnov": "ks"}  # as ART spells them
_TOP = 0.5  # ART's largest p-value of a unit that it scans


@final
class SubsetScanningDetector(WatchingDetector):
    """ART's `SubsetScanningDetector`: each unit of a layer gets a p-value, the share of training inputs on which it is
    at least as high, and the score is that of the group of units whose p-values are together most surprising
    (McFowland, Speakman, Neill 2013; on activations Speakman et al. 2018). 0 where no unit is in the upper half, on
    which ART stops with an error.

    `layer`: a module of the classifier, "first" or "last" = that activation, with all its places. On a small network
    for Fashion-MNIST the last one told PGD up to eps 0.1 apart no better than chance, and the first one did.
    `scoring_function`: what surprise is, one of ART's BerkJones, HigherCriticism and KolmarovSmirnov. `most`: training
    inputs that p-values are of, drawn by `seed`; their activations, sorted unit by unit, are the state: for 500 inputs
    50 MB where a layer gives 25,000 values. ART's own threshold, the highest score of a training input, is not used.

    Scores have no gradient. Inputs go through the classifier one at a time, which on a small network costs several
    times what a batch does: a score depends on the order of activations, and another batch may round them otherwise.
    """

    differentiable = False

    ranked: Tensor

    def __init__(
        self, layer: str = "first", scoring_function: str = "BerkJones", most: int = 500, seed: int = 0
    ) -> None:
        super().__init__()
        if scoring_function not in _SCORINGS:
            raise UsageError(f"scoring_function is one of {', '.join(_SCORINGS)}, but {scoring_function!r} came")
        if most < 2:
            raise UsageError(f"p-values need at least 2 training inputs, but most={most} came")
        self.layer, self.scoring_function, self.most, self.seed = layer, scoring_function, most, seed
        self._scanning: Any = None
        self.register_buffer("ranked", torch.empty(0, 0))

    def _build(self, shape: tuple[int, ...]) -> None:
        self._seen = ArtLayer(self.classifier, self.layer, self._device)
        self._scanning = None

    def _fit(self, rows: Rows, progress: TrainingProgress | None) -> None:
        kept = kept_rows(rows, self.most, self.seed).reshape(-1, *rows.shape)
        with torch.no_grad():
            self.logits(kept[:8].to(self._device))
        activations = self._seen.get_activations(kept.cpu().numpy(), self._seen.name, batch_size=128)
        ranked = torch.from_numpy(np.sort(activations.reshape(len(activations), -1), axis=0))
        self.ranked = ranked.to(self._device)

    def _score(self, x: Tensor, condition: Tensor | None) -> Tensor:
        if not len(x):
            return x.new_zeros(0)
        if self._scanning is None:
            self._scanning = self._scan()
        detector, scan = self._scanning
        ranges = detector._calculate_pvalue_ranges(x.detach().cpu().numpy(), batch_size=1)
        found = [scan(one, score_function=detector.scoring_function)[0] if _any(one) else 0.0 for one in ranges]
        return torch.tensor(found, dtype=x.dtype, device=x.device)

    def _scan(self) -> tuple[Any, Any]:
        """ART's detector with our state in it, and its scan.

        Its constructor scans the training inputs for a threshold, and stops on one without a unit in the upper half.
        """
        kind = art_detectors().SubsetScanningDetector
        from art.defences.detector.evasion.subsetscanning.scanner import Scanner
        from art.defences.detector.evasion.subsetscanning.scoring_functions import ScoringFunctions

        detector = object.__new__(kind)
        detector.classifier, detector._layer_name, detector.verbose = self._seen, self._seen.name, False
        detector.scoring_function = getattr(ScoringFunctions, f"get_score_{_SCORINGS[self.scoring_function]}_fast")
        detector.sorted_bgd_activations = self.ranked.cpu().numpy()
        return detector, Scanner.fgss_individ_for_nets


def _any(ranges: Any) -> bool:
    return bool((ranges[:, 1] <= _TOP).any())
