"""How `apgd_traces.npz` was made: every point at which the authors' Auto-PGD looks, on a small smooth model.

Usage: python apgd_traces.py AUTO_ATTACK_CHECKOUT (github.com/fra31/auto-attack, commit of 2023-01-09), with robustgen
on the path. All in double precision; the authors' random numbers are replaced by robustgen's, so that both start alike.
In L2 the box is out of reach, since there the authors clip to it after the ball instead of projecting onto both. In L1
their count of changed values leaves out those that differ by rounding alone, as ours then must in the test.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor

from robustgen.randomness import normal, sample_keys, uniform

STEPS, ROWS, VALUES, CLASSES = 30, 3, 16, 4
CASES = {
    "linf-ce": ("Linf", 0.05, "ce", False),
    "linf-dlr": ("Linf", 0.05, "dlr", False),
    "linf-t": ("Linf", 0.02, "t", False),
    "l2-ce": ("L2", 0.1, "ce", False),
    "l1-ce": ("L1", 0.3, "ce", False),
    "l1-wide-ce": ("L1", 0.3, "ce", True),
}


def main(checkout: str) -> None:
    sys.path.insert(0, checkout)
    program = importlib.import_module("autoattack.autopgd_base")
    generator = torch.Generator().manual_seed(3)
    first = torch.randn(VALUES, 24, generator=generator).double() / 2
    second = torch.randn(24, CLASSES, generator=generator).double()
    x = (0.3 + 0.4 * torch.rand(ROWS, VALUES, generator=generator)).double()
    x[:, ::4] = 0.01  # near a wall, except in L2
    arrays = {"first": first, "second": second, "x": x}
    for name, (norm, eps, loss, wide) in CASES.items():
        start = x.clamp(min=0.3) if norm == "L2" else x
        arrays[name] = trace(program, first, second, start, norm, eps, loss, wide)
        arrays[f"{name}-x"] = start
    np.savez_compressed(Path(__file__).with_suffix(".npz"), **{name: value.numpy() for name, value in arrays.items()})


def trace(
    program: object, first: Tensor, second: Tensor, x: Tensor, norm: str, eps: float, loss: str, wide: bool
) -> Tensor:
    """(looks, n, values) the points shown, without the clean ones."""
    seen: list[Tensor] = []

    def model(point: Tensor) -> Tensor:
        seen.append(point.detach().clone())
        return torch.tanh(point @ first) @ second

    keys, shape = sample_keys(x, 0), tuple(x.shape[1:])
    kwargs = {"n_iter": STEPS, "norm": norm, "eps": eps, "seed": 0, "use_largereps": wide, "device": x.device}
    if loss == "t":
        attack = program.APGDAttack_targeted(model, n_target_classes=CLASSES - 1, **kwargs)  # type: ignore[attr-defined]
    else:
        attack = program.APGDAttack(model, loss=loss, **kwargs)  # type: ignore[attr-defined]
    flat = [uniform(keys, shape, stream).double() for stream in range(CLASSES - 1)]
    bell = normal(keys, shape).double()
    torch.set_default_dtype(torch.float64)
    y = model(x).argmax(1)
    with (
        patch("torch.rand", side_effect=flat),
        patch("torch.randn", return_value=bell),
        patch("torch.randn_like", return_value=bell),
        patch("torch.Tensor.float", torch.Tensor.double),
        patch.object(program, "L0_norm", lambda delta: (delta.abs() > 1e-6 * eps).sum(1)),
    ):
        attack.perturb(x, y)
    torch.set_default_dtype(torch.float32)
    fooled = any(bool(((torch.tanh(point @ first) @ second).argmax(1) != y).any()) for point in seen)
    assert not (loss == "t" and fooled), "a row that is fooled would be left out of the targets that follow"
    return torch.stack([point for point in seen if not torch.equal(point, x)])


if __name__ == "__main__":
    main(sys.argv[1])
