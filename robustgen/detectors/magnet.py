"""How far an autoencoder moves an input, and the classifier's answer with it."""

from __future__ import annotations

from collections.abc import Callable
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from robustgen.data.hold_out import hold_out
from robustgen.data.rows import Rows
from robustgen.detectors.cycle_gan import divergence
from robustgen.detectors.outputs import require_temperature
from robustgen.detectors.watching import WatchingDetector
from robustgen.errors import UsageError
from robustgen.models.autoencoder import autoencoder
from robustgen.runtime import seeded
from robustgen.training.descent import Recipe, TrainingProgress
from robustgen.training.plan import recipe
from robustgen.training.reconstruction import train_autoencoder
from robustgen.training.terms import corruption

_RARE = 0.95


@final
class MagNetDetector(WatchingDetector):
    """An autoencoder of normal inputs, and what becomes of an input x and of the classifier's logits f(x) when it is
    given back as x' (Meng, Chen 2017, "MagNet: a two-pronged defense against adversarial examples").

    `scores`: joined by "+": "l1" and "l2", mean |x - x'| and mean (x - x')^2; "jsd:T", the Jensen-Shannon divergence of
    softmax(f(x) / T) and softmax(f(x') / T), in nats; "jeffreys:T", the sum of their two Kullback-Leibler divergences
    (Jeffreys 1946), which has no upper bound where "jsd" flattens. Several are each divided by the value that 5 % of
    held-out training inputs exceed, and summed, or with `join` "largest" the largest counts (an input is flagged if any
    detector flags it: the paper's rule).

    `network`, `code`: see `autoencoder`; code None = 256 for images from 16 x 16 up, else 32. `noise`: the standard
    deviation of Gaussian noise on what the autoencoder learns from. The authors' code has for MNIST two convolutional
    networks of three channels, one of them with a pooling inside, both trained with noise 0.1: the l2 of the one and
    the l1 of the other. Here one network gives all scores. A low temperature sees small attacks, a high one large
    attacks.
    `preset`, `epochs` and the rest: as for `autoencoder`; about a tenth of the training inputs is held out.
    """

    autoencoder: nn.Module
    usual: Tensor

    def __init__(
        self,
        scores: str = "jeffreys:1+jeffreys:2",
        join: str = "sum",
        network: str = "auto",
        code: int | None = None,
        noise: float = 0.0,
        preset: str = "default",
        epochs: int | None = None,
        batch_size: int = 128,
        learning_rate: float = 2e-3,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if code is not None and code < 1:
            raise UsageError(f"code must be at least 1, but {code} came")
        if not 0 <= noise < float("inf"):
            raise UsageError(f"noise is a standard deviation from 0 up, but {noise:g} came")
        if join not in ("sum", "largest"):
            raise UsageError(f"scores are joined by their sum or the largest, but {join!r} came")
        self.scores, self.join, self.network, self.code, self.noise = scores, join, network, code, noise
        self.preset, self.epochs, self.batch_size = preset, epochs, batch_size
        self.learning_rate, self.seed = learning_rate, seed
        self._recipe(1)  # what is out of range is said now
        self._readings = [_reading(name) for name in scores.split("+")]
        self.register_buffer("usual", torch.ones(len(self._readings)))

    def _build(self, shape: tuple[int, ...]) -> None:
        image = len(shape) == 3 and min(shape[1:]) >= 16
        with seeded(self.seed):
            self.autoencoder = autoencoder(self.network, shape, self.code or (256 if image else 32)).to(self._device)
        self.usual = torch.ones(len(self._readings), device=self._device)

    def _recipe(self, n: int) -> Recipe:
        return recipe(
            self.preset,
            n,
            epochs=self.epochs,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            seed=self.seed,
        )

    def _fit(self, rows: Rows, progress: TrainingProgress | None) -> None:
        device = self._device
        with torch.no_grad():
            self.logits(next(rows.batches(8)).to(device))
        kept, held = hold_out(rows, seed=self.seed, device=device)
        train_autoencoder(
            self.autoencoder,
            kept,
            self._recipe(len(kept)),
            device=device,
            corrupt=corruption("gaussian", self.noise) if self.noise else None,
            held_out=held,
            checkpoint=self._checkpoint,
            progress=progress,
        )
        self.to(device).eval()
        if len(self._readings) > 1:
            with torch.no_grad():
                found = torch.cat([self.apart(x.to(device)) for x in held.batches(250)], 1)
            self.usual = found.quantile(_RARE, 1).clamp_min(1e-6)

    def reconstruct(self, x: Float[Tensor, "n *shape"]) -> Float[Tensor, "n *shape"]:
        """What the autoencoder makes of each input."""
        back: Tensor = self.autoencoder(x)
        return back

    def apart(self, x: Float[Tensor, "n *shape"]) -> Float[Tensor, "scores n"]:
        """Each of the `scores` by itself, in its own unit."""
        back = self.reconstruct(x)
        before, after = self.logits(x), self.logits(back)
        return torch.stack([reading(x, back, before, after) for reading in self._readings])

    def _score(self, x: Tensor, condition: Tensor | None) -> Tensor:
        found = self.apart(x)
        if len(found) == 1:
            return found[0]
        found = found / self.usual.to(x.dtype)[:, None]
        return found.sum(0) if self.join == "sum" else found.amax(0)

    def _counterpart(self, x: Tensor) -> Tensor:
        return self.reconstruct(x)


def jeffreys(p: Float[Tensor, "n k"], q: Float[Tensor, "n k"]) -> Float[Tensor, " n"]:
    """KL(p || q) + KL(q || p), in nats, of what two rows of logits say."""
    log_p, log_q = p.log_softmax(1), q.log_softmax(1)
    return ((log_p.exp() - log_q.exp()) * (log_p - log_q)).sum(1)


def _reading(name: str) -> Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]:
    """(inputs, reconstructions, logits of either) -> (n,)"""
    if name == "l1":
        return lambda x, back, before, after: (x - back).abs().flatten(1).mean(1)
    if name == "l2":
        return lambda x, back, before, after: (x - back).square().flatten(1).mean(1)
    kind, _, words = name.partition(":")
    try:
        temperature = require_temperature(float(words))
    except ValueError:
        kind = ""
    if kind not in ("jsd", "jeffreys"):
        raise UsageError(f"a score of magnet is l1, l2, jsd:T or jeffreys:T, T being a temperature, but {name!r} came")
    apart = divergence if kind == "jsd" else jeffreys
    return lambda x, back, before, after: apart(before / temperature, after / temperature)
