"""How few random cuts set an input apart."""

from __future__ import annotations

from typing import Any, final

import numpy as np
import torch
from torch import Tensor

from robustgen.data.rows import Rows
from robustgen.detectors.base import Detector
from robustgen.detectors.neighbours import kept_rows
from robustgen.errors import DataError, UsageError
from robustgen.training.descent import TrainingProgress

_MOST = 100_000  # training inputs to draw the trees' samples from


@final
class IsolationForestDetector(Detector):
    """2^(-mean depth / c): 0.5 for an input as deep in random trees as is usual, towards 1 for one set apart at once
    (Liu, Ting, Zhou 2008, equation 2).

    `trees`: how many; `samples`: training inputs in each, at most. scikit-learn grows the trees; they are kept as
    tensors and walked in torch. A step function of its input: without gradients. Its cuts do not depend on the unit of
    a column, so nothing is scaled.
    """

    differentiable = False
    scale = "none"

    feature: Tensor
    cut: Tensor
    below: Tensor
    above: Tensor
    depth: Tensor
    usual: Tensor

    def __init__(self, trees: int = 200, samples: int = 256, seed: int = 0) -> None:
        super().__init__()
        if trees < 1 or samples < 2:
            raise UsageError(f"a forest needs at least 1 tree of 2 samples, but {trees} and {samples} came")
        self.trees, self.samples, self.seed = trees, samples, seed
        for name in ("feature", "below", "above"):
            self.register_buffer(name, torch.empty(0, 0, dtype=torch.int64))
        for name in ("cut", "depth", "usual"):
            self.register_buffer(name, torch.empty(0, 0))

    def _fit(self, rows: Rows, progress: TrainingProgress | None) -> None:
        from sklearn.ensemble import IsolationForest

        x = kept_rows(rows, _MOST, self.seed).cpu().float().numpy()
        if len(x) < 2:
            raise DataError("an isolation forest needs at least 2 training inputs")
        samples = min(self.samples, len(x))
        grown = IsolationForest(n_estimators=self.trees, max_samples=samples, random_state=self.seed).fit(x).estimators_
        most = max(tree.tree_.node_count for tree in grown)

        def table(values: list[Any], fill: float) -> Tensor:
            rows = [np.pad(np.asarray(value), (0, most - len(value)), constant_values=fill) for value in values]
            return torch.from_numpy(np.stack(rows)).to(self._device)

        trees = [tree.tree_ for tree in grown]
        ends = [tree.children_left < 0 for tree in trees]
        stay = [np.arange(tree.node_count) for tree in trees]  # an end leads to itself
        self.feature = table([np.maximum(tree.feature, 0) for tree in trees], 0)
        # the largest float32 at or below a cut parts float32 inputs as the cut in float64 does
        cuts = [_down(tree.threshold) for tree in trees]
        self.cut = table(cuts, 0.0)
        self.below = table([np.where(e, s, t.children_left) for e, s, t in zip(ends, stay, trees, strict=True)], 0)
        self.above = table([np.where(e, s, t.children_right) for e, s, t in zip(ends, stay, trees, strict=True)], 0)
        depths = [tree.compute_node_depths() - 1 + _usual_depth(tree.n_node_samples) for tree in trees]
        self.depth = table([np.asarray(depth, np.float32) for depth in depths], 0.0)
        self.usual = torch.tensor(float(_usual_depth(np.array([samples]))[0]), device=self._device)

    def _score(self, x: Tensor, condition: Tensor | None) -> Tensor:
        flat, (trees, _) = x.flatten(1), self.feature.shape
        place = torch.zeros(len(flat), trees, dtype=torch.int64, device=flat.device)
        number = torch.arange(trees, device=flat.device).expand_as(place)
        cut = self.cut.to(flat.dtype)
        before = place - 1
        while not torch.equal(place, before):  # until all have come to an end, which leads to itself
            low = flat.gather(1, self.feature[number, place]) <= cut[number, place]
            before, place = place, torch.where(low, self.below[number, place], self.above[number, place])
        mean = self.depth.to(flat.dtype)[number, place].mean(1)
        return torch.exp2(-mean / self.usual.to(flat.dtype))


def _down(values: Any) -> Any:
    near = values.astype(np.float32)
    return np.where(near > values, np.nextafter(near, np.float32(-np.inf)), near)


def _usual_depth(n: Any) -> Any:
    """The mean depth of an unsuccessful search in a binary tree of n inputs (equation 1)."""
    n = np.asarray(n, np.float64)
    many = np.maximum(n, 2)
    usual = 2 * (np.log(many - 1) + np.euler_gamma) - 2 * (many - 1) / many
    return np.where(n > 2, usual, np.where(n == 2, 1.0, 0.0))
